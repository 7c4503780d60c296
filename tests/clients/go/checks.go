// What a program finds that uses the client against a running server; printed as JSON.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"llmrouter.internal/llmrouter"
	"llmrouter.internal/llmrouter/llmrouterv2"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var asked atomic.Int32
	source := func(context.Context) (string, error) {
		asked.Add(1)
		return os.Getenv("TOKEN"), nil
	}
	client, err := llmrouter.New(os.Getenv("ADDRESS"), source)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	found := map[string]any{}

	models, err := client.Models.ListModels(ctx, &llmrouterv2.ListModelsRequest{PowerLevel: llmrouterv2.PowerLevel_PRECISION})
	if err != nil {
		log.Fatal(err)
	}
	found["models"] = len(models.GetModels())
	_, err = client.Providers.ListProviders(ctx, &llmrouterv2.ListProvidersRequest{})
	found["refused"] = llmrouter.Reason(err)
	found["asked"] = asked.Load()

	export, err := client.Usage.ExportUsage(ctx, &llmrouterv2.ExportUsageRequest{})
	if err != nil {
		log.Fatal(err)
	}
	var csv bytes.Buffer
	for {
		part, err := export.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		csv.Write(part.GetData())
	}
	found["csv"] = csv.String()

	nobody, err := llmrouter.New("127.0.0.1:1", llmrouter.Token("t"))
	if err != nil {
		log.Fatal(err)
	}
	defer nobody.Close()
	_, err = nobody.Settings.GetSettings(ctx, &llmrouterv2.GetSettingsRequest{})
	found["nobody"] = status.Code(err) == codes.Unavailable && llmrouter.Reason(err) == ""

	keyless, err := llmrouter.New(os.Getenv("ADDRESS"), func(context.Context) (string, error) {
		return "", errors.New("the token store is closed")
	})
	if err != nil {
		log.Fatal(err)
	}
	defer keyless.Close()
	_, err = keyless.Settings.GetSettings(ctx, &llmrouterv2.GetSettingsRequest{})
	found["keyless"] = status.Convert(err).Message()

	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		log.Fatal(err)
	}
}
