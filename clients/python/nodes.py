"""A client of ssm-gateway, to be copied into a service.

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

# Round robin over replicas, health checks, time-outs, and retries of errors that are safe to retry.
SERVICE_CONFIG = Path(__file__).parent / "ssm_gateway/v1/service_config.json"


def connect(address: str, ca: bytes | None = None, token: str | None = None) -> grpc.Channel:
    """Connects to a gateway.

    With `ca` or a token it uses TLS and trusts `ca`, or else grpcio's authorities; a token authenticates each call. With
    neither, the connection is not encrypted.
    """
    options = [("grpc.service_config", SERVICE_CONFIG.read_text())]
    # Detects a connection that no longer answers.
    options += [("grpc.keepalive_time_ms", 60_000), ("grpc.keepalive_timeout_ms", 20_000)]
    if ca is None and token is None:
        return grpc.insecure_channel(address, options)
    credentials = grpc.ssl_channel_credentials(ca)
    if token is not None:
        credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))
    return grpc.secure_channel(address, credentials, options)


def pages(service: InstanceInformationServiceStub, timeout: float, **request) -> Iterator[InstanceInformation]:
    """Yields all nodes. Makes one call per page, each with a timeout of `timeout` seconds."""
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
    """Yields all pages of all targets, within `timeout` seconds, and resumes a stream that breaks off.

    A slow reader slows the walk: the gateway sends, and fetches from AWS, little more than what the reader reads. A page may
    have the reason why its target is `unreachable` in place of nodes.
    """
    end, tokens = time.monotonic() + timeout, {}
    while True:
        asked = StreamInstanceInformationRequest(resume_tokens=tokens.values(), **request)
        # A stream that has begun waits for a gateway; the first call fails after the attempts of the service config.
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
    """The details of an error."""

    reason: str
    fields: list[str]
    retry_delay: timedelta | None


def explain(error: grpc.RpcError) -> Problem:
    """Decodes the details of an error. An error that does not come from the gateway has none."""
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
