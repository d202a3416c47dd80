"""What is in `deploy/` fits together: the configuration in the manifests, the time that Kubernetes gives, and the policies of IAM.

Prints the configuration.
"""

import json
import tomllib

import botocore.session
import yaml
from fleet import ROOT


def manifest(name):
    return yaml.safe_load((ROOT / f"deploy/kubernetes/{name}.yaml").read_text())


def statements(name):
    """What a policy says, in actions that AWS has."""
    policy = json.loads((ROOT / f"deploy/iam/{name}.json").read_text())
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        service, action = statement["Action"].split(":")
        assert action in botocore.session.get_session().get_service_model(service).operation_names
        assert statement["Effect"] == "Allow"
    return policy["Statement"]


text = manifest("config-map")["data"]["gateway.toml"]
config = tomllib.loads(text)
pod = manifest("deployment")["spec"]["template"]["spec"]
container = pod["containers"][0]
labels = manifest("deployment")["spec"]["template"]["metadata"]["labels"].items()
selectors = [manifest("deployment")["spec"]["selector"]["matchLabels"], manifest("service")["spec"]["selector"]]
selectors += [manifest("pod-disruption-budget")["spec"]["selector"]["matchLabels"]]
selectors += [manifest("network-policy")["spec"]["podSelector"]["matchLabels"]]
assert all(selector and selector.items() <= labels for selector in selectors)
ports = {port["name"]: port["containerPort"] for port in container["ports"]}
assert ports == {"grpc": 50051, "admin": 9464}
named = [port["targetPort"] for port in manifest("service")["spec"]["ports"]]
named += [port["port"] for rule in manifest("network-policy")["spec"]["ingress"] for port in rule["ports"]]
named += [container[probe]["httpGet"]["port"] for probe in ["startupProbe", "readinessProbe", "livenessProbe"]]
assert set(named) == set(ports)
mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
assert {volume["name"] for volume in pod["volumes"]} == set(mounts)
(told,) = container["env"]
assert told == {"name": "SSM_GATEWAY_CONFIG", "value": mounts["config"] + "/gateway.toml"}
assert pod["volumes"][0]["configMap"]["name"] == manifest("config-map")["metadata"]["name"]
assert pod["serviceAccountName"] == manifest("service-account")["metadata"]["name"]
assert all(path.startswith(mounts["tls"] + "/") for path in config["edge"]["tls"].values())

drain = sum(int(config["edge"][key].removesuffix("s")) for key in ["drain_delay", "drain_timeout"])
assert drain < pod["terminationGracePeriodSeconds"]

own, others = statements("gateway-policy")
(reader,) = statements("reader-policy")
assert own["Action"] == reader["Action"] == "ssm:DescribeInstanceInformation"
assert others["Action"] == "sts:AssumeRole"
assert {target["role_arn"] for target in config["targets"].values()} == set(others["Resource"])

(trust,) = statements("reader-trust")
role = manifest("service-account")["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
assert trust["Principal"] == {"AWS": role} and trust["Action"] == "sts:AssumeRole"
external_ids = {target["external_id"] for target in config["targets"].values()}
assert external_ids == {trust["Condition"]["StringEquals"]["sts:ExternalId"]}

(trust,) = statements("gateway-trust")
provider = trust["Principal"]["Federated"].split("/", 1)[1]
account = "system:serviceaccount:ssm-gateway:" + manifest("service-account")["metadata"]["name"]
assert trust["Condition"]["StringEquals"] == {f"{provider}:aud": "sts.amazonaws.com", f"{provider}:sub": account}
print(text)
