//! Fetches as traces show them. A fetch is nobody's child, since any number of calls wait for it: each call that it
//! answers is linked to it.

use futures_util::{FutureExt as _, future::BoxFuture};
use opentelemetry::{
    Context, KeyValue,
    global::{self, BoxedSpan},
    trace::{Span as _, SpanKind, Status, Tracer as _},
};

use super::{FetchError, Origin, Pace, Priority, Request, Source, UpstreamError, UpstreamPage};
use crate::model::TargetName;

/// A source whose fetches are spans, all attempts of a fetch in one of them.
#[derive(Debug)]
pub struct Traced<S> {
    inner: S,
    target: TargetName,
    region: String,
}

impl<S: Source> Traced<S> {
    /// Traces the fetches of this target, which is in this region.
    pub fn new(inner: S, target: TargetName, region: String) -> Self {
        Self { inner, target, region }
    }

    /// Starts the span of a fetch, which records nothing where traces are off.
    fn start(&self, page: u32) -> BoxedSpan {
        let tracer = global::tracer("ssm-gateway");
        let attributes = [
            KeyValue::new("rpc.system.name", "aws-api"),
            KeyValue::new("rpc.method", "SSM/DescribeInstanceInformation"),
            KeyValue::new("cloud.region", self.region.clone()),
            KeyValue::new("ssm_gateway.target", self.target.to_string()),
            KeyValue::new("ssm_gateway.page", i64::from(page)),
        ];
        let span = tracer.span_builder("fetch").with_kind(SpanKind::Client).with_attributes(attributes);
        span.start_with_context(&tracer, &Context::new())
    }
}

impl<S: Source> Source for Traced<S> {
    fn admit(&self, priority: Priority) -> BoxFuture<'_, Result<(), UpstreamError>> {
        self.inner.admit(priority)
    }

    fn page<'a>(&'a self, request: Request<'a>) -> BoxFuture<'a, Result<UpstreamPage, FetchError>> {
        async move {
            let mut span = self.start(request.number);
            let mut outcome = self.inner.page(request).await;
            let (origin, error) = match &mut outcome {
                Ok(page) => (&mut page.origin, None),
                Err(FetchError { error, origin, .. }) => (origin, Some(error)),
            };
            end(&mut span, origin, error.as_deref());
            outcome
        }
        .boxed()
    }

    fn pace(&self) -> Pace {
        self.inner.pace()
    }
}

/// Ends the span with what AWS answered, or why it did not, and notes it in the origin of the answer.
fn end(span: &mut BoxedSpan, origin: &mut Origin, error: Option<&UpstreamError>) {
    if let Some(id) = &origin.aws_request_id {
        span.set_attribute(KeyValue::new("aws.request_id", id.to_string()));
    }
    if let Some(error) = error {
        span.set_attribute(KeyValue::new("error.type", error.kind()));
        span.set_status(Status::error(error.to_string()));
    }
    span.end();
    origin.note_span(span.span_context());
}
