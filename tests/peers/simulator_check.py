"""boto3 and the AWS CLI read the same fleet from the simulator, and its errors as SSM's. Arguments: URL, nodes."""

import sys
from datetime import datetime, timezone

import boto3
from botocore.exceptions import ClientError
from fleet import by_aws_cli, by_boto3, ssm

url, nodes = sys.argv[1], int(sys.argv[2])

fleet = by_boto3(url)
assert len({node["InstanceId"] for node in fleet}) == nodes
assert by_boto3(url, page_size=7) == fleet, "whatever the page size"
assert by_aws_cli(url) == fleet
windows = [node for node in fleet if node["PlatformType"] == "Windows"]
assert by_aws_cli(url, "--filters", "Key=PlatformTypes,Values=Windows") == windows
legacy = [{"key": "PlatformTypes", "valueSet": ["Windows"]}]
assert by_boto3(url, InstanceInformationFilterList=legacy) == windows
assert len(ssm(url).describe_instance_information()["InstanceInformationList"]) == 10, "AWS's default"


def refused(code, message, **request):
    try:
        ssm(url).describe_instance_information(**request)
    except ClientError as error:
        found = error.response["Error"]
        assert (found["Code"], found["Message"]) == (code, message), found
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400
        assert error.response["ResponseMetadata"]["RequestId"]
    else:
        raise AssertionError(f"{request} was not refused")


def condition(key, *values):
    return {"Key": key, "Values": list(values)}


missing = ssm(url).describe_instance_information(Filters=[condition("InstanceIds", "i-00000000000000000")])
assert missing["InstanceInformationList"] == [], "an unknown ID is no error"
refused("ValidationException", "UnknownKey filter Key is invalid.", Filters=[condition("Color", "red")])
refused(
    "ValidationException",
    "1 validation error detected: Value at 'filters.1.member.values' failed to satisfy constraint: "
    "Member must have length greater than or equal to 1",
    Filters=[condition("IamRole")],
)
refused(
    "ValidationException",
    "Cannot use both legacy and new filter simultaneously.",
    Filters=[condition("IamRole", "x")],
    InstanceInformationFilterList=legacy,
)
refused(
    "ValidationException",
    "Cannot mix tag or inventory filter with any other filter.",
    Filters=[condition("tag:Env", "prod"), condition("IamRole", "x")],
)
refused(
    "ValidationException",
    "1 validation error detected: Value '4' at 'maxResults' failed to satisfy constraint: "
    "Member must have value greater than or equal to 5",
    MaxResults=4,
)
refused("InvalidNextToken", "", NextToken="nonsense")
refused(
    "InvalidInstanceInformationFilterValue",
    "ResourceType filter may contain only one value.",
    Filters=[condition("ResourceType", "EC2Instance", "ManagedInstance")],
)
refused(
    "ValidationException",
    "The number of tag values for tag:Name was 35. Max: 5.",
    Filters=[condition("tag:Name", *map(str, range(35)))],
)

session = boto3.client(
    "sts", endpoint_url=url, region_name="eu-west-1", aws_access_key_id="key", aws_secret_access_key="secret"
).assume_role(RoleArn="arn:aws:iam::111122223333:role/team/SsmReader", RoleSessionName="check", DurationSeconds=900)
assert session["AssumedRoleUser"]["Arn"] == "arn:aws:sts::111122223333:assumed-role/SsmReader/check"
credentials = session["Credentials"]
assert 890 < (credentials["Expiration"] - datetime.now(timezone.utc)).total_seconds() <= 900
other = boto3.client(
    "ssm",
    endpoint_url=url,
    region_name="eu-west-1",
    aws_access_key_id=credentials["AccessKeyId"],
    aws_secret_access_key=credentials["SecretAccessKey"],
    aws_session_token=credentials["SessionToken"],
)
pages = other.get_paginator("describe_instance_information").paginate(MaxResults=50)
theirs = {node["InstanceId"] for page in pages for node in page["InstanceInformationList"]}
assert len(theirs) == nodes and not theirs & {node["InstanceId"] for node in fleet}, "another account, another fleet"
try:
    boto3.client(
        "sts", endpoint_url=url, region_name="eu-west-1", aws_access_key_id="key", aws_secret_access_key="secret"
    ).assume_role(RoleArn="arn:aws:iam::111122223333:user/x", RoleSessionName="check")
    raise AssertionError("a user is no role")
except ClientError as error:
    assert error.response["Error"]["Code"] == "ValidationError", error.response
