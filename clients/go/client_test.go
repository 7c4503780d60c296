package llmrouter

import (
	"context"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

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

// A server that refuses every call, and notes what was called and how long the call may take.
type refusing struct {
	code   codes.Code
	called []string
	left   []time.Duration
}

func (r *refusing) handle(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	deadline, ok := stream.Context().Deadline()
	if !ok {
		deadline = time.Time{}
	}
	r.called, r.left = append(r.called, method[strings.LastIndex(method, "/")+1:]), append(r.left, time.Until(deadline))
	return status.Error(r.code, "not now")
}

func clientOf(t *testing.T, handle grpc.StreamHandler) *Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return clientAt(t, listener, handle)
}

func clientAt(t *testing.T, listener net.Listener, handle grpc.StreamHandler) *Client {
	t.Helper()
	server := grpc.NewServer(grpc.UnknownServiceHandler(handle))
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	client, err := New(listener.Addr().String(), Token("t"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func TestWhatMayNotBeRepeatedIsCalledOnce(t *testing.T) {
	for _, code := range []codes.Code{codes.Unavailable, codes.Canceled} {
		t.Run(code.String(), func(t *testing.T) { callEach(t, code) })
	}
}

func callEach(t *testing.T, code codes.Code) {
	noted := &refusing{code: code}
	client := clientOf(t, noted.handle)
	_, created := client.Providers.CreateProvider(t.Context(), &llmrouterv2.CreateProviderRequest{})
	_, read := client.Settings.GetSettings(t.Context(), &llmrouterv2.GetSettingsRequest{})
	stream, err := client.Usage.ExportUsage(t.Context(), &llmrouterv2.ExportUsageRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, exported := stream.Recv()
	for _, err := range []error{created, read, exported} {
		if status.Code(err) != code {
			t.Errorf("the call ended with %v", err)
		}
	}
	want := "CreateProvider" + strings.Repeat(" GetSettings", 4) + strings.Repeat(" ExportUsage", 4)
	if got := strings.Join(noted.called, " "); got != want {
		t.Errorf("called %s", got)
	}
}

func TestACallHasItsOwnDeadlineOrOneOfTenSeconds(t *testing.T) {
	noted := &refusing{code: codes.Unavailable}
	client := clientOf(t, noted.handle)
	longer, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	client.Models.CreateModel(longer, &llmrouterv2.CreateModelRequest{})
	client.Models.CreateModel(t.Context(), &llmrouterv2.CreateModelRequest{})
	if got := noted.left[0]; got < 50*time.Minute {
		t.Errorf("an hour became %v", got)
	}
	if got := noted.left[1]; got <= 0 || got > 10*time.Second {
		t.Errorf("without a deadline a call may take %v", got)
	}
}

func TestAnAnswerMayBeLargerThanGRPCItselfTakes(t *testing.T) {
	large := &llmrouterv2.RouteResponse{DecisionId: strings.Repeat("x", 5_000_000)}
	client := clientOf(t, func(_ any, stream grpc.ServerStream) error { return stream.SendMsg(large) })
	answer, err := client.Routing.Route(t.Context(), &llmrouterv2.RouteRequest{})
	if len(answer.GetDecisionId()) != 5_000_000 {
		t.Error(err)
	}
}

// A listener whose first connection the system keeps up while nobody reads it, as of a process that hangs.
type hanging struct {
	net.Listener
	first net.Conn
}

func (h *hanging) Accept() (net.Conn, error) {
	conn, err := h.Listener.Accept()
	if err == nil && h.first == nil {
		h.first = conn
		conn.Write([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00")) // the settings that begin HTTP/2
		return h.Listener.Accept()
	}
	return conn, err
}

func TestAConnectionWithoutALifeSignIsGivenUp(t *testing.T) {
	usual := silence
	t.Cleanup(func() { silence = usual })
	silence.Time, silence.Timeout = 10*time.Second, time.Second // gRPC takes no less than 10 s
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client := clientAt(t, &hanging{Listener: listener}, func(_ any, stream grpc.ServerStream) error {
		return stream.SendMsg(&llmrouterv2.RouteResponse{})
	})
	patient, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := client.Routing.Route(patient, &llmrouterv2.RouteRequest{}); err != nil {
		t.Error(err)
	}
}
