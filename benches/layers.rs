//! What each layer of the edge adds to a call, in nanoseconds of one core: the same calls through stacks that differ by a layer, in
//! interleaved rounds. `cargo bench --bench layers`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench prints, and one that meets what it does not expect must fail"
)]

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use ssm_gateway::{
    access::TokenHash,
    edge::{
        ArrivalLayer, AuthConfig, AuthenticateLayer, CatchPanicLayer, HeaderListLayer, LifetimeLayer, LimitsConfig,
        Metrics, ObserveLayer, ProtocolLayer, RouteLayer, Stages, Token,
    },
    grpc::{Body, Failure},
};
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt as _, service_fn, util::BoxCloneService};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _};

const PATH: &str = "/ssm_gateway.v1.InstanceInformationService/DescribeInstanceInformation";
const CALLS: u32 = 20_000;
const ROUNDS: usize = 31;

type Boxed = UnsyncBoxBody<Bytes, BoxError>;
type Stack = BoxCloneService<Request<Empty<Bytes>>, Response<Boxed>, BoxError>;

/// An answer as the service gives it: a page.
async fn answer<R>(_: Request<R>) -> Result<Response<Body>, Failure> {
    static PAGE: [u8; 15_000] = [7; 15_000];
    let body = Full::new(Bytes::from_static(&PAGE)).map_err(|never| match never {});
    Ok(Response::new(body.boxed_unsync()))
}

/// The layers of the gateway in its order, the innermost `count` of them.
async fn stacks() -> Vec<(&'static str, Stack)> {
    fn boxed<S, B>(service: S) -> Stack
    where
        S: tower::Service<Request<Empty<Bytes>>, Response = Response<B>, Error: Into<BoxError>, Future: Send>
            + Clone
            + Send
            + 'static,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        BoxCloneService::new(
            RouteLayer
                .layer(service)
                .map_response(|answer| answer.map(|body| body.map_err(Into::into).boxed_unsync()))
                .map_err(Into::into),
        )
    }
    let token = Token { name: "bench".to_owned(), sha256: TokenHash::of("bench-secret") };
    let auth = AuthConfig { tokens: vec![token], ..AuthConfig::default() };
    let auth = AuthenticateLayer(Arc::new(auth.build(false, Duration::from_secs(1)).await.unwrap()));
    let lifetime = LifetimeLayer {
        max: Duration::from_hours(1),
        stages: Stages::default(),
        stall_timeout: Duration::from_mins(1),
    };
    let limits = LimitsConfig::default().build();
    let metrics = Metrics::new().unwrap();
    let observe = ObserveLayer { metrics, slow_call: Duration::from_secs(5), is_traced: false };
    let arrival = ServiceBuilder::new().layer(ArrivalLayer(Duration::from_secs(1))).service(service_fn(answer));
    let lifetime = lifetime.layer(arrival.clone());
    let limits = limits.layer(lifetime.clone());
    let authenticate = auth.layer(limits.clone());
    let header_list = HeaderListLayer(16 << 10).layer(authenticate.clone());
    let catch_panic = CatchPanicLayer.layer(header_list.clone());
    let observe = observe.layer(catch_panic.clone());
    let protocol = ProtocolLayer.layer(observe.clone());
    vec![
        ("the service alone", boxed(service_fn(answer))),
        ("Arrival", boxed(arrival)),
        ("Lifetime", boxed(lifetime)),
        ("Limits", boxed(limits)),
        ("Authenticate, a static token", boxed(authenticate)),
        ("HeaderList", boxed(header_list)),
        ("CatchPanic", boxed(catch_panic)),
        ("Observe: request ID, metrics, trailers", boxed(observe)),
        ("Protocol", boxed(protocol.clone())),
        ("Observe: the line in JSON, too", boxed(protocol)),
    ]
}

/// Nanoseconds a call.
fn round(stack: &Stack) -> f64 {
    let started = std::time::Instant::now();
    for _ in 0..CALLS {
        let mut request = Request::post(PATH).body(Empty::new()).unwrap();
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert("authorization", HeaderValue::from_static("Bearer bench-secret"));
        let answer = Box::pin(stack.clone().oneshot(request)).now_or_never().unwrap().unwrap();
        answer.into_body().collect().now_or_never().unwrap().unwrap();
    }
    started.elapsed().as_nanos() as f64 / f64::from(CALLS)
}

#[tokio::main]
async fn main() {
    let stacks = stacks().await;
    let lines = tracing_subscriber::registry()
        .with(EnvFilter::new("info"))
        .with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(io::sink));
    let lines = tracing::Dispatch::new(lines);
    // The first look at a callsite decides for good whether it is ever heard.
    tracing::dispatcher::with_default(&lines, || {
        for (_, stack) in &stacks {
            round(stack);
        }
    });
    let mut rounds = vec![Vec::new(); stacks.len()];
    for _ in 0..ROUNDS {
        for ((name, stack), rounds) in stacks.iter().zip(&mut rounds) {
            let measured = || round(stack);
            rounds.push(if name.contains("JSON") {
                tracing::dispatcher::with_default(&lines, measured)
            } else {
                measured()
            });
        }
    }
    println!("nanoseconds a call, medians of {ROUNDS} rounds of {CALLS} calls");
    let mut before = 0.0;
    for ((name, _), mut rounds) in stacks.iter().zip(rounds) {
        rounds.sort_unstable_by(f64::total_cmp);
        let median = rounds.get(ROUNDS / 2).copied().unwrap_or_default();
        println!("  {name:32} {:>8.0} {:>+8.0}", median, median - before);
        before = median;
    }
}
