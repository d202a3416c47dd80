"""grpcio's reflection client builds the whole contract from the gateway, and goes on behind what is not there. Arguments: address, descriptors.binpb."""

import sys

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

address, descriptors = sys.argv[1:]
database = ProtoReflectionDescriptorDatabase(grpc.insecure_channel(address))
pool = DescriptorPool(database)

services = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "ssm_gateway.v1.InstanceInformationService",
    "ssm_gateway.v1.TargetService",
]
assert list(database.get_services()) == services, database.get_services()
for service in services:
    for method in pool.FindServiceByName(service).methods:
        assert method.input_type.full_name and method.output_type.full_name

for find, name in [
    (pool.FindMessageTypeByName, "ssm_gateway.v1.Nobody"),
    (pool.FindFileByName, "status.proto"),
    (database.FindFileContainingSymbol, "ssm_gateway.v1.TARGET_STATE_NOBODY"),
]:
    try:
        find(name)
    except KeyError:
        continue
    raise AssertionError(f"{name} is not there")
assert database.FindFileContainingSymbol("ssm_gateway.v1.TARGET_STATE_READY").name == "ssm_gateway/v1/target_service.proto"
assert list(database.FindAllExtensionNumbers("ssm_gateway.v1.Target")) == []

# Under the paths of googleapis, so that a program may know both.
known = error_details_pb2.DESCRIPTOR
assert pool.FindMessageTypeByName("google.rpc.ErrorInfo").file.name == known.name
with open(descriptors, "rb") as file:
    written = FileDescriptorSet.FromString(file.read())
assert known.name in [file.name for file in written.file]
fresh = DescriptorPool()
for file in written.file:
    fresh.Add(file)
assert fresh.FindMessageTypeByName("google.rpc.BadRequest").fields_by_name.keys() == known.message_types_by_name["BadRequest"].fields_by_name.keys()
