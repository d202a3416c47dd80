package nodes;

import com.google.gson.Gson;
import com.google.gson.reflect.TypeToken;
import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.CallCredentials;
import io.grpc.ChannelCredentials;
import io.grpc.CompositeChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.TlsChannelCredentials;
import io.grpc.protobuf.StatusProto;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import ssmgateway.v1.DescribeInstanceInformationRequest;
import ssmgateway.v1.InstanceInformation;
import ssmgateway.v1.InstanceInformationServiceGrpc;
import ssmgateway.v1.InstanceInformationServiceGrpc.InstanceInformationServiceBlockingV2Stub;
import ssmgateway.v1.InstanceInformationStringFilter;
import ssmgateway.v1.StreamInstanceInformationRequest;
import ssmgateway.v1.StreamInstanceInformationResponse;

/**
 * A client of ssm-gateway, to be copied into a service.
 *
 * <p>As a program it prints the nodes that are online.
 */
public final class Nodes {
  private Nodes() {}

  /**
   * Connects to a gateway. With {@code ca} or a token it uses TLS and trusts {@code ca}, or else Java's authorities; a token
   * authenticates each call. With neither, the connection is not encrypted.
   */
  public static ManagedChannel connect(String address, Optional<byte[]> ca, Optional<String> token) throws IOException {
    ChannelCredentials credentials = InsecureChannelCredentials.create();
    if (ca.isPresent()) {
      credentials = TlsChannelCredentials.newBuilder().trustManager(new ByteArrayInputStream(ca.get())).build();
    } else if (token.isPresent()) {
      credentials = TlsChannelCredentials.create();
    }
    if (token.isPresent()) {
      credentials = CompositeChannelCredentials.create(credentials, new Bearer(token.get()));
    }
    return Grpc.newChannelBuilder(address, credentials)
        .defaultServiceConfig(serviceConfig())
        // Detects a connection that no longer answers.
        .keepAliveTime(1, TimeUnit.MINUTES)
        .keepAliveTimeout(20, TimeUnit.SECONDS)
        .build();
  }

  /** Round robin over replicas, health checks, time-outs, and retries of errors that are safe to retry. */
  private static Map<String, ?> serviceConfig() throws IOException {
    try (var json = new InputStreamReader(Nodes.class.getResourceAsStream("/service_config.json"))) {
      return new Gson().fromJson(json, new TypeToken<>() {});
    }
  }

  /** Authenticates each call with a token. */
  private static final class Bearer extends CallCredentials {
    private final Metadata headers = new Metadata();

    Bearer(String token) {
      headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + token);
    }

    @Override
    public void applyRequestMetadata(RequestInfo request, Executor executor, MetadataApplier applier) {
      applier.apply(headers);
    }
  }

  /** Passes all nodes that the request selects to the consumer. Makes one call per page, each with this timeout. */
  public static void pages(
      InstanceInformationServiceBlockingV2Stub stub,
      Duration timeout,
      DescribeInstanceInformationRequest request,
      Consumer<InstanceInformation> consumer)
      throws StatusException {
    var asked = request.toBuilder();
    if (!asked.hasMaxResults()) {
      asked.setMaxResults(50);
    }
    do {
      var page = stub.withDeadlineAfter(timeout).describeInstanceInformation(asked.build());
      page.getInstanceInformationListList().forEach(consumer);
      asked.setNextToken(page.getNextToken());
    } while (!asked.getNextToken().isEmpty());
  }

  /**
   * Passes all pages of all targets that the request selects to the consumer, within {@code timeout}, and resumes a stream that
   * breaks off. It sets the request's resume tokens itself.
   *
   * <p>A slow consumer slows the walk: the gateway sends, and fetches from AWS, little more than what the consumer accepts. A page
   * may have the reason why its target is unreachable in place of nodes.
   */
  public static void stream(
      InstanceInformationServiceBlockingV2Stub stub,
      Duration timeout,
      StreamInstanceInformationRequest request,
      Consumer<StreamInstanceInformationResponse> consumer)
      throws StatusException, InterruptedException {
    var timed = stub.withDeadlineAfter(timeout);
    var tokens = new HashMap<String, String>();
    while (true) {
      var asked = request.toBuilder().clearResumeTokens().addAllResumeTokens(tokens.values()).build();
      // A stream that has begun waits for a gateway; the first call fails after the attempts of the service config.
      var ready = tokens.isEmpty() ? timed : timed.withWaitForReady();
      var call = ready.streamInstanceInformation(asked);
      var hasBegun = false;
      try {
        for (var page = call.read(); page != null; page = call.read()) {
          hasBegun = true;
          consumer.accept(page);
          tokens.put(page.getTarget(), page.getResumeToken());
        }
        return;
      } catch (StatusException error) {
        if (!hasBegun || error.getStatus().getCode() != Status.Code.UNAVAILABLE) {
          throw error;
        }
      } finally {
        call.cancel("read no further", null);
      }
    }
  }

  /** The details of an error. */
  public record Problem(String reason, List<String> fields, Optional<Duration> retryDelay) {}

  /** Decodes the details of an error. An error that does not come from the gateway has none. */
  public static Problem explain(StatusException error) {
    var reason = "";
    var fields = new ArrayList<String>();
    Optional<Duration> retryDelay = Optional.empty();
    try {
      for (Any detail : StatusProto.fromThrowable(error).getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          reason = detail.unpack(ErrorInfo.class).getReason();
        } else if (detail.is(BadRequest.class)) {
          detail.unpack(BadRequest.class).getFieldViolationsList().forEach(violation -> fields.add(violation.getField()));
        } else if (detail.is(RetryInfo.class)) {
          var delay = detail.unpack(RetryInfo.class).getRetryDelay();
          retryDelay = Optional.of(Duration.ofSeconds(delay.getSeconds(), delay.getNanos()));
        }
      }
    } catch (InvalidProtocolBufferException malformed) {
      error.addSuppressed(malformed);
    }
    return new Problem(reason, fields, retryDelay);
  }

  private static Optional<Path> fromEnvironment(String name) {
    return Optional.ofNullable(System.getenv(name)).map(Path::of);
  }

  public static void main(String[] arguments) throws IOException, InterruptedException {
    var ca = fromEnvironment("SSM_GATEWAY_TLS_CA");
    var token = fromEnvironment("SSM_GATEWAY_TOKEN_FILE");
    var channel =
        connect(
            System.getenv().getOrDefault("SSM_GATEWAY_ADDRESS", "127.0.0.1:50051"),
            ca.isPresent() ? Optional.of(Files.readAllBytes(ca.get())) : Optional.empty(),
            token.isPresent() ? Optional.of(Files.readString(token.get()).strip()) : Optional.empty());
    var online = InstanceInformationStringFilter.newBuilder().setKey("PingStatus").addValues("Online");
    var request = StreamInstanceInformationRequest.newBuilder().addFilters(online).build();
    try {
      stream(
          InstanceInformationServiceGrpc.newBlockingV2Stub(channel),
          Duration.ofMinutes(1),
          request,
          page -> {
            if (page.hasUnreachable()) {
              System.err.println(page.getTarget() + " is unreachable: " + page.getUnreachable().getMessage());
            }
            page.getInstanceInformationListList()
                .forEach(node -> System.out.println(node.getInstanceId() + " " + node.getPlatformName()));
          });
    } catch (StatusException error) {
      System.err.println(error.getMessage() + " " + explain(error));
      System.exit(1);
    } finally {
      channel.shutdownNow();
    }
  }
}
