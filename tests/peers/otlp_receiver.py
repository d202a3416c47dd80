"""Receives traces by OTLP over gRPC, and prints a JSON object a span. The first line is its address."""

import json
import sys
from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


def value(attribute):
    return getattr(attribute.value, attribute.value.WhichOneof("value"))


def span(resource, span):
    return {
        "name": span.name,
        "kind": span.kind,
        "trace": span.trace_id.hex(),
        "span": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "attributes": {attribute.key: value(attribute) for attribute in span.attributes},
        "links": [{"trace": link.trace_id.hex(), "span": link.span_id.hex()} for link in span.links],
        "is_error": span.status.code == 2,
        "resource": {attribute.key: value(attribute) for attribute in resource.attributes},
    }


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        for of_resource in request.resource_spans:
            for of_scope in of_resource.scope_spans:
                for received in of_scope.spans:
                    print(json.dumps(span(of_resource.resource, received)), flush=True)
        return trace_service_pb2.ExportTraceServiceResponse()


server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Receiver(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(f"http://127.0.0.1:{port}", flush=True)
sys.stdin.read()
