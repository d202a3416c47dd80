use http_body_util::{BodyExt as _, Empty};
use tower::{ServiceExt as _, service_fn};

use super::*;
use crate::access::Method;

const LIST: Route = Route::Method(Method::ListTargets);

fn config(change: impl FnOnce(&mut Config)) -> LimitsLayer {
    let mut config = Config { max_calls: 3, max_calls_per_principal: 2, ..Config::default() };
    change(&mut config);
    config.build()
}

type Answer = Result<Response<LimitedBody<crate::grpc::Body>>, Failure>;

/// Calls, and returns the answer, which counts until it is dropped.
async fn call(limits: &LimitsLayer, principal: Option<&str>, route: Route) -> Answer {
    let body = || Empty::new().map_err(|never| match never {}).boxed_unsync();
    let answer = service_fn(|_: Request<()>| async { Ok(Response::new(body())) });
    let mut request = Request::new(());
    request.extensions_mut().insert(route);
    if let Some(name) = principal {
        request.extensions_mut().insert(Principal::token(name));
    }
    limits.layer(answer).oneshot(request).await
}

fn refused(answer: &Answer) -> Option<Reason> {
    let failure = answer.as_ref().err()?;
    assert!(failure.delay().unwrap() > Duration::ZERO);
    failure.own_reason()
}

#[tokio::test]
async fn one_principal_cannot_take_what_others_need() {
    let limits = config(|_| {});
    let first = call(&limits, Some("greedy"), LIST).await;
    let _second = call(&limits, Some("greedy"), LIST).await;
    let third = call(&limits, Some("greedy"), LIST).await;
    assert_eq!(refused(&third), Some(Reason::CallerQuota));
    assert_eq!(limits.calls(), 2);
    let _other = call(&limits, Some("modest"), LIST).await;
    assert_eq!(refused(&call(&limits, Some("late"), LIST).await), Some(Reason::TooManyCalls));
    first.unwrap().into_body().collect().await.unwrap();
    assert_eq!(refused(&call(&limits, Some("greedy"), LIST).await), None);
    assert_eq!(limits.0.by_principal.lock().unwrap().len(), 2, "who has no call is forgotten");
}

#[tokio::test]
async fn health_is_reported_whatever_the_load() {
    let limits = config(|config| config.max_calls = 0);
    assert_eq!(refused(&call(&limits, None, Route::HealthCheck).await), None);
    assert_eq!(refused(&call(&limits, None, Route::HealthWatch).await), None);
    assert!(refused(&call(&limits, None, LIST).await).is_some());
    assert_eq!(limits.calls(), 0, "who was refused does not count");
}

#[tokio::test]
async fn those_who_watch_health_take_nothing_from_callers() {
    let limits = config(|_| {});
    let mut watches = Vec::new();
    for _ in 0..MAX_WATCHES {
        watches.push(call(&limits, None, Route::HealthWatch).await);
    }
    assert!(watches.iter().all(|watch| refused(watch).is_none()));
    let expected = Some(Reason::TooManyWatches);
    assert_eq!(refused(&call(&limits, None, Route::HealthWatch).await), expected);
    assert_eq!(refused(&call(&limits, Some("caller"), LIST).await), None);
    assert_eq!(refused(&call(&limits, None, Route::HealthCheck).await), None);
    watches.pop();
    assert_eq!(refused(&call(&limits, None, Route::HealthWatch).await), None);
}

#[tokio::test]
async fn a_principal_calls_as_often_as_it_may_and_others_do_not_suffer() {
    let limits = config(|config| (config.calls_per_second, config.burst) = (NonZeroU32::new(1), NonZeroU32::new(2)));
    for _ in 0..2 {
        assert_eq!(refused(&call(&limits, Some("quick"), LIST).await), None);
    }
    let expected = Some(Reason::CallerQuota);
    assert_eq!(refused(&call(&limits, Some("quick"), LIST).await), expected);
    assert_eq!(refused(&call(&limits, Some("slow"), LIST).await), None);
}
