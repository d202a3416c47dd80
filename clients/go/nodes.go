// A client of ssm-gateway, to be copied into a service.
//
// As a program it prints the nodes that are online.
package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // for the health checks of the service config
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"example.com/nodes/ssmgateway"
)

//go:generate buf generate ../../proto
//go:generate cp ../../proto/ssm_gateway/v1/service_config.json ssmgateway/

// Round robin over replicas, health checks, time-outs, and retries of errors that are safe to retry.
//
//go:embed ssmgateway/service_config.json
var serviceConfig string

// bearer authenticates each call with a token.
type bearer string

func (token bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(token)}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }

// Connect connects to a gateway. With ca or a token it uses TLS and trusts ca, or else the system's authorities; a token authenticates
// each call. With neither, the connection is not encrypted.
func Connect(address string, ca []byte, token string) (*grpc.ClientConn, error) {
	// Detects a connection that no longer answers.
	alive := keepalive.ClientParameters{Time: time.Minute, Timeout: 20 * time.Second}
	options := []grpc.DialOption{grpc.WithDefaultServiceConfig(serviceConfig), grpc.WithKeepaliveParams(alive)}
	if ca == nil && token == "" {
		return grpc.NewClient(address, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	}
	config := &tls.Config{}
	if ca != nil {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("no certificate to trust")
		}
	}
	options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if token != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer(token)))
	}
	return grpc.NewClient(address, options...)
}

// Pages yields all nodes that the request selects. It makes one call per page, each with this timeout.
func Pages(
	ctx context.Context, client ssmgateway.InstanceInformationServiceClient, timeout time.Duration,
	request *ssmgateway.DescribeInstanceInformationRequest,
) iter.Seq2[*ssmgateway.InstanceInformation, error] {
	page := func(request *ssmgateway.DescribeInstanceInformationRequest) (*ssmgateway.DescribeInstanceInformationResponse, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return client.DescribeInstanceInformation(ctx, request)
	}
	return func(yield func(*ssmgateway.InstanceInformation, error) bool) {
		request := proto.CloneOf(request)
		if request.MaxResults == nil {
			request.MaxResults = proto.Int32(50)
		}
		for {
			answer, err := page(request)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, node := range answer.InstanceInformationList {
				if !yield(node, nil) {
					return
				}
			}
			if request.NextToken = answer.NextToken; request.NextToken == nil {
				return
			}
		}
	}
}

// Stream yields all pages of all targets that the request selects, until ctx is done, and resumes a stream that breaks off. It sets
// the request's resume tokens itself.
//
// A slow reader slows the walk: the gateway sends, and fetches from AWS, little more than what the reader reads. A page may have the
// reason why its target is unreachable in place of nodes.
func Stream(
	ctx context.Context, client ssmgateway.InstanceInformationServiceClient,
	request *ssmgateway.StreamInstanceInformationRequest,
) iter.Seq2[*ssmgateway.StreamInstanceInformationResponse, error] {
	return func(yield func(*ssmgateway.StreamInstanceInformationResponse, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		request, tokens := proto.CloneOf(request), map[string]string{}
		for {
			request.ResumeTokens = slices.Collect(maps.Values(tokens))
			// A stream that has begun waits for a gateway; the first call fails after the attempts of the service config.
			stream, err := client.StreamInstanceInformation(ctx, request, grpc.WaitForReady(len(tokens) > 0))
			hasBegun := false
			for err == nil {
				var page *ssmgateway.StreamInstanceInformationResponse
				if page, err = stream.Recv(); err == nil {
					hasBegun = true
					if !yield(page, nil) {
						return
					}
					tokens[page.Target] = page.ResumeToken
				}
			}
			if err == io.EOF {
				return
			}
			if !hasBegun || status.Code(err) != codes.Unavailable {
				yield(nil, err)
				return
			}
		}
	}
}

// Problem holds the details of an error. RetryDelay is 0 if the error advises none.
type Problem struct {
	Reason     string
	Fields     []string
	RetryDelay time.Duration
}

// Explain decodes the details of an error. An error that does not come from the gateway has none.
func Explain(err error) (problem Problem) {
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			problem.Reason = detail.Reason
		case *errdetails.BadRequest:
			for _, violation := range detail.FieldViolations {
				problem.Fields = append(problem.Fields, violation.Field)
			}
		case *errdetails.RetryInfo:
			problem.RetryDelay = detail.RetryDelay.AsDuration()
		}
	}
	return problem
}

// fromEnvironment reads the file that the variable names, if the variable is set.
func fromEnvironment(name string) ([]byte, error) {
	if file := os.Getenv(name); file != "" {
		return os.ReadFile(file)
	}
	return nil, nil
}

func printOnline(ctx context.Context) error {
	ca, err := fromEnvironment("SSM_GATEWAY_TLS_CA")
	if err != nil {
		return err
	}
	token, err := fromEnvironment("SSM_GATEWAY_TOKEN_FILE")
	if err != nil {
		return err
	}
	address := cmp.Or(os.Getenv("SSM_GATEWAY_ADDRESS"), "127.0.0.1:50051")
	connection, err := Connect(address, ca, strings.TrimSpace(string(token)))
	if err != nil {
		return err
	}
	defer connection.Close()
	online := &ssmgateway.InstanceInformationStringFilter{Key: proto.String("PingStatus"), Values: []string{"Online"}}
	request := &ssmgateway.StreamInstanceInformationRequest{
		Filters: []*ssmgateway.InstanceInformationStringFilter{online},
	}
	for page, err := range Stream(ctx, ssmgateway.NewInstanceInformationServiceClient(connection), request) {
		if err != nil {
			return fmt.Errorf("%w %+v", err, Explain(err))
		}
		if page.Unreachable != nil {
			fmt.Fprintf(os.Stderr, "%s is unreachable: %s\n", page.Target, page.Unreachable.Message)
		}
		for _, node := range page.InstanceInformationList {
			fmt.Println(node.GetInstanceId(), node.GetPlatformName())
		}
	}
	return nil
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := printOnline(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
