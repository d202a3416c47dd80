//! Fetches as traces show them. A fetch is nobody's child, since any number of calls wait for it: each call that it answers is linked
//! to it.

use std::sync::Arc;

use opentelemetry::{
    Context, KeyValue, global,
    trace::{Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceId, TraceState, Tracer as _},
};

use crate::{model::TargetName, upstream::UpstreamError};

/// Where an answer of upstream came from.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    /// The ID under which AWS knows the answer.
    pub(super) aws_request_id: Option<Arc<str>>,
    /// The fetch's span, where traces are on.
    span: Option<(TraceId, SpanId)>,
}

/// The span of a fetch that goes on; nothing where traces are off.
pub(super) struct FetchSpan(global::BoxedSpan);

impl FetchSpan {
    pub(super) fn start(target: &TargetName, region: &str, page: u32) -> Self {
        let tracer = global::tracer("ssm-gateway");
        let attributes = [
            KeyValue::new("rpc.system.name", "aws-api"),
            KeyValue::new("rpc.method", "SSM/DescribeInstanceInformation"),
            KeyValue::new("cloud.region", region.to_owned()),
            KeyValue::new("ssm_gateway.target", target.to_string()),
            KeyValue::new("ssm_gateway.page", i64::from(page)),
        ];
        let span = tracer.span_builder("fetch").with_kind(SpanKind::Client).with_attributes(attributes);
        Self(span.start_with_context(&tracer, &Context::new()))
    }

    /// Ends it with what AWS answered, or why it did not.
    pub(super) fn end(mut self, aws_request_id: Option<&str>, failed: Option<&UpstreamError>) -> Origin {
        if let Some(id) = aws_request_id {
            self.0.set_attribute(KeyValue::new("aws.request_id", id.to_owned()));
        }
        if let Some(error) = failed {
            self.0.set_attribute(KeyValue::new("error.type", error.kind()));
            self.0.set_status(Status::error(error.to_string()));
        }
        self.0.end();
        let context = self.0.span_context();
        let span = context.is_valid().then(|| (context.trace_id(), context.span_id()));
        Origin { aws_request_id: aws_request_id.map(Arc::from), span }
    }
}

impl Origin {
    /// Links the call that is being answered to the fetch.
    pub(super) fn link(&self) {
        if let Some((trace, span)) = self.span {
            Context::map_current(|call| {
                let fetch = SpanContext::new(trace, span, opentelemetry::TraceFlags::SAMPLED, false, TraceState::NONE);
                call.span().add_link(fetch, Vec::new());
            });
        }
    }

    /// How many bytes of memory it takes beside itself.
    pub(super) fn size(&self) -> usize {
        self.aws_request_id.as_deref().map_or(0, str::len)
    }
}
