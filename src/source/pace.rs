use std::time::Duration;

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::time;

use super::{FetchError, Pace, Pacer, Priority, QueueFull, Request, Source, UpstreamError, UpstreamPage};

/// A source that is asked no faster than its rate, which falls while AWS throttles.
#[derive(Debug)]
pub struct Paced<S> {
    inner: S,
    pacer: Pacer,
    /// The longest wait to be admitted.
    patience: Duration,
}

impl<S: Source> Paced<S> {
    /// Admits at most `per_second` requests a second. At most `max_queued` fetches of a priority wait, each for
    /// `patience` at most.
    pub fn new(inner: S, per_second: f64, max_queued: usize, patience: Duration) -> Self {
        Self { inner, pacer: Pacer::new(per_second, max_queued), patience }
    }
}

impl<S: Source> Source for Paced<S> {
    fn admit(&self, priority: Priority) -> BoxFuture<'_, Result<(), UpstreamError>> {
        let admitted = time::timeout(self.patience, self.pacer.admit(priority));
        async { admitted.await.unwrap_or(Err(QueueFull)).map_err(|QueueFull| UpstreamError::Overloaded) }.boxed()
    }

    fn page<'a>(&'a self, request: Request<'a>) -> BoxFuture<'a, Result<UpstreamPage, FetchError>> {
        async move {
            let outcome = self.inner.page(request).await;
            if let Err(FetchError { error: UpstreamError::Throttled(aws), sent, .. }) = &outcome {
                self.pacer.throttled(*sent, aws.retry_after);
            }
            outcome
        }
        .boxed()
    }

    fn pace(&self) -> Pace {
        let Pace { rate, max_rate, waiting, .. } = self.pacer.pace();
        Pace { rate, max_rate, waiting, ..self.inner.pace() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Filters, source::AwsError};

    /// A source that always fails with this error.
    #[derive(Debug)]
    struct Failing(UpstreamError);

    impl Source for Failing {
        fn page<'a>(&'a self, _: Request<'a>) -> BoxFuture<'a, Result<UpstreamPage, FetchError>> {
            async { Err(self.0.clone().into()) }.boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_falls_when_the_target_is_throttled_and_not_when_its_credentials_are() {
        let filters = Filters::Current(Vec::new());
        let token = None;
        let number = 0;
        let priority = Priority::Interactive;
        let not_before = None;
        let request = Request { filters: &filters, token, number, priority, not_before };
        for (error, is_slower) in [
            (UpstreamError::Throttled(AwsError::default()), true),
            (UpstreamError::CredentialsThrottled(AwsError::default()), false),
        ] {
            let paced = Paced::new(Failing(error), 10.0, 10, Duration::from_secs(1));
            paced.page(request).await.unwrap_err();
            assert_eq!(paced.pace().rate < 10.0, is_slower);
        }
    }
}
