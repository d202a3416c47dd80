use std::{
    collections::HashMap,
    fmt,
    future::Future,
    num::NonZeroU32,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{Either, Ready, ready};
use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, MonotonicClock},
    middleware::NoOpMiddleware,
    state::keyed::HashMapStateStore,
};
use http::{Request, Response};
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use serde::{Deserialize, Serialize};
use tower::{Layer, Service};

use crate::{
    access::Principal,
    grpc::{Failure, Reason, Route},
    setting::{InvalidSetting, positive, positive_bounded},
};

/// When callers may retry a call that was refused because of the load.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// The most watches of health. They need no principal, so they have a limit of their own, and take no call from
/// callers.
const MAX_WATCHES: usize = 1000;
/// How many principals are remembered before those with a full budget are dropped, and how many calls pass between two
/// checks of that.
const PRINCIPALS: usize = 10_000;
const SWEEP: usize = 1000;

/// The limits of calls; the `[limits]` table of the configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The most calls at a time, of all callers; more are refused at once.
    pub max_calls: usize,
    /// The most calls at a time of one principal.
    pub max_calls_per_principal: usize,
    /// How many calls one principal may begin in a second; absent, any number.
    pub calls_per_second: Option<NonZeroU32>,
    /// How many calls one principal may begin at once, after a pause; absent, as many as in a second.
    pub burst: Option<NonZeroU32>,
    /// The longest that any call may last.
    #[serde(with = "humantime_serde")]
    pub max_call_time: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_calls: 10_000,
            max_calls_per_principal: 1000,
            calls_per_second: None,
            burst: None,
            max_call_time: Duration::from_hours(1),
        }
    }
}

/// Refuses calls beyond the limits, with advice when to retry. A call counts until its answer has ended.
#[derive(Debug, Clone)]
pub struct LimitsLayer(Arc<Limits>);

/// The service of [`LimitsLayer`].
#[derive(Debug, Clone)]
pub struct Limited<S> {
    inner: S,
    limits: Arc<Limits>,
}

pin_project! {
    /// The future of [`Limited`], for a call that is admitted.
    #[derive(Debug)]
    pub struct LimitedFuture<F> {
        #[pin]
        inner: F,
        permit: Option<Permit>,
    }
}

/// The body of [`Limited`]'s answers.
#[derive(Debug)]
pub struct LimitedBody<B> {
    inner: B,
    _permit: Option<Permit>,
}

/// The limits, and the calls that count.
struct Limits {
    config: Config,
    calls: AtomicUsize,
    watches: AtomicUsize,
    /// How many calls each principal has, if it has any.
    by_principal: Mutex<HashMap<Principal, usize>>,
    rate: Option<Rate>,
}

type Rate = RateLimiter<Principal, HashMapStateStore<Principal>, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// The permit of a call, which counts until its permit is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    limits: Arc<Limits>,
    counted: Counted,
}

#[derive(Debug)]
enum Counted {
    Watch,
    Call(Option<Principal>),
}

impl Config {
    /// Checks every setting.
    ///
    /// # Errors
    /// The first setting that every call would be refused by.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let &Self { max_calls, max_calls_per_principal, calls_per_second: _, burst: _, max_call_time } = self;
        positive("max_calls", max_calls)?;
        positive("max_calls_per_principal", max_calls_per_principal)?;
        positive_bounded("max_call_time", max_call_time)
    }

    /// Returns whether calls that count under these limits can count under the other limits, too.
    #[must_use]
    pub fn counts_as(&self, other: &Self) -> bool {
        Self { max_call_time: other.max_call_time, ..*self } == *other
    }

    /// Builds the layer, of which all clones share the limits.
    #[must_use]
    pub fn build(self) -> LimitsLayer {
        let rate = self.calls_per_second.map(|rate| {
            let quota = Quota::per_second(rate).allow_burst(self.burst.unwrap_or(rate));
            RateLimiter::new(quota, HashMapStateStore::default(), MonotonicClock)
        });
        let calls = AtomicUsize::new(0);
        let watches = AtomicUsize::new(0);
        LimitsLayer(Arc::new(Limits { config: self, calls, watches, by_principal: Mutex::default(), rate }))
    }
}

impl LimitsLayer {
    /// Returns how many calls are in progress.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.0.calls.load(Relaxed)
    }

    /// Returns the principals that have calls in progress, and how many.
    #[must_use]
    pub fn callers(&self) -> Vec<(Principal, usize)> {
        let by_principal = self.0.by_principal.lock().unwrap_or_else(PoisonError::into_inner);
        by_principal.iter().map(|(principal, calls)| (principal.clone(), *calls)).collect()
    }
}

impl Limits {
    /// Admits a call.
    ///
    /// # Errors
    /// If the call is beyond a limit.
    fn enter(self: &Arc<Self>, principal: Option<&Principal>) -> Result<Permit, Failure> {
        let calls = self.calls.fetch_add(1, Relaxed);
        let mut permit = Permit { limits: Arc::clone(self), counted: Counted::Call(None) };
        if calls >= self.config.max_calls {
            let message = "the gateway has more calls at a time than it can take";
            return Err(overloaded(Reason::TooManyCalls, message));
        }
        if let Some(principal) = principal {
            self.check_rate(principal)?;
            self.count(principal)?;
            permit.counted = Counted::Call(Some(principal.clone()));
        }
        Ok(permit)
    }

    fn enter_watch(self: &Arc<Self>) -> Result<Permit, Failure> {
        let watches = self.watches.fetch_add(1, Relaxed);
        let permit = Permit { limits: Arc::clone(self), counted: Counted::Watch };
        if watches < MAX_WATCHES {
            return Ok(permit);
        }
        let message = "the gateway's health is watched by as many as may be: check it instead";
        Err(overloaded(Reason::TooManyWatches, message))
    }

    fn check_rate(&self, principal: &Principal) -> Result<(), Failure> {
        let Some(rate) = &self.rate else { return Ok(()) };
        if fastrand::usize(..SWEEP) == 0 && rate.len() > PRINCIPALS {
            rate.retain_recent();
        }
        rate.check_key(principal).map_err(|until| {
            let most = self.config.calls_per_second.map(NonZeroU32::get).unwrap_or_default();
            let wait = until.wait_time_from(rate.clock().now());
            quota(principal, &format!("calls at most {most} times a second"), wait)
        })
    }

    fn count(&self, principal: &Principal) -> Result<(), Failure> {
        let most = self.config.max_calls_per_principal;
        let mut by_principal = self.by_principal.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = by_principal.entry(principal.clone()).or_default();
        if *calls < most {
            *calls += 1;
            return Ok(());
        }
        drop(by_principal);
        Err(quota(principal, &format!("has at most {most} calls at a time"), RETRY_DELAY))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let principal = match &self.counted {
            Counted::Watch => {
                self.limits.watches.fetch_sub(1, Relaxed);
                return;
            }
            Counted::Call(principal) => principal,
        };
        self.limits.calls.fetch_sub(1, Relaxed);
        let Some(principal) = principal else { return };
        let mut by_principal = self.limits.by_principal.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(calls) = by_principal.get_mut(principal) {
            *calls -= 1;
            if *calls == 0 {
                by_principal.remove(principal);
            }
        }
    }
}

/// Returns the failure of a call that is refused because of the load.
fn overloaded(reason: Reason, message: &str) -> Failure {
    Failure::new(reason, message).retry_after(Some(RETRY_DELAY))
}

/// Returns the failure of a call with which its principal exceeds its quota.
fn quota(principal: &Principal, rule: &str, wait: Duration) -> Failure {
    let failure = Failure::new(Reason::CallerQuota, format!("{principal} {rule}"));
    failure.beyond_quota(principal.as_str(), rule).retry_after(Some(wait))
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").field("config", &self.config).field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for LimitsLayer {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { inner, limits: Arc::clone(&self.0) }
    }
}

impl<S, R, B> Service<Request<R>> for Limited<S>
where
    S: Service<Request<R>, Response = Response<B>, Error = Failure>,
{
    type Response = Response<LimitedBody<B>>;
    type Error = Failure;
    type Future = Either<LimitedFuture<S::Future>, Ready<Result<Self::Response, Failure>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let permit = match request.extensions().get() {
            // A check ends at once, and an overloaded gateway that did not answer it would be restarted.
            Some(Route::HealthCheck) => Ok(None),
            Some(Route::HealthWatch) => self.limits.enter_watch().map(Some),
            _ => self.limits.enter(request.extensions().get()).map(Some),
        };
        match permit {
            Ok(permit) => Either::Left(LimitedFuture { inner: self.inner.call(request), permit }),
            Err(failure) => Either::Right(ready(Err(failure))),
        }
    }
}

impl<F, B, E> Future for LimitedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<LimitedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.inner.poll(cx).map(|outcome| {
            let permit = this.permit.take();
            outcome.map(|answer| answer.map(|inner| LimitedBody { inner, _permit: permit }))
        })
    }
}

impl<B> Body for LimitedBody<B>
where
    B: Body<Data = Bytes, Error = Failure> + Unpin,
{
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests;
