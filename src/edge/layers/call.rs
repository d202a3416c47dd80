use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Uri};
use opentelemetry::{Context, ContextGuard, KeyValue, trace::TraceId};
use tokio::time::{Duration, Instant};
use tonic::Code;
use tracing::{Span, debug_span, info, warn};

use super::trace_context;
use crate::{
    access::Principal,
    edge::{
        call_end::CallEnd,
        metrics::{ActiveCall, Metrics},
    },
    grpc::{CallNotes, Failure, Noted, code_name},
};

const REQUEST_ID: &str = "x-request-id";
/// The most bytes of a method's name that are logged: a caller can use any name.
const MAX_METHOD: usize = 128;
/// The longest ID of a caller that is kept.
const MAX_REQUEST_ID: usize = 128;

/// A call, which reports itself when it is dropped: to the metrics, to its trace and to the log.
#[derive(Debug)]
pub(super) struct Call {
    metrics: Metrics,
    /// The call is slow if the head of its answer takes longer.
    slow_after: Duration,
    request_id: HeaderValue,
    active: ActiveCall,
    /// Of a method that the gateway does not have.
    uri: Option<Uri>,
    started: Instant,
    notes: CallNotes,
    /// For the log lines of layers and services, at debug only: a span costs as much as all layers of the edge
    /// together.
    span: Span,
    context: Option<Context>,
    /// How long the caller waited for the head of the answer.
    waited: Option<Duration>,
    /// Absent until the status is written: a caller that leaves before never sees it.
    outcome: Option<Result<(), Failure>>,
    /// Why the stream was reset, if it was; absent without a connection.
    end: Option<Arc<CallEnd>>,
}

/// What the log and the trace report of a call that has ended.
#[derive(Debug)]
struct Report<'a> {
    request_id: &'a str,
    method: &'a str,
    principal: Option<&'a str>,
    target: Option<&'a str>,
    targets: Option<usize>,
    unreachable: Option<usize>,
    code: Code,
    status: &'static str,
    reason: Option<&'a str>,
    cause: Option<&'a str>,
    took: Duration,
    provenance: Option<&'static str>,
    aws_request_id: Option<&'a str>,
}

impl Call {
    pub(super) fn new<R>(metrics: &Metrics, slow_after: Duration, is_traced: bool, request: &mut Request<R>) -> Self {
        let request_id = request_id(request.headers());
        let notes = CallNotes::default();
        request.extensions_mut().insert(notes.clone());
        let active = metrics.call(request.extensions().get().copied());
        let uri = active.method().is_none().then(|| request.uri().clone());
        let method = method(&active, uri.as_ref());
        let span = debug_span!("call", method, request_id = as_str(&request_id));
        let context = trace_context::of_call(request.headers(), active.name(), is_traced);
        Self {
            metrics: metrics.clone(),
            slow_after,
            request_id,
            active,
            uri,
            started: Instant::now(),
            notes,
            span,
            context,
            waited: None,
            outcome: None,
            end: request.extensions().get().cloned(),
        }
    }

    /// Runs a part of the call, whose log lines and spans belong to the call.
    pub(super) fn within<T>(&self, part: impl FnOnce() -> T) -> T {
        let _attached: Option<ContextGuard> = self.context.clone().map(Context::attach);
        self.span.in_scope(part)
    }

    /// Notes that the head of the answer is there, and gives it the call's ID.
    pub(super) fn answered(&mut self, headers: &mut HeaderMap) {
        self.waited = Some(self.started.elapsed());
        headers.insert(REQUEST_ID, self.request_id.clone());
    }

    /// Notes how the call ended, and counts its failure.
    pub(super) fn ended(&mut self, outcome: Result<(), Failure>) {
        if let Err(failure) = &outcome {
            self.metrics.failed(failure);
        }
        self.outcome = Some(outcome);
    }

    fn report<'a>(&'a self, noted: &'a Noted, took: Duration) -> Report<'a> {
        let failure = self.outcome.as_ref().and_then(|outcome| outcome.as_ref().err());
        let of_failure = |key| failure.and_then(|failure| failure.metadata(key));
        let code = match &self.outcome {
            Some(outcome) => outcome.as_ref().map_or_else(Failure::code, |()| Code::Ok),
            // A caller that leaves before the status is written has given the call up.
            None => Code::Cancelled,
        };
        Report {
            request_id: as_str(&self.request_id),
            method: method(&self.active, self.uri.as_ref()),
            principal: noted.principal.as_ref().map(Principal::as_str),
            target: noted.target().or(of_failure("target")),
            targets: Some(noted.targets).filter(|targets| *targets > 1),
            unreachable: Some(noted.unreachable).filter(|unreachable| *unreachable > 0),
            code,
            status: if self.outcome.is_some() { code_name(code) } else { "cut off" },
            reason: failure.map(Failure::reason),
            cause: of_failure("cause"),
            took,
            provenance: noted.provenance,
            aws_request_id: of_failure("aws_request_id").or(noted.aws_request_id.as_deref()),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let reset = self.end.take();
        if self.outcome.is_none()
            && let Some(failure) = reset.as_deref().and_then(CallEnd::reset)
        {
            self.ended(Err(failure.clone()));
        }
        let noted = self.notes.take();
        let report = self.report(&noted, took);
        self.metrics.ended(&self.active, report.code, took);
        if let Some(context) = &self.context {
            report.trace(context);
        }
        let is_slow = self.waited.unwrap_or(took) >= self.slow_after;
        report.log(self.context.as_ref().map(trace_context::trace_id), is_slow);
    }
}

impl Report<'_> {
    /// Ends the span of the call.
    fn trace(&self, context: &Context) {
        let attributes = [
            ("ssm_gateway.request_id", Some(self.request_id)),
            ("ssm_gateway.principal", self.principal),
            ("ssm_gateway.target", self.target),
            ("ssm_gateway.provenance", self.provenance),
            ("error.type", self.reason),
            ("aws.request_id", self.aws_request_id),
        ];
        let attributes = attributes.into_iter().filter_map(|(key, value)| Some(KeyValue::new(key, value?.to_owned())));
        let code = KeyValue::new("rpc.response.status_code", code_name(self.code));
        trace_context::end(context, self.code, attributes.chain([code]));
    }

    /// Writes the line of the call, as a warning if the call was slow.
    fn log(&self, trace_id: Option<TraceId>, is_slow: bool) {
        let &Self { request_id, method, principal, target, targets, unreachable, .. } = self;
        let &Self { status, reason, cause, provenance, aws_request_id, .. } = self;
        let trace_id = trace_id.map(|trace_id| trace_id.to_string());
        let micros = u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX);
        // The level and the text of an event are constants of its call site: two levels are two events.
        macro_rules! line {
            ($level:ident, $message:literal) => {
                $level!(
                    request_id,
                    trace_id,
                    method,
                    principal,
                    target_name = target,
                    targets,
                    unreachable,
                    status,
                    reason,
                    cause,
                    micros,
                    provenance,
                    aws_request_id,
                    $message
                )
            };
        }
        if is_slow { line!(warn, "slow call ended") } else { line!(info, "call ended") }
    }
}

/// Returns the name of the method, as far as it is reported.
fn method<'a>(active: &'a ActiveCall, uri: Option<&'a Uri>) -> &'a str {
    active.method().or_else(|| uri?.path().get(1..)).map_or("", |name| name.get(..MAX_METHOD).unwrap_or(name))
}

/// Returns the caller's ID of the call, if it is short and visible ASCII, else a new one: 16 hexadecimal digits.
#[expect(clippy::expect_used, reason = "there is no ID that is no header")]
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_usable =
        |id: &&HeaderValue| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    let mut id = match headers.get(REQUEST_ID).filter(is_usable) {
        Some(id) => id.clone(),
        None => HeaderValue::try_from(format!("{:016x}", fastrand::u64(..))).expect("digits are a header's value"),
    };
    // An ID is seen once, and must not evict headers that come again from the tables of HTTP/2's compression.
    id.set_sensitive(true);
    id
}

#[expect(clippy::expect_used, reason = "`request_id` checks or makes it")]
fn as_str(request_id: &HeaderValue) -> &str {
    request_id.to_str().expect("an ID is visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usable_id_of_the_caller_is_kept_and_any_other_replaced() {
        let with = |id: &[u8]| {
            let id = HeaderValue::from_bytes(id).unwrap();
            request_id(&HeaderMap::from_iter([(http::HeaderName::from_static(REQUEST_ID), id)]))
        };
        assert_eq!(with(b"order-7/retry-1"), "order-7/retry-1");
        assert_eq!(with(&[b'a'; 128]).len(), 128);
        for unusable in [&[b'a'; 129][..], b"", b"two words", "café".as_bytes()] {
            assert_eq!(with(unusable).len(), 16);
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
