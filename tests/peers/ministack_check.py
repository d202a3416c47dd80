"""A walk through the gateway is whole over an SSM that somebody else wrote.

Arguments: `seed`, ministack's URL, nodes: starts so many instances. Then: ministack's URL, the gateway's address, nodes.
"""

import sys

import boto3
from fleet import Gateway, by_boto3

if sys.argv[1] == "seed":
    ec2 = boto3.client(
        "ec2",
        endpoint_url=sys.argv[2],
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    count = int(sys.argv[3])
    ec2.run_instances(ImageId="ami-12345678", InstanceType="t3.micro", MinCount=count, MaxCount=count)
else:
    url, address, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

    def timeless(nodes):
        """ministack's nodes ping whenever they are asked for."""
        return [{**node, "LastPingDateTime": None} for node in nodes]

    expected = timeless(by_boto3(url))
    assert len({node["InstanceId"] for node in expected}) == count, len(expected)
    gateway = Gateway(address)
    assert timeless(gateway.walk(max_results=7)) == expected
    assert timeless(gateway.stream()) == expected
