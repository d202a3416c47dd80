package nodes;

import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonArray;
import com.google.gson.JsonParser;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.util.JsonFormat;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import ssmgateway.v1.DescribeInstanceInformationRequest;
import ssmgateway.v1.InstanceInformation;
import ssmgateway.v1.InstanceInformationServiceGrpc;
import ssmgateway.v1.InstanceInformationServiceGrpc.InstanceInformationServiceBlockingV2Stub;
import ssmgateway.v1.InstanceInformationStringFilter;
import ssmgateway.v1.ReadOptions;
import ssmgateway.v1.StreamInstanceInformationRequest;

/** The client against a running gateway, which {@code clients/test} starts. */
class NodesTest {
  private final List<ManagedChannel> channels = new ArrayList<>();

  @AfterEach
  void close() {
    channels.forEach(ManagedChannel::shutdownNow);
  }

  private static String read(String name) throws IOException {
    return Files.readString(Path.of(System.getenv(name)));
  }

  private InstanceInformationServiceBlockingV2Stub stub(String address, String token) throws IOException {
    var ca = Optional.of(read("SSM_GATEWAY_TLS_CA").getBytes());
    channels.add(Nodes.connect(System.getenv(address), ca, Optional.of(token)));
    return InstanceInformationServiceGrpc.newBlockingV2Stub(channels.get(channels.size() - 1));
  }

  private InstanceInformationServiceBlockingV2Stub gateway() throws IOException {
    return stub("SSM_GATEWAY_ADDRESS", read("SSM_GATEWAY_TOKEN_FILE"));
  }

  private static List<InstanceInformation> pages(
      InstanceInformationServiceBlockingV2Stub stub, Duration timeout, DescribeInstanceInformationRequest.Builder request)
      throws StatusException {
    var nodes = new ArrayList<InstanceInformation>();
    Nodes.pages(stub, timeout, request.build(), nodes::add);
    return nodes;
  }

  private static List<InstanceInformation> stream(
      InstanceInformationServiceBlockingV2Stub stub, StreamInstanceInformationRequest.Builder request)
      throws StatusException, InterruptedException {
    var nodes = new ArrayList<InstanceInformation>();
    Nodes.stream(
        stub, Duration.ofMinutes(1), request.build(), page -> nodes.addAll(page.getInstanceInformationListList()));
    return nodes;
  }

  private static StatusException failure(
      InstanceInformationServiceBlockingV2Stub stub, Duration timeout, DescribeInstanceInformationRequest.Builder request) {
    return assertThrows(StatusException.class, () -> pages(stub, timeout, request));
  }

  private static DescribeInstanceInformationRequest.Builder describe() {
    return DescribeInstanceInformationRequest.newBuilder();
  }

  private static InstanceInformationStringFilter.Builder filter(String key, String... values) {
    return InstanceInformationStringFilter.newBuilder().setKey(key).addAllValues(List.of(values));
  }

  /** Compares with what boto3 reads. */
  private static void isFleet(List<InstanceInformation> nodes) throws IOException {
    var found = new JsonArray();
    for (var node : nodes) {
      found.add(JsonParser.parseString(JsonFormat.printer().print(node)));
    }
    assertEquals(JsonParser.parseString(read("FLEET")), found);
  }

  @Test
  void pages() throws Exception {
    isFleet(pages(gateway(), Duration.ofSeconds(10), describe()));
  }

  @Test
  void stream() throws Exception {
    isFleet(stream(gateway(), StreamInstanceInformationRequest.newBuilder()));
  }

  @Test
  void cut() throws Exception {
    // Each connection breaks before half of a fleet, and for a while after the first every connection is closed.
    var stub = stub("CUT_ADDRESS", read("SSM_GATEWAY_TOKEN_FILE"));
    var targets = StreamInstanceInformationRequest.newBuilder().addAllTargets(List.of("fleet", "other", "denied"));
    var fleets = Map.of("fleet", new ArrayList<InstanceInformation>(), "other", new ArrayList<InstanceInformation>());
    var reasons = new HashMap<String, String>();
    Nodes.stream(
        stub,
        Duration.ofSeconds(30),
        targets.build(),
        page -> {
          if (page.hasUnreachable()) {
            reasons.put(page.getTarget(), page.getUnreachable().getReason());
          } else {
            fleets.get(page.getTarget()).addAll(page.getInstanceInformationListList());
          }
        });
    isFleet(fleets.get("fleet"));
    var others = fleets.get("other");
    assertEquals(fleets.get("fleet").size(), others.size());
    assertEquals(others.size(), others.stream().map(InstanceInformation::getInstanceId).distinct().count());
    assertEquals(Map.of("denied", "AWS_ACCESS_DENIED"), reasons);
  }

  @Test
  void slowReader() throws Exception {
    var now = ReadOptions.newBuilder().setMaxAge(com.google.protobuf.Duration.getDefaultInstance());
    var large = StreamInstanceInformationRequest.newBuilder().addTargets("large").setReadOptions(now).build();
    var other = large.toBuilder().addFilters(filter("PlatformTypes", "Linux", "Windows", "MacOS"));
    var asked = new ArrayList<Instant>();
    var resumed = new ArrayList<Instant>();
    Nodes.stream(
        gateway(),
        Duration.ofMinutes(1),
        large,
        page -> {
          if (resumed.isEmpty()) {
            // Another reader reads a walk of the same length to its end.
            assertTrue(assertDoesNotThrow(() -> stream(gateway(), other)).size() > 10_000);
            resumed.add(Instant.now());
          }
          asked.add(Instant.ofEpochSecond(page.getAsOf().getSeconds(), page.getAsOf().getNanos()));
        });
    assertTrue(asked.get(asked.size() / 2).isAfter(resumed.get(0)), "AWS was asked for what nobody read");
  }

  @Test
  void wrongFilter() throws Exception {
    var error = failure(gateway(), Duration.ofSeconds(10), describe().addFilters(filter("Color", "red")));
    assertEquals(Status.Code.INVALID_ARGUMENT, error.getStatus().getCode());
    assertEquals("UnknownKey filter Key is invalid.", error.getStatus().getDescription());
    assertEquals(new Nodes.Problem("VALIDATION", List.of("filters"), Optional.empty()), Nodes.explain(error));
  }

  @Test
  void denied() throws Exception {
    var error = failure(gateway(), Duration.ofSeconds(10), describe().setTarget("denied"));
    assertEquals(Status.Code.PERMISSION_DENIED, error.getStatus().getCode());
    var problem = Nodes.explain(error);
    assertEquals("AWS_ACCESS_DENIED", problem.reason());
    assertTrue(problem.retryDelay().orElseThrow().compareTo(Duration.ZERO) > 0);
  }

  @Test
  void throttle() throws Exception {
    // AWS throttles once, and advises a delay longer than all retries that ignore it would take together.
    var started = Instant.now();
    assertEquals(1237, pages(gateway(), Duration.ofSeconds(30), describe().setTarget("throttled-java")).size());
    assertTrue(Duration.between(started, Instant.now()).toSeconds() >= 2);
  }

  @Test
  void throttledStream() throws Exception {
    // The error precedes the headers of an answer; otherwise no policy would retry it.
    var started = Instant.now();
    var target = StreamInstanceInformationRequest.newBuilder().addTargets("throttled-java-stream");
    assertEquals(1237, stream(gateway(), target).size());
    assertTrue(Duration.between(started, Instant.now()).toSeconds() >= 2);
  }

  @Test
  void deadline() throws Exception {
    var started = Instant.now();
    var limit = Duration.ofMillis(300);
    var error = failure(gateway(), limit, describe().setTarget("silent"));
    assertEquals(Status.Code.DEADLINE_EXCEEDED, error.getStatus().getCode());
    var silent = StreamInstanceInformationRequest.newBuilder().addTargets("silent").build();
    error = assertThrows(StatusException.class, () -> Nodes.stream(gateway(), limit, silent, page -> {}));
    assertEquals(Status.Code.DEADLINE_EXCEEDED, error.getStatus().getCode());
    assertTrue(Duration.between(started, Instant.now()).toSeconds() < 5);
  }

  @Test
  void wrongToken() throws Exception {
    var error = failure(stub("SSM_GATEWAY_ADDRESS", "wrong"), Duration.ofSeconds(10), describe());
    assertEquals(Status.Code.UNAUTHENTICATED, error.getStatus().getCode());
    assertEquals("UNAUTHENTICATED", Nodes.explain(error).reason());
  }
}
