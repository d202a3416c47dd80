use std::{convert::Infallible, future};

use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use proptest::prelude::*;
use tonic_types::StatusExt as _;
use tower::{ServiceExt as _, service_fn};

use super::*;

fn request(timeout: Option<&str>) -> Request<()> {
    let mut request = Request::builder();
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    request.body(()).unwrap()
}

/// The status in the headers of a trailers-only answer, or in its trailers.
async fn status(answer: Response<Body>) -> Option<Status> {
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
    let never = service_fn(|_: Request<()>| future::pending::<Result<Response<Body>, Infallible>>());
    let started = time::Instant::now();
    let answer = DeadlineLayer.layer(never).oneshot(request(Some("250m"))).await.unwrap();
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
            future::ready(Ok::<_, Infallible>(Response::new(Body::new(StreamBody::new(frames)))))
        });
        let answer = DeadlineLayer.layer(endless).oneshot(request(Some("2S"))).await.unwrap();
        assert_passed(&status(answer).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_deadline_is_left_alone() {
    let slow = service_fn(|_: Request<()>| async {
        time::sleep(Duration::from_secs(1_000_000)).await;
        Ok::<_, Infallible>(Status::not_found("there").into_http())
    });
    let answer = DeadlineLayer.layer(slow).oneshot(request(None)).await.unwrap();
    assert_eq!(status(answer).await.unwrap().code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_keeps_its_own_status() {
    let quick = service_fn(|_: Request<()>| future::ready(Ok::<_, Infallible>(Status::aborted("now").into_http())));
    let answer = DeadlineLayer.layer(quick).oneshot(request(Some("1H"))).await.unwrap();
    assert_eq!(status(answer).await.unwrap().code(), Code::Aborted);
}

#[test]
fn timeouts_are_read_in_every_unit_and_no_other() {
    for (text, expected) in [
        ("1H", Some(Duration::from_hours(1))),
        ("2M", Some(Duration::from_mins(2))),
        ("3S", Some(Duration::from_secs(3))),
        ("99999999m", Some(Duration::from_millis(99_999_999))),
        ("5u", Some(Duration::from_micros(5))),
        ("6n", Some(Duration::from_nanos(6))),
        ("100000000S", None),
        ("S", None),
        ("+1S", None),
        ("1", None),
        ("1s", None),
        ("", None),
    ] {
        let request = request(Some(text));
        assert_eq!(timeout(request.headers()), expected, "{text:?}");
    }
}

proptest! {
    #[test]
    fn no_timeout_header_panics(bytes in prop::collection::vec(32u8..=255, 0..12)) {
        if let Ok(value) = http::HeaderValue::from_bytes(&bytes) {
            let _ = timeout(&HeaderMap::from_iter([(http::HeaderName::from_static("grpc-timeout"), value)]));
        }
    }
}
