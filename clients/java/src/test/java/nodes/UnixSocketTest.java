package nodes;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollDomainSocketChannel;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollEventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.unix.DomainSocketAddress;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import ssmgateway.v1.DescribeInstanceInformationRequest;
import ssmgateway.v1.InstanceInformationServiceGrpc;

/** A gateway on a Unix socket, whose path grpc-java sends as the authority. */
class UnixSocketTest {
  @Test
  void answersWhateverTheAuthority() throws Exception {
    var group = new EpollEventLoopGroup(1);
    var address = new DomainSocketAddress(System.getenv("UNIX_ADDRESS").substring("unix:".length()));
    var channel =
        NettyChannelBuilder.forAddress(address)
            .eventLoopGroup(group)
            .channelType(EpollDomainSocketChannel.class, DomainSocketAddress.class)
            .usePlaintext()
            .build();
    try {
      var stub = InstanceInformationServiceGrpc.newBlockingV2Stub(channel).withDeadlineAfter(1, TimeUnit.MINUTES);
      var answer = stub.describeInstanceInformation(DescribeInstanceInformationRequest.getDefaultInstance());
      assertEquals(10, answer.getInstanceInformationListCount());
    } finally {
      channel.shutdownNow();
      group.shutdownGracefully();
    }
  }
}
