use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::time;

use super::{FetchError, Pace, Priority, Request, Source, UpstreamError, UpstreamPage};
use crate::model::TargetName;

/// The number of attempts of a fetch, and the time for them.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// How often a transient failure is tried again.
    pub retries: u32,
    /// The longest pause before the first further attempt; it doubles from one attempt to the next.
    pub backoff: Duration,
    /// The longest time for all attempts of a fetch, their pauses included.
    pub fetch_timeout: Duration,
}

/// A source whose transient failures are tried again, and whose lasting ones are logged.
///
/// It stands around [`Paced`](super::Paced), so that each further attempt is admitted like the first, with the priority
/// of its fetch: the retry of a refresh must not go before a page that somebody waits for.
#[derive(Debug)]
pub struct Retried<S> {
    inner: S,
    target: TargetName,
    policy: RetryPolicy,
    retries: AtomicU64,
    retrying: AtomicUsize,
}

impl<S: Source> Retried<S> {
    /// Tries the fetches of this target as the policy says.
    pub fn new(inner: S, target: TargetName, policy: RetryPolicy) -> Self {
        Self { inner, target, policy, retries: AtomicU64::default(), retrying: AtomicUsize::default() }
    }

    /// Tries until an answer, a lasting failure, or the last retry.
    async fn attempts(&self, request: Request<'_>) -> Result<UpstreamPage, FetchError> {
        let mut backoff = self.policy.backoff;
        let mut retrying = None;
        for _ in 0..self.policy.retries {
            let failed = match self.inner.page(request).await {
                Err(failed) if failed.error.is_transient() => failed,
                outcome => return outcome,
            };
            let advice = failed.error.aws().and_then(|aws| aws.retry_after).unwrap_or_default();
            if advice >= self.policy.fetch_timeout {
                return Err(failed);
            }
            failed.error.log(&self.target, "will ask AWS again");
            retrying.get_or_insert_with(|| Retrying::new(&self.retrying));
            time::sleep(advice.max(backoff.mul_f64(fastrand::f64()))).await;
            if self.inner.admit(request.priority).await.is_err() {
                return Err(failed);
            }
            self.retries.fetch_add(1, Relaxed);
            backoff *= 2;
        }
        self.inner.page(request).await
    }
}

impl<S: Source> Source for Retried<S> {
    fn admit(&self, priority: Priority) -> BoxFuture<'_, Result<(), UpstreamError>> {
        self.inner.admit(priority)
    }

    fn page<'a>(&'a self, request: Request<'a>) -> BoxFuture<'a, Result<UpstreamPage, FetchError>> {
        async move {
            let most = self.policy.fetch_timeout;
            let outcome = time::timeout(most, self.attempts(request)).await.unwrap_or_else(|_elapsed| {
                let late = format!("no answer within fetch_timeout, {most:?}");
                Err(UpstreamError::Unavailable(None, Some(late.into())).into())
            });
            if let Err(FetchError { error, .. }) = &outcome
                && !error.is_about_the_request()
            {
                error.log(&self.target, "AWS gave no page");
            }
            outcome
        }
        .boxed()
    }

    fn pace(&self) -> Pace {
        let retries = self.retries.load(Relaxed);
        let retrying = self.retrying.load(Relaxed);
        Pace { retries, retrying, ..self.inner.pace() }
    }
}

/// A fetch that goes on though AWS failed it, until this is dropped.
struct Retrying<'a>(&'a AtomicUsize);

impl<'a> Retrying<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Retrying<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Mutex};

    use super::*;
    use crate::{
        clock,
        model::{Filters, Records},
        source::{AwsError, Origin, Sent},
    };

    const POLICY: RetryPolicy =
        RetryPolicy { retries: 2, backoff: Duration::from_millis(200), fetch_timeout: Duration::from_secs(30) };

    /// A source that fails so, one attempt after the other, before it answers, and notes who was admitted.
    #[derive(Debug, Default)]
    struct Failing {
        failures: Mutex<VecDeque<UpstreamError>>,
        admitted: Mutex<Vec<Priority>>,
        attempts: AtomicUsize,
    }

    impl Source for Failing {
        fn admit(&self, priority: Priority) -> BoxFuture<'_, Result<(), UpstreamError>> {
            self.admitted.lock().unwrap().push(priority);
            std::future::ready(Ok(())).boxed()
        }

        fn page<'a>(&'a self, _: Request<'a>) -> BoxFuture<'a, Result<UpstreamPage, FetchError>> {
            self.attempts.fetch_add(1, Relaxed);
            let failure = self.failures.lock().unwrap().pop_front();
            let page = || UpstreamPage {
                records: Records::default(),
                next_token: None,
                sent: Sent::now(clock::wall),
                origin: Origin::default(),
            };
            std::future::ready(failure.map_or_else(|| Ok(page()), |error| Err(error.into()))).boxed()
        }
    }

    fn retried(failures: impl IntoIterator<Item = UpstreamError>) -> Retried<Failing> {
        let inner = Failing { failures: Mutex::new(failures.into_iter().collect()), ..Failing::default() };
        Retried::new(inner, TargetName::default_target(), POLICY)
    }

    async fn fetch(source: &Retried<Failing>, priority: Priority) -> Result<UpstreamPage, FetchError> {
        let filters = Filters::Current(Vec::new());
        source.page(Request { filters: &filters, token: None, number: 0, priority, not_before: None }).await
    }

    fn unavailable(retry_after: Option<Duration>) -> UpstreamError {
        let aws = AwsError { status: Some(503), retry_after, ..AwsError::default() };
        UpstreamError::Unavailable(Some(aws), None)
    }

    #[tokio::test(start_paused = true)]
    async fn each_further_attempt_is_admitted_with_the_priority_of_its_fetch() {
        for priority in [Priority::Interactive, Priority::Background] {
            let source = retried([unavailable(None), unavailable(None)]);
            fetch(&source, priority).await.unwrap();
            assert_eq!(*source.inner.admitted.lock().unwrap(), [priority; 2]);
            assert_eq!((source.pace().retries, source.pace().retrying), (2, 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_ends_after_the_last_retry_and_at_once_after_a_lasting_failure() {
        let source = retried((0..4).map(|_| unavailable(None)));
        fetch(&source, Priority::Interactive).await.unwrap_err();
        assert_eq!(source.inner.attempts.load(Relaxed), 3);
        for lasting in [
            UpstreamError::Throttled(AwsError::default()),
            UpstreamError::CredentialsUnavailable(None, None),
            unavailable(Some(POLICY.fetch_timeout)),
        ] {
            let source = retried([lasting]);
            fetch(&source, Priority::Interactive).await.unwrap_err();
            assert_eq!(source.inner.attempts.load(Relaxed), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_no_shorter_than_advised_and_all_attempts_end_within_the_timeout() {
        let started = time::Instant::now();
        let source = retried([unavailable(Some(Duration::from_secs(5)))]);
        fetch(&source, Priority::Interactive).await.unwrap();
        assert_eq!(started.elapsed().as_secs(), 5);
        let source = retried((0..3).map(|_| unavailable(Some(Duration::from_secs(20)))));
        let failed = fetch(&source, Priority::Interactive).await.unwrap_err();
        assert!(failed.error.aws().is_none(), "it was cut off: {failed}");
        assert_eq!((started.elapsed().as_secs(), source.pace().retrying), (35, 0));
    }
}
