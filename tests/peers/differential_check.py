"""boto3 from the simulator and grpcio through the gateway see the same, for every filter key. Arguments: URL, address."""

import sys

from fleet import Gateway, by_boto3

url, address = sys.argv[1:3]
gateway = Gateway(address)
fleet = by_boto3(url)


def some(member, count=3):
    """The first values that a member has in the fleet."""
    return list(dict.fromkeys(node[member] for node in fleet if member in node))[:count]


def compare(what, *filters):
    asked = [{"Key": key, "Values": values} for key, values in filters]
    expected = by_boto3(url, **({"Filters": asked} if asked else {}))
    request = {"filters": [{"key": key, "values": values} for key, values in filters]}
    assert gateway.walk(**request) == expected, what
    assert gateway.stream(**request) == expected, what
    assert expected and (len(expected) < len(fleet) or not filters), f"{what} tests nothing: {len(expected)} nodes"
    print(f"{what}: {len(expected)} nodes agree")


compare("no filter")
for key, member in [
    ("ActivationIds", "ActivationId"),
    ("AgentVersion", "AgentVersion"),
    ("AssociationStatus", "AssociationStatus"),
    ("IamRole", "IamRole"),
    ("InstanceIds", "InstanceId"),
    ("PingStatus", "PingStatus"),
    ("PlatformTypes", "PlatformType"),
    ("SourceIds", "SourceId"),
    ("SourceTypes", "SourceType"),
]:
    compare(key, (key, some(member, 2)))
for value in ["EC2Instance", "ManagedInstance"]:
    compare(f"ResourceType {value}", ("ResourceType", [value]))
compare("tag-key", ("tag-key", ["Team"]))
compare("tag:Env", ("tag:Env", ["prod", "dev"]))
compare("two tags", ("tag:Env", ["prod"]), ("tag:Team", ["data platform"]))
compare("AND", ("PingStatus", ["Online"]), ("PlatformTypes", ["Linux"]), ("ResourceType", ["EC2Instance"]))
legacy = [{"key": "PingStatus", "valueSet": ["ConnectionLost"]}]
expected = by_boto3(url, InstanceInformationFilterList=legacy)
found = gateway.walk(instance_information_filter_list=[{"key": "PingStatus", "value_set": ["ConnectionLost"]}])
assert expected and found == expected
