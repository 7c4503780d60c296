// Package llmrouter connects to llmrouter, which decides for each LLM request which model of which provider to use.
// The messages and the documentation of each RPC are in the package llmrouterv2.
package llmrouter

import (
	"context"
	"math"
	"net"
	"regexp"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"llmrouter.internal/llmrouter/llmrouterv2"
)

const callTimeout = 10 * time.Second // of a call whose context has no deadline

// UNAVAILABLE is tried again, but not what creates, erases or compares an etag: a second try could find the first one's
// work. A test compares the list with the Python client's.
const serviceConfig = `{"methodConfig": [
	{"name": [{}], ` + retried + `},
	{"name": [{"service": "llmrouter.v2.UsageService", "method": "ExportUsage"}], "timeout": "300s", ` + retried + `},
	{"name": [
		{"service": "llmrouter.v2.ByokService", "method": "DeleteKey"},
		{"service": "llmrouter.v2.ModelService", "method": "CreateModel"},
		{"service": "llmrouter.v2.ModelService", "method": "DisableModel"},
		{"service": "llmrouter.v2.ModelService", "method": "UpdateModel"},
		{"service": "llmrouter.v2.ProviderService", "method": "CreateProvider"},
		{"service": "llmrouter.v2.ProviderService", "method": "DisableProvider"},
		{"service": "llmrouter.v2.ProviderService", "method": "UpdateProvider"},
		{"service": "llmrouter.v2.RoutingRuleService", "method": "CreateRoutingRule"},
		{"service": "llmrouter.v2.RoutingRuleService", "method": "DeleteRoutingRule"},
		{"service": "llmrouter.v2.RoutingRuleService", "method": "UpdateRoutingRule"}
	]}
]}`
const retried = `"retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
	"retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"]}`

// gRPC's own pause after a failed connection, 1 s and more, would outlast all the attempts of a call.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
	MinConnectTimeout: 5 * time.Second,
}

// A connection that died in silence is noticed while calls wait for it, and not only by the system after minutes.
var silence = keepalive.ClientParameters{Time: time.Minute, Timeout: 10 * time.Second}

// TokenSource returns the JSON Web Token to send; it is asked before each call, from any goroutine.
type TokenSource func(context.Context) (string, error)

// Token returns a source of always the same token.
func Token(token string) TokenSource {
	return func(context.Context) (string, error) { return token, nil }
}

// Client has a stub for each service. It is safe to share between goroutines; Close ends it.
type Client struct {
	*grpc.ClientConn
	Audit       llmrouterv2.AuditServiceClient
	Byok        llmrouterv2.ByokServiceClient
	Credentials llmrouterv2.CredentialServiceClient
	Health      llmrouterv2.HealthServiceClient
	Models      llmrouterv2.ModelServiceClient
	Providers   llmrouterv2.ProviderServiceClient
	Routing     llmrouterv2.RoutingServiceClient
	Rules       llmrouterv2.RoutingRuleServiceClient
	Settings    llmrouterv2.SettingsServiceClient
	Usage       llmrouterv2.UsageServiceClient
}

// New prepares a connection, which is made with the first call; the error is about the target or the options.
//
// Loopback addresses and Unix sockets are reached in plain text, everything else over TLS with the system's
// authorities; grpc.WithTransportCredentials(credentials.NewTLS(…)) sets others.
func New(target string, token TokenSource, options ...grpc.DialOption) (*Client, error) {
	if isLocal(target) {
		return NewInsecure(target, token, options...)
	}
	return dial(target, perCall{token, true}, credentials.NewTLS(nil), options)
}

// NewInsecure is New in plain text, tokens included: only inside a network that does the encryption itself.
func NewInsecure(target string, token TokenSource, options ...grpc.DialOption) (*Client, error) {
	return dial(target, perCall{token, false}, insecure.NewCredentials(), options)
}

// Reason returns why a call failed, a value of ErrorReason without its prefix such as NO_ELIGIBLE_MODEL; empty when the
// error did not come from the server itself. Branch on it, never on the message.
func Reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "llmrouter" {
			return info.GetReason()
		}
	}
	return ""
}

func dial(target string, token perCall, transport credentials.TransportCredentials, options []grpc.DialOption) (*Client, error) {
	ours := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithPerRPCCredentials(token),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithChainUnaryInterceptor(withDeadline),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)), // a decision over a large catalogue exceeds 4 MiB
		grpc.WithConnectParams(reconnect),
		grpc.WithKeepaliveParams(silence),
	}
	conn, err := grpc.NewClient(target, append(ours, options...)...)
	if err != nil {
		return nil, err
	}
	return &Client{
		ClientConn:  conn,
		Audit:       llmrouterv2.NewAuditServiceClient(conn),
		Byok:        llmrouterv2.NewByokServiceClient(conn),
		Credentials: llmrouterv2.NewCredentialServiceClient(conn),
		Health:      llmrouterv2.NewHealthServiceClient(conn),
		Models:      llmrouterv2.NewModelServiceClient(conn),
		Providers:   llmrouterv2.NewProviderServiceClient(conn),
		Routing:     llmrouterv2.NewRoutingServiceClient(conn),
		Rules:       llmrouterv2.NewRoutingRuleServiceClient(conn),
		Settings:    llmrouterv2.NewSettingsServiceClient(conn),
		Usage:       llmrouterv2.NewUsageServiceClient(conn),
	}, nil
}

// In the service config it would shorten the deadline that a context has.
func withDeadline(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, call grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	return call(ctx, method, request, answer, conn, options...)
}

type perCall struct {
	token TokenSource
	needs bool
}

func (c perCall) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, err := c.token(ctx)
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

func (c perCall) RequireTransportSecurity() bool { return c.needs }

var scheme = regexp.MustCompile(`^(dns|passthrough):/*`)

func isLocal(target string) bool {
	if strings.HasPrefix(target, "unix:") || strings.HasPrefix(target, "unix-abstract:") {
		return true
	}
	host, _, err := net.SplitHostPort(scheme.ReplaceAllString(target, ""))
	return err == nil && (host == "localhost" || net.ParseIP(host).IsLoopback())
}
