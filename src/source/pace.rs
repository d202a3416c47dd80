use std::time::Duration;

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::time::{self, Instant};

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
    /// Admits at most `per_second` requests a second. At most `max_queued` fetches of a priority wait, each for `patience` at most.
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
            let sent = Instant::now();
            let outcome = self.inner.page(request).await;
            if let Err(FetchError { error: UpstreamError::Throttled(aws), .. }) = &outcome {
                self.pacer.throttled(sent, aws.retry_after);
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
