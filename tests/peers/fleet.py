"""Reads fleets with clients that know nothing of ssm-gateway, in one form that can be compared value by value."""

import importlib
import json
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

import boto3
import grpc
import grpc_tools
from botocore.config import Config
from google.protobuf.json_format import MessageToDict
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
TIMES = {
    "LastPingDateTime",
    "RegistrationDate",
    "LastAssociationExecutionDate",
    "LastSuccessfulAssociationExecutionDate",
}


def ssm(url):
    """boto3's client, sending even what it knows to be invalid."""
    config = Config(parameter_validation=False, retries={"total_max_attempts": 1})
    return boto3.client(
        "ssm",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=config,
    )


def read_by_boto3(url, page_size=50, **request):
    """All nodes as they are, by boto3's own paginator."""
    pages = ssm(url).get_paginator("describe_instance_information").paginate(
        PaginationConfig={"PageSize": page_size}, **request
    )
    return [node for page in pages for node in page["InstanceInformationList"]]


def by_boto3(url, page_size=50, **request):
    """All nodes, by boto3."""
    return [comparable(node) for node in read_by_boto3(url, page_size, **request)]


def by_aws_cli(url, *flags):
    """All nodes, by the AWS CLI."""
    command = [Path(sys.executable).parent / "aws", "ssm", "describe-instance-information", "--output", "json"]
    environment = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
        "PATH": "/usr/bin:/bin",
        "HOME": tempfile.gettempdir(),
    }
    output = subprocess.run([*command, *flags], env=environment, capture_output=True, text=True, check=True).stdout
    return [comparable(node) for node in json.loads(output)["InstanceInformationList"]]


def stubs():
    """The contract's Python stubs, generated from proto/ by grpcio's own compiler."""
    out = tempfile.mkdtemp()
    files = sorted(str(file) for file in (ROOT / "proto").rglob("*.proto"))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{well_known}", f"-I{ROOT / 'proto'}", f"--python_out={out}", f"--grpc_python_out={out}", *files]
    assert protoc.main(arguments) == 0
    sys.path.insert(0, out)
    package = "ssm_gateway.v1.instance_information_service_pb2"
    return importlib.import_module(package), importlib.import_module(package + "_grpc")


class Gateway:
    """A gateway, asked by grpcio."""

    def __init__(self, address):
        self.messages, services = stubs()
        self.service = services.InstanceInformationServiceStub(grpc.insecure_channel(address))

    def walk(self, max_results=50, **request):
        """All nodes, by unary calls."""
        token, nodes = None, []
        while True:
            page = self.service.DescribeInstanceInformation(
                self.messages.DescribeInstanceInformationRequest(max_results=max_results, next_token=token, **request)
            )
            nodes.extend(page.instance_information_list)
            if not page.HasField("next_token"):
                return [comparable(MessageToDict(node)) for node in nodes]
            token = page.next_token

    def stream(self, **request):
        """All nodes, by the stream."""
        pages = self.service.StreamInstanceInformation(self.messages.StreamInstanceInformationRequest(**request))
        return [comparable(MessageToDict(node)) for page in pages for node in page.instance_information_list]


def comparable(node):
    """The node with its times as whole milliseconds since the epoch."""
    return {member: millis(value) if member in TIMES else value for member, value in node.items()}


def millis(time):
    if isinstance(time, str):
        time = datetime.fromisoformat(time.replace("Z", "+00:00"))
    if isinstance(time, datetime):
        time = time.astimezone(timezone.utc).timestamp()
    return round(time * 1000)
