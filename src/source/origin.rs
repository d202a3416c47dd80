use std::sync::Arc;

use opentelemetry::{
    Context, TraceFlags,
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceId, TraceState},
};

/// Which fetch an answer came from.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The ID under which AWS knows the answer.
    pub aws_request_id: Option<Arc<str>>,
    /// The fetch's span, where traces are on.
    span: Option<(TraceId, SpanId)>,
}

impl Origin {
    /// Returns the origin of an answer that AWS knows under this ID, if it has one.
    #[must_use]
    pub fn new(aws_request_id: Option<&str>) -> Self {
        Self { aws_request_id: aws_request_id.map(Arc::from), span: None }
    }

    /// Notes the fetch's span, unless traces are off.
    pub(super) fn note_span(&mut self, span: &SpanContext) {
        self.span = span.is_valid().then(|| (span.trace_id(), span.span_id()));
    }

    /// Links the call that is being answered to the fetch.
    pub(crate) fn link(&self) {
        if let Some((trace, span)) = self.span {
            Context::map_current(|call| {
                let fetch = SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE);
                call.span().add_link(fetch, Vec::new());
            });
        }
    }

    /// Returns how many bytes of memory it takes beside itself.
    pub(crate) fn size(&self) -> usize {
        self.aws_request_id.as_deref().map_or(0, str::len)
    }
}
