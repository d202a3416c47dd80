use std::future;

use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use tokio::time;
use tower::{ServiceExt as _, service_fn};

use super::*;
use crate::{
    edge::stage::Stage,
    grpc::{self, Reason},
};

type Answer = Result<Response<grpc::Body>, Failure>;

fn layer() -> LifetimeLayer {
    let max = Duration::from_hours(24 * 365);
    LifetimeLayer { max, stages: Stages::default(), stall_timeout: Duration::from_mins(1) }
}

fn request(timeout: Option<&str>) -> Request<()> {
    let mut request = Request::builder();
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    request.body(()).unwrap()
}

/// The failure with which a call ends, at once or after its messages.
async fn failure(answer: Result<Response<LifetimeBody<grpc::Body>>, Failure>) -> Option<Failure> {
    match answer {
        Ok(answer) => answer.into_body().collect().await.err(),
        Err(failure) => Some(failure),
    }
}

fn assert_passed(failure: &Failure) {
    assert_eq!(failure.own_reason(), Some(Reason::DeadlineExceeded));
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_ends_at_its_deadline() {
    let never = service_fn(|_: Request<()>| future::pending::<Answer>());
    let started = time::Instant::now();
    let answer = layer().layer(never).oneshot(request(Some("250m"))).await;
    assert_eq!(started.elapsed(), Duration::from_millis(250));
    let failure = failure(answer).await.unwrap();
    assert_passed(&failure);
    assert_eq!(failure.message(), "the caller's deadline of 250ms passed");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_its_deadline_even_while_it_has_frames() {
    for pause in [Duration::from_millis(1), Duration::MAX] {
        let endless = service_fn(move |_: Request<()>| {
            let frames = stream::unfold((), move |()| async move {
                time::sleep(pause).await;
                Some((Ok::<_, Failure>(Frame::data(Bytes::from_static(b"x"))), ()))
            });
            future::ready(Answer::Ok(Response::new(StreamBody::new(frames).boxed_unsync())))
        });
        let answer = layer().layer(endless).oneshot(request(Some("2S"))).await;
        assert_passed(&failure(answer).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_deadline_is_left_alone() {
    let slow = service_fn(|_: Request<()>| async {
        time::sleep(Duration::from_secs(1_000_000)).await;
        Answer::Err(Failure::new(Reason::UnknownTarget, "there"))
    });
    let answer = layer().layer(slow).oneshot(request(None)).await;
    assert_eq!(failure(answer).await.unwrap().own_reason(), Some(Reason::UnknownTarget));
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_keeps_its_own_status() {
    let quick = service_fn(|_: Request<()>| future::ready(Answer::Err(Failure::new(Reason::ListingExpired, "now"))));
    let answer = layer().layer(quick).oneshot(request(Some("1H"))).await;
    assert_eq!(failure(answer).await.unwrap().own_reason(), Some(Reason::ListingExpired));
}

/// A stream with one frame and no end.
async fn stream(layer: &LifetimeLayer, request: Request<()>) -> Result<Response<LifetimeBody<grpc::Body>>, Failure> {
    let endless = service_fn(|_: Request<()>| {
        let frames = stream::iter([Ok::<_, Failure>(Frame::data(Bytes::from_static(b"x")))]).chain(stream::pending());
        future::ready(Answer::Ok(Response::new(StreamBody::new(frames).boxed_unsync())))
    });
    layer.layer(endless).oneshot(request).await
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_the_gateways_own_limit_whatever_its_caller_wants() {
    let layer = LifetimeLayer { max: Duration::from_secs(5), ..layer() };
    for timeout in [None, Some("1H")] {
        let started = time::Instant::now();
        let failure = failure(stream(&layer, request(timeout)).await).await.unwrap();
        assert_passed(&failure);
        assert_eq!((failure.message(), started.elapsed().as_secs()), ("the gateway's own limit of 5s passed", 5));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_its_callers_credential_does() {
    let mut request = request(Some("1H"));
    let started = time::Instant::now();
    request.extensions_mut().insert(Expiry(started + Duration::from_secs(7)));
    let failure = failure(stream(&layer(), request).await).await.unwrap();
    let expected = (Some(Reason::CredentialExpired), 7);
    assert_eq!((failure.own_reason(), started.elapsed().as_secs()), expected);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_drain_is_ended_with_advice() {
    let layer = layer();
    let waiting =
        tokio::spawn(layer.layer(service_fn(|_: Request<()>| future::pending::<Answer>())).oneshot(request(None)));
    let streaming = tokio::spawn(failure(stream(&layer, request(None)).await));
    time::sleep(Duration::from_mins(1)).await;
    layer.stages.advance(Stage::GoingAway);
    time::sleep(Duration::from_mins(1)).await;
    assert!(!waiting.is_finished() && !streaming.is_finished(), "they may still finish by themselves");
    layer.stages.advance(Stage::Ending);
    for failure in [failure(waiting.await.unwrap()).await.unwrap(), streaming.await.unwrap().unwrap()] {
        assert_eq!(failure.own_reason(), Some(Reason::Draining));
        assert!(failure.delay().is_some());
    }
}
