//! W3C Trace Context: the trace that a caller's call belongs to (<https://www.w3.org/TR/trace-context/>).

use http::HeaderMap;
use opentelemetry::{
    Context, KeyValue, global,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{SpanKind, Status, TraceContextExt as _, TraceId, Tracer as _},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::Code;

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// Returns the trace that a call belongs to, if its caller named one; with a span of the call's own where traces are
/// on.
pub(super) fn of_call(headers: &HeaderMap, method: &str, is_traced: bool) -> Option<Context> {
    let parent = headers.contains_key("traceparent").then(|| {
        let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
        Some(context).filter(|context| context.span().span_context().is_valid())
    });
    let parent = parent.flatten();
    if !is_traced {
        return parent;
    }
    let parent = parent.unwrap_or_default();
    let tracer = global::tracer("ssm-gateway");
    let attributes = [KeyValue::new("rpc.system.name", "grpc"), KeyValue::new("rpc.method", method.to_owned())];
    let span = tracer.span_builder(method.to_owned()).with_kind(SpanKind::Server).with_attributes(attributes);
    let span = span.start_with_context(&tracer, &parent);
    Some(parent.with_span(span))
}

/// Returns the ID of a call's trace.
pub(super) fn trace_id(context: &Context) -> TraceId {
    context.span().span_context().trace_id()
}

/// Ends the call's own span, if it has one.
pub(super) fn end(context: &Context, code: Code, attributes: impl IntoIterator<Item = KeyValue>) {
    let span = context.span();
    if span.is_recording() {
        span.set_attributes(attributes);
        // The span of a server fails only by the server's own fault.
        let is_own_fault = matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        );
        if is_own_fault {
            span.set_status(Status::error(""));
        }
        span.end();
    }
}
