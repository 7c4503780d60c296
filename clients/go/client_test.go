package llmrouter

import (
	"context"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"llmrouter.internal/llmrouter/llmrouterv2"
)

func TestOnlyThisMachineIsReachedInPlainText(t *testing.T) {
	for target, want := range map[string]bool{
		"127.0.0.1:50051":                        true,
		"localhost:50051":                        true,
		"[::1]:50051":                            true,
		"dns:///localhost:50051":                 true,
		"unix:/run/llmrouter.sock":               true,
		"router.internal:50051":                  false,
		"10.0.0.1:50051":                         false,
		"localhost.example.com:50051":            false,
		"dns://127.0.0.1/router.internal:50051":  false,
		"passthrough:///router.internal:50051":   false,
		"dns:///127.0.0.1.router.internal:50051": false,
	} {
		if isLocal(target) != want {
			t.Errorf("isLocal(%q) is not %v", target, want)
		}
	}
}

// A RoutingService that answers with the token it was sent.
type echo struct {
	llmrouterv2.UnimplementedRoutingServiceServer
}

func (echo) Route(ctx context.Context, _ *llmrouterv2.RouteRequest) (*llmrouterv2.RouteResponse, error) {
	sent, _ := metadata.FromIncomingContext(ctx)
	return &llmrouterv2.RouteResponse{DecisionId: strings.Join(sent["authorization"], ", ")}, nil
}

const elsewhere = "passthrough:///example.com:443"

func TestOtherMachinesAreReachedOverTLS(t *testing.T) {
	sample := httptest.NewUnstartedServer(nil)
	sample.StartTLS() // for its certificate, which is for example.com
	defer sample.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&sample.TLS.Certificates[0])))
	llmrouterv2.RegisterRoutingServiceServer(server, echo{})
	go server.Serve(listener)
	defer server.Stop()
	toListener := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
	})
	route := func(options ...grpc.DialOption) (string, error) {
		client, err := New(elsewhere, Token("t"), append(options, toListener)...)
		if err != nil {
			return "", err
		}
		defer client.Close()
		answer, err := client.Routing.Route(t.Context(), &llmrouterv2.RouteRequest{})
		return answer.GetDecisionId(), err
	}

	authorities := x509.NewCertPool()
	authorities.AddCert(sample.Certificate())
	told, err := route(grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(authorities, "")))
	if told != "Bearer t" || err != nil {
		t.Errorf("the server was told %q: %v", told, err)
	}
	if _, err := route(); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an authority that the system does not know was trusted: %v", err)
	}
	if _, err := route(grpc.WithTransportCredentials(insecure.NewCredentials())); err == nil {
		t.Error("the token may go out in plain text")
	}
}
