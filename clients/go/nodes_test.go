package main

import (
	"context"
	"encoding/json"
	"os"
	"reflect"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"example.com/nodes/ssmgateway"
)

// read returns the file that the variable names. `clients/test` sets the variable and starts the gateway.
func read(t *testing.T, name string) []byte {
	content, err := fromEnvironment(name)
	if err != nil || content == nil {
		t.Fatalf("%s: %v", name, err)
	}
	return content
}

func client(t *testing.T, address, token string) ssmgateway.InstanceInformationServiceClient {
	connection, err := Connect(os.Getenv(address), read(t, "SSM_GATEWAY_TLS_CA"), token)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return ssmgateway.NewInstanceInformationServiceClient(connection)
}

func gateway(t *testing.T) ssmgateway.InstanceInformationServiceClient {
	return client(t, "SSM_GATEWAY_ADDRESS", string(read(t, "SSM_GATEWAY_TOKEN_FILE")))
}

// walk reads all pages of a target, or fails.
func walk(
	t *testing.T, client ssmgateway.InstanceInformationServiceClient, timeout time.Duration, target string,
	filters ...*ssmgateway.InstanceInformationStringFilter,
) (nodes []*ssmgateway.InstanceInformation, failure error) {
	request := &ssmgateway.DescribeInstanceInformationRequest{Target: target, Filters: filters}
	for node, err := range Pages(t.Context(), client, timeout, request) {
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, node)
	}
	return nodes, nil
}

func stream(
	t *testing.T, client ssmgateway.InstanceInformationServiceClient, request *ssmgateway.StreamInstanceInformationRequest,
) (nodes []*ssmgateway.InstanceInformation) {
	for page, err := range Stream(t.Context(), client, request) {
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, page.InstanceInformationList...)
	}
	return nodes
}

// isFleet compares with what boto3 reads.
func isFleet(t *testing.T, nodes []*ssmgateway.InstanceInformation) {
	var fleet, found []map[string]any
	if err := json.Unmarshal(read(t, "FLEET"), &fleet); err != nil {
		t.Fatal(err)
	}
	for _, node := range nodes {
		text, err := protojson.Marshal(node)
		if err != nil {
			t.Fatal(err)
		}
		var values map[string]any
		if err := json.Unmarshal(text, &values); err != nil {
			t.Fatal(err)
		}
		found = append(found, values)
	}
	if !reflect.DeepEqual(found, fleet) {
		t.Fatalf("%d nodes, not those of the fleet", len(found))
	}
}

func TestPages(t *testing.T) {
	nodes, err := walk(t, gateway(t), 10*time.Second, "")
	if err != nil {
		t.Fatal(err)
	}
	isFleet(t, nodes)
}

func TestStream(t *testing.T) {
	isFleet(t, stream(t, gateway(t), &ssmgateway.StreamInstanceInformationRequest{}))
}

func TestCut(t *testing.T) {
	// Each connection breaks before half of a fleet, and for a while after the first every connection is closed.
	cut := client(t, "CUT_ADDRESS", string(read(t, "SSM_GATEWAY_TOKEN_FILE")))
	fleets, reasons := map[string][]*ssmgateway.InstanceInformation{}, map[string]string{}
	request := &ssmgateway.StreamInstanceInformationRequest{Targets: []string{"fleet", "other", "denied"}}
	for page, err := range Stream(t.Context(), cut, request) {
		if err != nil {
			t.Fatal(err)
		}
		fleets[page.Target] = append(fleets[page.Target], page.InstanceInformationList...)
		if page.Unreachable != nil {
			reasons[page.Target] = page.Unreachable.Reason
		}
	}
	isFleet(t, fleets["fleet"])
	others := map[string]bool{}
	for _, node := range fleets["other"] {
		others[node.GetInstanceId()] = true
	}
	if len(others) != len(fleets["other"]) || len(others) != len(fleets["fleet"]) {
		t.Fatalf("%d of %d nodes of the other fleet", len(others), len(fleets["other"]))
	}
	if !reflect.DeepEqual(reasons, map[string]string{"denied": "AWS_ACCESS_DENIED"}) {
		t.Fatal(reasons)
	}
}

func TestSlowReader(t *testing.T) {
	now := &ssmgateway.ReadOptions{MaxAge: &durationpb.Duration{}}
	slow := &ssmgateway.StreamInstanceInformationRequest{Targets: []string{"large"}, ReadOptions: now}
	var resumed time.Time
	var asked []time.Time
	for page, err := range Stream(t.Context(), gateway(t), slow) {
		if err != nil {
			t.Fatal(err)
		}
		if resumed.IsZero() {
			// Another reader reads a walk of the same length to its end.
			other := proto.CloneOf(slow)
			other.Filters = []*ssmgateway.InstanceInformationStringFilter{
				{Key: proto.String("PlatformTypes"), Values: []string{"Linux", "Windows", "MacOS"}},
			}
			if nodes := stream(t, gateway(t), other); len(nodes) < 10_000 {
				t.Fatalf("%d nodes are not many", len(nodes))
			}
			resumed = time.Now()
		}
		asked = append(asked, page.AsOf.AsTime())
	}
	if !asked[len(asked)/2].After(resumed) {
		t.Fatal("AWS was asked for what nobody read")
	}
}

func TestWrongFilter(t *testing.T) {
	color := &ssmgateway.InstanceInformationStringFilter{Key: proto.String("Color"), Values: []string{"red"}}
	_, err := walk(t, gateway(t), 10*time.Second, "", color)
	expected := Problem{Reason: "VALIDATION", Fields: []string{"filters"}}
	if status.Code(err) != codes.InvalidArgument || !reflect.DeepEqual(Explain(err), expected) {
		t.Fatalf("%v %+v", err, Explain(err))
	}
	if message := status.Convert(err).Message(); message != "UnknownKey filter Key is invalid." {
		t.Fatal(message)
	}
}

func TestDenied(t *testing.T) {
	_, err := walk(t, gateway(t), 10*time.Second, "denied")
	problem := Explain(err)
	if status.Code(err) != codes.PermissionDenied || problem.Reason != "AWS_ACCESS_DENIED" || problem.RetryDelay <= 0 {
		t.Fatalf("%v %+v", err, problem)
	}
}

func TestThrottle(t *testing.T) {
	// AWS throttles once, and advises a delay longer than all retries that ignore it would take together.
	started := time.Now()
	nodes, err := walk(t, gateway(t), 30*time.Second, "throttled-go")
	if err != nil || len(nodes) != 1237 || time.Since(started) < 2*time.Second {
		t.Fatalf("%d nodes after %v: %v", len(nodes), time.Since(started), err)
	}
}

func TestThrottledStream(t *testing.T) {
	// The error precedes the headers of an answer; otherwise no policy would retry it.
	started := time.Now()
	request := &ssmgateway.StreamInstanceInformationRequest{Targets: []string{"throttled-go-stream"}}
	if nodes := stream(t, gateway(t), request); len(nodes) != 1237 || time.Since(started) < 2*time.Second {
		t.Fatalf("%d nodes after %v", len(nodes), time.Since(started))
	}
}

func TestDeadline(t *testing.T) {
	started := time.Now()
	if _, err := walk(t, gateway(t), 300*time.Millisecond, "silent"); status.Code(err) != codes.DeadlineExceeded {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	silent := &ssmgateway.StreamInstanceInformationRequest{Targets: []string{"silent"}}
	var failure error
	for _, err := range Stream(ctx, gateway(t), silent) {
		failure = err
	}
	if status.Code(failure) != codes.DeadlineExceeded || time.Since(started) > 5*time.Second {
		t.Fatalf("%v after %v", failure, time.Since(started))
	}
}

func TestWrongToken(t *testing.T) {
	_, err := walk(t, client(t, "SSM_GATEWAY_ADDRESS", "wrong"), 10*time.Second, "")
	if status.Code(err) != codes.Unauthenticated || Explain(err).Reason != "UNAUTHENTICATED" {
		t.Fatalf("%v %+v", err, Explain(err))
	}
}
