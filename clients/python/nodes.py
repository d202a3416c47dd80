"""A client of ssm-gateway: what a service needs of it, to be taken over as it stands.

As a program it prints the nodes that are online.
"""

import os
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_status import rpc_status

from ssm_gateway.v1.instance_information_pb2 import InstanceInformation, InstanceInformationStringFilter
from ssm_gateway.v1.instance_information_service_pb2 import (
    DescribeInstanceInformationRequest,
    StreamInstanceInformationRequest,
    StreamInstanceInformationResponse,
)
from ssm_gateway.v1.instance_information_service_pb2_grpc import InstanceInformationServiceStub

# Round robin over replicas, health checks, the longest that a call may take, and retries of what may be retried.
SERVICE_CONFIG = Path(__file__).parent / "ssm_gateway/v1/service_config.json"


def connect(address: str, ca: bytes | None = None, token: str | None = None) -> grpc.Channel:
    """Connects: in TLS, trusting `ca` or else whom grpcio trusts, with a token that proves who calls.

    With neither, without TLS.
    """
    options = [("grpc.service_config", SERVICE_CONFIG.read_text())]
    # A connection that has gone silent is noticed.
    options += [("grpc.keepalive_time_ms", 60_000), ("grpc.keepalive_timeout_ms", 20_000)]
    if ca is None and token is None:
        return grpc.insecure_channel(address, options)
    credentials = grpc.ssl_channel_credentials(ca)
    if token is not None:
        credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))
    return grpc.secure_channel(address, credentials, options)


def pages(service: InstanceInformationServiceStub, timeout: float, **request) -> Iterator[InstanceInformation]:
    """Gives all nodes, by a call a page, each of which may take `timeout` seconds."""
    asked = DescribeInstanceInformationRequest(**{"max_results": 50} | request)
    while True:
        page = service.DescribeInstanceInformation(asked, timeout=timeout)
        yield from page.instance_information_list
        if not page.next_token:
            return
        asked.next_token = page.next_token


def stream(
    service: InstanceInformationServiceStub, timeout: float, **request
) -> Iterator[StreamInstanceInformationResponse]:
    """Gives all pages of all targets, in `timeout` seconds at most, and takes up a stream that breaks off where it was.

    A reader who is slow holds the walk back: little more than what it reads is sent, or asked of AWS. In place of nodes a
    page may tell why its target is `unreachable`.
    """
    end, tokens = time.monotonic() + timeout, {}
    while True:
        asked = StreamInstanceInformationRequest(resume_tokens=tokens.values(), **request)
        # What has begun waits until it can go on; what has not fails once the service config has tried it often enough.
        call = service.StreamInstanceInformation(asked, timeout=end - time.monotonic(), wait_for_ready=bool(tokens))
        has_begun = False
        try:
            for page in call:
                has_begun = True
                yield page
                tokens[page.target] = page.resume_token
            return
        except grpc.RpcError as error:
            if not has_begun or error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
        finally:
            call.cancel()


class Problem(NamedTuple):
    """What the details of an error tell."""

    reason: str
    fields: list[str]
    retry_delay: timedelta | None


def explain(error: grpc.RpcError) -> Problem:
    """Decodes the details of an error, of which one that the gateway never saw has none."""
    problem = Problem(reason="", fields=[], retry_delay=None)
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        info, request, retry = ErrorInfo(), BadRequest(), RetryInfo()
        if detail.Unpack(info):
            problem = problem._replace(reason=info.reason)
        elif detail.Unpack(request):
            problem = problem._replace(fields=[violation.field for violation in request.field_violations])
        elif detail.Unpack(retry):
            problem = problem._replace(retry_delay=retry.retry_delay.ToTimedelta())
    return problem


def main() -> None:
    ca, token = (os.environ.get(name) for name in ["SSM_GATEWAY_TLS_CA", "SSM_GATEWAY_TOKEN_FILE"])
    channel = connect(
        os.environ.get("SSM_GATEWAY_ADDRESS", "127.0.0.1:50051"),
        Path(ca).read_bytes() if ca else None,
        Path(token).read_text().strip() if token else None,
    )
    online = InstanceInformationStringFilter(key="PingStatus", values=["Online"])
    with channel:
        try:
            for page in stream(InstanceInformationServiceStub(channel), timeout=60, filters=[online]):
                if page.HasField("unreachable"):
                    print(f"{page.target} is unreachable: {page.unreachable.message}", file=sys.stderr)
                for node in page.instance_information_list:
                    print(node.instance_id, node.platform_name)
        except grpc.RpcError as error:
            raise SystemExit(f"{error.code().name}: {error.details()} {explain(error)}") from error


if __name__ == "__main__":
    main()
