"""Calls a gateway once by the published service config, and prints how long it took, in seconds: it must succeed."""

import sys
import time

import grpc
from fleet import ROOT, stubs

messages, services = stubs()
options = [("grpc.service_config", (ROOT / "proto/ssm_gateway/v1/service_config.json").read_text())]
service = services.InstanceInformationServiceStub(grpc.insecure_channel(sys.argv[1], options=options))
service.DescribeInstanceInformation(messages.DescribeInstanceInformationRequest(max_results=5))
started = time.monotonic()
page = service.DescribeInstanceInformation(
    messages.DescribeInstanceInformationRequest(max_results=50, read_options={"max_age": {}})
)
assert len(page.instance_information_list) == 50
print(time.monotonic() - started)
