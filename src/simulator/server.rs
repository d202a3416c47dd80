//! The simulator's HTTP server: SSM and STS at `/`, faults and statistics at `/_simulator/`.

use std::{convert::Infallible, io, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{RawQuery, State as Shared},
    http::{
        HeaderMap, HeaderValue, Response, StatusCode,
        header::{self, CONTENT_LENGTH},
    },
    response::IntoResponse as _,
    routing::{get, post},
};
use futures_util::{future, stream};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet, time};
use tower::ServiceExt as _;

use super::{
    FailureKind, Faults, Scope,
    operation::{self, Refusal},
    state::{State, Stats, lock},
    sts::{self, AssumeRole},
};
use crate::accept::accept;

const OPERATION: &str = "AmazonSSM.DescribeInstanceInformation";
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

type Answer = Response<Body>;

/// Marks an answer that is not sent: the connection is closed instead.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the simulator closed the connection")]
struct Reset;

/// Serves until the future is dropped, which also closes every connection.
pub(super) async fn serve(socket: TcpListener, state: Arc<State>) {
    let router = Router::new()
        .route("/", post(aws))
        .route("/_simulator/faults", get(faults).put(set_faults))
        .route("/_simulator/stats", get(stats))
        .with_state(state);
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = accept("simulator", || socket.accept()).await;
        while connections.try_join_next().is_some() {}
        let router = router.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = router.clone().oneshot(request);
            async move {
                let answer = answer.await.unwrap_or_else(|never: Infallible| match never {});
                if answer.extensions().get::<Reset>().is_some() { Err(Reset) } else { Ok(answer) }
            }
        });
        connections.spawn(async move {
            // An error is either a fault that was requested or the peer's doing.
            let _end = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn faults(Shared(state): Shared<Arc<State>>, RawQuery(query): RawQuery) -> Json<Faults> {
    let of_scope = scope(query.as_deref()).and_then(|scope| lock(&state.faults_by_scope).get(&scope).cloned());
    Json(of_scope.unwrap_or_else(|| lock(&state.faults).clone()))
}

async fn set_faults(
    Shared(state): Shared<Arc<State>>,
    RawQuery(query): RawQuery,
    Json(faults): Json<Faults>,
) -> Json<Faults> {
    match scope(query.as_deref()) {
        None => lock(&state.faults).clone_from(&faults),
        Some(scope) => drop(lock(&state.faults_by_scope).insert(scope, faults.clone())),
    }
    Json(faults)
}

/// Returns the account and the region of `?account=…&region=…`.
fn scope(query: Option<&str>) -> Option<Scope> {
    let find = |name| form_urlencoded::parse(query?.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value);
    Some(Scope::new(&find("account")?, &find("region")?))
}

async fn stats(Shared(state): Shared<Arc<State>>) -> Json<Stats> {
    Json(lock(&state.stats).clone())
}

/// Dispatches by content type: SSM uses JSON, STS forms; both have the same endpoint here.
async fn aws(Shared(state): Shared<Arc<State>>, headers: HeaderMap, body: Bytes) -> Answer {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if content_type.starts_with(b"application/x-www-form-urlencoded") {
        assume_role(&state, &headers, &body)
    } else {
        ssm(&state, &headers, &body).await
    }
}

fn assume_role(state: &State, headers: &HeaderMap, body: &[u8]) -> Answer {
    let signed = lock(&state.sessions).scope(headers, "sts");
    let refused = |Refusal { code, message }| sts::Refusal { code, message: message.unwrap_or_default() };
    let outcome = signed.map_err(refused).and_then(|Scope { region, .. }| {
        let role = AssumeRole::read(body)?;
        let is_denied = state.denies(&Scope { account: role.account.clone(), region }, &role.role);
        if is_denied || state.config.external_id.as_ref().is_some_and(|id| role.external_id.as_ref() != Some(id)) {
            return Err(sts::Refusal::denied(&role));
        }
        lock(&state.stats).roles_assumed += 1;
        let lifetime = state.config.session_lifetime.unwrap_or(role.lifetime);
        let session = lock(&state.sessions).begin(&role.account, lifetime);
        Ok(role.answer(&session))
    });
    match outcome {
        Ok(xml) => answer(StatusCode::OK, "text/xml", xml),
        Err(refusal) => {
            let is_denied = refusal.code == "AccessDenied";
            let status = if is_denied { StatusCode::FORBIDDEN } else { StatusCode::BAD_REQUEST };
            answer(status, "text/xml", sts::error(&refusal))
        }
    }
}

async fn ssm(state: &State, headers: &HeaderMap, body: &[u8]) -> Answer {
    let scope = lock(&state.sessions).scope(headers, "ssm");
    let effect = state.admit(scope.as_ref().ok(), serde_json::from_slice(body).unwrap_or(Value::Null));
    time::sleep(effect.faults.latency).await;
    let operate = || operate(state, &effect.faults, scope, headers, body);
    let Some(failure) = effect.failure else {
        return operate()
            .unwrap_or_else(|refusal| error(StatusCode::BAD_REQUEST, refusal.code, refusal.message.as_deref()));
    };
    let mut answer = fail(failure.kind, operate).await;
    if let Some(advice) = failure.retry_after {
        let millis = u64::try_from(advice.as_millis()).unwrap_or(u64::MAX);
        answer.headers_mut().insert("x-amz-retry-after", HeaderValue::from(millis));
    }
    answer
}

fn operate(
    state: &State,
    faults: &Faults,
    scope: Result<Scope, Refusal>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Answer, Refusal> {
    if headers.get("x-amz-target").is_none_or(|target| target != OPERATION) {
        return Err(Refusal { code: "UnknownOperationException", message: None });
    }
    let fleet = state.fleet(&scope?);
    let input = serde_json::from_slice(body)
        .map_err(|error| Refusal { code: "SerializationException", message: Some(error.to_string()) })?;
    let json = operation::answer(&fleet, input, faults, state.config.token_lifetime)?;
    Ok(answer(StatusCode::OK, CONTENT_TYPE, json))
}

/// Returns the answer of a failing call. `operate` computes the answer of a successful one, of which
/// [`FailureKind::Cut`] sends half.
async fn fail(kind: FailureKind, operate: impl FnOnce() -> Result<Answer, Refusal>) -> Answer {
    const PAGE: &str = "<html><body><h1>Bad Gateway</h1></body></html>";
    const DENIED: &str = "User: arn:aws:sts::123456789012:assumed-role/Gateway/session is not authorized to perform: \
                          ssm:DescribeInstanceInformation on resource: arn:aws:ssm:us-east-1:123456789012:*";
    match kind {
        FailureKind::Throttling => error(StatusCode::BAD_REQUEST, "ThrottlingException", Some("Rate exceeded")),
        FailureKind::InternalError => {
            error(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", Some("An internal error occurred."))
        }
        FailureKind::Html => answer(StatusCode::INTERNAL_SERVER_ERROR, "text/html", PAGE.to_owned()),
        FailureKind::HtmlOk => answer(StatusCode::OK, "text/html", PAGE.to_owned()),
        FailureKind::MalformedJson => {
            answer(StatusCode::OK, CONTENT_TYPE, r#"{"InstanceInformationList":[{"InstanceId":"i-"#.to_owned())
        }
        FailureKind::AccessDenied => error(StatusCode::BAD_REQUEST, "AccessDeniedException", Some(DENIED)),
        FailureKind::ExpiredCredentials => {
            let message = "The security token included in the request is expired";
            error(StatusCode::BAD_REQUEST, "ExpiredTokenException", Some(message))
        }
        FailureKind::Error { status, code, message } => {
            error(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), &code, message.as_deref())
        }
        FailureKind::Hang => future::pending().await,
        FailureKind::Cut => cut(operate().unwrap_or_default()).await,
        FailureKind::Reset => {
            let mut answer = Answer::default();
            answer.extensions_mut().insert(Reset);
            answer
        }
    }
}

/// Returns an answer that breaks off in the middle, although its headers announce the whole.
async fn cut(answer: Answer) -> Answer {
    let (mut parts, body) = answer.into_parts();
    let whole = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(whole.len() + 1));
    let half = whole.slice(..whole.len() / 2);
    Answer::from_parts(parts, Body::from_stream(stream::iter([Ok(half), Err(io::Error::other(Reset))])))
}

/// Returns an error in AWS's own spelling: `Message` where the model has it, `message` elsewhere, none for a code whose
/// shape has no member.
fn error(status: StatusCode, code: &str, message: Option<&str>) -> Answer {
    let body = match (code, message) {
        ("InvalidNextToken" | "InvalidInstanceId" | "InternalServerError", message) => {
            json!({ "__type": code, "Message": message.unwrap_or_default() })
        }
        ("InvalidFilterKey", _) | (_, None) => json!({ "__type": code }),
        (_, Some(message)) => json!({ "__type": code, "message": message }),
    };
    answer(status, CONTENT_TYPE, body.to_string())
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let request_id = format!("{:08x}-0000-4000-8000-{:012x}", fastrand::u32(..), fastrand::u64(..1 << 48));
    (status, [("content-type", content_type.to_owned()), ("x-amzn-requestid", request_id)], body).into_response()
}
