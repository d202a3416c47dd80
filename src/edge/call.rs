use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Uri};
use opentelemetry::{Context, ContextGuard, KeyValue};
use tokio::time::{Duration, Instant};
use tonic::Code;
use tracing::{Span, debug_span, info, warn};

use super::{call_end::CallEnd, metrics::Counting, observe::ObserveLayer, trace_context};
use crate::{
    access::Principal,
    grpc::{CallNotes, Failure, Noted, code_name},
    model::TargetName,
};

const REQUEST_ID: &str = "x-request-id";
/// How much of a method's name is written: whoever calls, by whatever name, fills no log.
const MAX_METHOD: usize = 128;
/// The longest ID of a caller's own that is kept.
const MAX_REQUEST_ID: usize = 128;

/// A call until its end, which is told when this is dropped: to the log, the metrics and the trace.
#[derive(Debug)]
pub(super) struct Call {
    layer: ObserveLayer,
    request_id: HeaderValue,
    counting: Counting,
    /// Of a method that is not one of ours.
    uri: Option<Uri>,
    started: Instant,
    notes: CallNotes,
    /// For the lines of those who serve it, below info alone: a span costs as much as the layers of the edge together.
    span: Span,
    context: Option<Context>,
    /// How long its caller waited for the head of the answer.
    waited: Option<Duration>,
    /// Unknown until the status is written: a caller that goes away before never sees it.
    outcome: Option<Result<(), Failure>>,
    /// Where it stands why the stream was reset, if it was.
    end: Option<Arc<CallEnd>>,
}

impl Call {
    pub(super) fn new<R>(layer: &ObserveLayer, request: &mut Request<R>) -> Self {
        let (request_id, notes) = (request_id(request.headers()), CallNotes::default());
        request.extensions_mut().insert(notes.clone());
        let counting = layer.metrics.call(request.uri().path());
        let uri = counting.method().is_none().then(|| request.uri().clone());
        let method = method(&counting, uri.as_ref());
        let span = debug_span!("call", method, request_id = request_id.to_str().unwrap_or_default());
        let context = trace_context::of_call(request.headers(), counting.name(), layer.is_traced);
        Self {
            layer: layer.clone(),
            request_id,
            counting,
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

    /// What goes on in here is part of the call, to logs and traces.
    pub(super) fn within<T>(&self, what: impl FnOnce() -> T) -> T {
        let _attached: Option<ContextGuard> = self.context.clone().map(Context::attach);
        self.span.in_scope(what)
    }

    /// Notes the head of the answer, and gives it the call's ID.
    pub(super) fn answered(&mut self, headers: &mut HeaderMap) {
        self.waited = Some(self.started.elapsed());
        headers.insert(REQUEST_ID, self.request_id.clone());
    }

    /// Notes how the call ended, and counts its failure.
    pub(super) fn ended(&mut self, outcome: Result<(), Failure>) {
        if let Err(failure) = &outcome {
            self.layer.metrics.failed(failure);
        }
        self.outcome = Some(outcome);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        if self.outcome.is_none()
            && let Some(failure) = self.end.take().as_deref().and_then(CallEnd::reset)
        {
            self.ended(Err(failure.clone()));
        }
        let outcome = self.outcome.take();
        let failure = outcome.as_ref().and_then(|outcome| outcome.as_ref().err());
        // Who goes away before the status has given the call up.
        let code = if outcome.is_none() { Code::Cancelled } else { failure.map_or(Code::Ok, Failure::code) };
        self.layer.metrics.ended(&self.counting, code, took);
        let Noted { principal, target, targets, unreachable, provenance, aws_request_id } = self.notes.take();
        let of_failure = |key| failure.and_then(|failure| failure.metadata(key));
        let (reason, cause) = (failure.map(Failure::reason), of_failure("cause"));
        let target = target.as_ref().map(TargetName::as_str).or(of_failure("target"));
        let targets = Some(targets).filter(|targets| *targets > 1);
        let unreachable = Some(unreachable).filter(|unreachable| *unreachable > 0);
        let aws_request_id = of_failure("aws_request_id").or(aws_request_id.as_deref());
        let principal = principal.as_ref().map(Principal::as_str);
        let request_id = self.request_id.to_str().unwrap_or_default();
        if let Some(context) = &self.context {
            let told = [
                ("ssm_gateway.request_id", Some(request_id)),
                ("ssm_gateway.principal", principal),
                ("ssm_gateway.target", target),
                ("ssm_gateway.provenance", provenance),
                ("error.type", reason),
                ("aws.request_id", aws_request_id),
            ];
            let told = told.into_iter().filter_map(|(key, value)| Some(KeyValue::new(key, value?.to_owned())));
            let code_name = KeyValue::new("rpc.response.status_code", code_name(code));
            trace_context::end(context, code, told.chain([code_name]));
        }
        let trace_id = self.context.as_ref().map(|context| trace_context::trace_id(context).to_string());
        let status = if outcome.is_some() { code_name(code) } else { "cut off" };
        let (method, micros) =
            (method(&self.counting, self.uri.as_ref()), u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        let is_slow = self.waited.unwrap_or(took) >= self.layer.slow_call;
        macro_rules! tell {
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
        if is_slow { tell!(warn, "slow call ended") } else { tell!(info, "call ended") }
    }
}

/// The name of the method, as far as it is written.
fn method<'a>(counting: &'a Counting, uri: Option<&'a Uri>) -> &'a str {
    counting.method().or_else(|| uri?.path().get(1..)).map_or("", |name| name.get(..MAX_METHOD).unwrap_or(name))
}

/// The caller's ID, if it is short and visible ASCII, else one of ours: 16 hexadecimal digits.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_usable =
        |id: &&HeaderValue| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    let mut id = match headers.get(REQUEST_ID).filter(is_usable) {
        Some(id) => id.clone(),
        None => {
            HeaderValue::try_from(format!("{:016x}", fastrand::u64(..))).unwrap_or(HeaderValue::from_static("none"))
        }
    };
    // Each is seen once: it must not push what comes again out of the tables of HTTP/2's compression.
    id.set_sensitive(true);
    id
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
