"""The client against a running gateway, which `clients/test` starts."""

import json
import os
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

import nodes
from ssm_gateway.v1.instance_information_pb2 import InstanceInformationStringFilter
from ssm_gateway.v1.instance_information_service_pb2_grpc import InstanceInformationServiceStub

CA = Path(os.environ["SSM_GATEWAY_TLS_CA"]).read_bytes()
TOKEN = Path(os.environ["SSM_GATEWAY_TOKEN_FILE"]).read_text()
# What boto3 reads.
FLEET = json.loads(Path(os.environ["FLEET"]).read_text())


def service(address=os.environ["SSM_GATEWAY_ADDRESS"], token=TOKEN):
    return InstanceInformationServiceStub(nodes.connect(address, CA, token))


def listed(pages):
    return [MessageToDict(node) for page in pages for node in page.instance_information_list]


def test_pages():
    assert [MessageToDict(node) for node in nodes.pages(service(), timeout=10)] == FLEET


def test_stream():
    assert listed(nodes.stream(service(), timeout=10)) == FLEET


def test_cut():
    # Each connection breaks before half of a fleet, and for a while after the first every connection is closed.
    fleets, unreachable = {"fleet": [], "other": []}, set()
    for page in nodes.stream(service(os.environ["CUT_ADDRESS"]), timeout=30, targets=["fleet", "other", "denied"]):
        if page.HasField("unreachable"):
            unreachable.add((page.target, page.unreachable.reason))
        else:
            fleets[page.target] += listed([page])
    assert fleets["fleet"] == FLEET
    assert len({node["InstanceId"] for node in fleets["other"]}) == len(fleets["other"]) == len(FLEET)
    assert unreachable == {("denied", "AWS_ACCESS_DENIED")}


def test_slow_reader():
    now = {"targets": ["large"], "read_options": {"max_age": {}}}
    slow = nodes.stream(service(), timeout=60, **now)
    next(slow)
    # Another reader reads a walk of the same length to its end.
    platforms = InstanceInformationStringFilter(key="PlatformTypes", values=["Linux", "Windows", "MacOS"])
    assert len(listed(nodes.stream(service(), timeout=60, filters=[platforms], **now))) > 10_000
    resumed = datetime.now(timezone.utc)
    rest = list(slow)
    assert rest[len(rest) // 2].as_of.ToDatetime(timezone.utc) > resumed, "AWS was asked for what nobody read"


def test_wrong_filter():
    color = InstanceInformationStringFilter(key="Color", values=["red"])
    with pytest.raises(grpc.RpcError) as raised:
        list(nodes.pages(service(), timeout=10, filters=[color]))
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.details() == "UnknownKey filter Key is invalid."
    assert nodes.explain(raised.value) == nodes.Problem("VALIDATION", ["filters"], None)


def test_denied():
    with pytest.raises(grpc.RpcError) as raised:
        list(nodes.pages(service(), timeout=10, target="denied"))
    assert raised.value.code() == grpc.StatusCode.PERMISSION_DENIED
    problem = nodes.explain(raised.value)
    assert problem.reason == "AWS_ACCESS_DENIED"
    assert problem.retry_delay > timedelta(0)


def test_throttle():
    # AWS throttles once, and advises a delay longer than all retries that ignore it would take together.
    started = time.monotonic()
    assert len(list(nodes.pages(service(), timeout=30, target="throttled-python"))) == len(FLEET)
    assert time.monotonic() - started > 2


def test_throttled_stream():
    # The error precedes the headers of an answer; otherwise no policy would retry it.
    started = time.monotonic()
    assert len(listed(nodes.stream(service(), timeout=30, targets=["throttled-python-stream"]))) == len(FLEET)
    assert time.monotonic() - started > 2


def test_deadline():
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as raised:
        list(nodes.pages(service(), timeout=0.3, target="silent"))
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    with pytest.raises(grpc.RpcError) as raised:
        list(nodes.stream(service(), timeout=0.3, targets=["silent"]))
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - started < 5


def test_wrong_token():
    with pytest.raises(grpc.RpcError) as raised:
        list(nodes.pages(service(token="wrong"), timeout=10))
    assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert nodes.explain(raised.value).reason == "UNAUTHENTICATED"
