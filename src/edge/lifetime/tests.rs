use std::{convert::Infallible, future};

use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use tokio::time;
use tonic::Code;
use tonic::body::Body as TonicBody;
use tonic_types::StatusExt as _;
use tower::{ServiceExt as _, service_fn};

use super::{super::stage::Stage, *};

type Answer = Result<Response<TonicBody>, Infallible>;

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

/// The status in the headers of a trailers-only answer, or in its trailers.
async fn status(answer: Response<LifetimeBody<TonicBody>>) -> Option<Status> {
    let from_headers = Status::from_header_map(answer.headers());
    let trailers = answer.into_body().collect().await.unwrap().trailers().cloned();
    from_headers.or_else(|| Status::from_header_map(&trailers?))
}

fn assert_passed(status: &Status) {
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let info = status.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("DEADLINE_EXCEEDED", "ssm-gateway"));
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_ends_at_its_deadline() {
    let never = service_fn(|_: Request<()>| future::pending::<Answer>());
    let started = time::Instant::now();
    let answer = layer().layer(never).oneshot(request(Some("250m"))).await.unwrap();
    assert_eq!(started.elapsed(), Duration::from_millis(250));
    let status = status(answer).await.unwrap();
    assert_passed(&status);
    assert_eq!(status.message(), "the caller's deadline of 250ms passed");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_its_deadline_even_while_it_has_frames() {
    for pause in [Duration::from_millis(1), Duration::MAX] {
        let endless = service_fn(move |_: Request<()>| {
            let frames = stream::unfold((), move |()| async move {
                time::sleep(pause).await;
                Some((Ok::<_, Status>(Frame::data(Bytes::from_static(b"x"))), ()))
            });
            future::ready(Answer::Ok(Response::new(TonicBody::new(StreamBody::new(frames)))))
        });
        let answer = layer().layer(endless).oneshot(request(Some("2S"))).await.unwrap();
        assert_passed(&status(answer).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_deadline_is_left_alone() {
    let slow = service_fn(|_: Request<()>| async {
        time::sleep(Duration::from_secs(1_000_000)).await;
        Answer::Ok(Status::not_found("there").into_http())
    });
    let answer = layer().layer(slow).oneshot(request(None)).await.unwrap();
    assert_eq!(status(answer).await.unwrap().code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_keeps_its_own_status() {
    let quick = service_fn(|_: Request<()>| future::ready(Answer::Ok(Status::aborted("now").into_http())));
    let answer = layer().layer(quick).oneshot(request(Some("1H"))).await.unwrap();
    assert_eq!(status(answer).await.unwrap().code(), Code::Aborted);
}

/// A stream with one frame and no end.
async fn stream(layer: &LifetimeLayer, request: Request<()>) -> Response<LifetimeBody<TonicBody>> {
    let endless = service_fn(|_: Request<()>| {
        let frames = stream::iter([Ok::<_, Status>(Frame::data(Bytes::from_static(b"x")))]).chain(stream::pending());
        future::ready(Answer::Ok(Response::new(TonicBody::new(StreamBody::new(frames)))))
    });
    layer.layer(endless).oneshot(request).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_the_gateways_own_limit_whatever_its_caller_wants() {
    let layer = LifetimeLayer { max: Duration::from_secs(5), ..layer() };
    for timeout in [None, Some("1H")] {
        let started = time::Instant::now();
        let status = status(stream(&layer, request(timeout)).await).await.unwrap();
        assert_passed(&status);
        assert_eq!((status.message(), started.elapsed().as_secs()), ("the gateway's own limit of 5s passed", 5));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_its_callers_credential_does() {
    let mut request = request(Some("1H"));
    let started = time::Instant::now();
    request.extensions_mut().insert(Expiry(started + Duration::from_secs(7)));
    let status = status(stream(&layer(), request).await).await.unwrap();
    assert_eq!((status.code(), started.elapsed().as_secs()), (Code::Unauthenticated, 7));
    assert_eq!(status.get_details_error_info().unwrap().metadata["cause"], "expired");
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_drain_is_ended_with_advice() {
    let layer = layer();
    let waiting =
        tokio::spawn(layer.layer(service_fn(|_: Request<()>| future::pending::<Answer>())).oneshot(request(None)));
    let streaming = tokio::spawn(status(stream(&layer, request(None)).await));
    time::sleep(Duration::from_mins(1)).await;
    layer.stages.advance(Stage::GoingAway);
    time::sleep(Duration::from_mins(1)).await;
    assert!(!waiting.is_finished() && !streaming.is_finished(), "they may still finish by themselves");
    layer.stages.advance(Stage::Ending);
    for status in [status(waiting.await.unwrap().unwrap()).await.unwrap(), streaming.await.unwrap().unwrap()] {
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.get_details_error_info().unwrap().reason, "DRAINING");
        assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    }
}
