use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::peer_conduct::PeerConduct;
use crate::edge::call_end::CallEnd;

/// Runs the calls of one connection, each in a task of its own, which may outlive the connection for a moment.
///
/// hyper hands a whole call (headers, body, trailers) to this executor right after it has called the service for the
/// call, from the same task. So the service leaves the [`CallEnd`] here, for the next call that is run.
#[derive(Debug, Clone)]
pub(super) struct Calls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tasks: TaskTracker,
    conduct: Arc<PeerConduct>,
    next: Mutex<Option<Arc<CallEnd>>>,
}

pin_project! {
    /// A call, which is dropped when it is overdue: by that hyper resets its stream.
    #[derive(Debug)]
    struct Running<F> {
        #[pin]
        call: F,
        end: Arc<CallEnd>,
        calls: Calls,
        overdue: Overdue,
    }
}

/// When a call must be dropped. A call that never waits needs no timer.
enum Overdue {
    /// The call was not polled yet.
    New,
    /// The call waits, and no layer has set its bounds.
    Unknown,
    /// The call waits, and must be dropped when this is ready.
    At(Pin<Box<dyn Future<Output = ()> + Send>>),
}

impl Calls {
    pub(super) fn new(tasks: &TaskTracker, conduct: &Arc<PeerConduct>) -> Self {
        Self(Arc::new(Shared { tasks: tasks.clone(), conduct: Arc::clone(conduct), next: Mutex::default() }))
    }

    /// Creates the end of the call that is run next.
    pub(super) fn begin(&self) -> Arc<CallEnd> {
        let end = Arc::new(CallEnd::new());
        *self.0.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&end));
        end
    }
}

impl<F> Executor<F> for Calls
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, call: F) {
        let next = self.0.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        let end = next.unwrap_or_else(|| Arc::new(CallEnd::new()));
        self.0.tasks.spawn(Running { call, end, calls: self.clone(), overdue: Overdue::New });
    }
}

impl<F: Future> Future for Running<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.call.poll(cx).is_ready() {
            // `Frames` counts calls that were given up before their first poll.
            let is_premature = !matches!(this.overdue, Overdue::New) && this.end.is_premature(Instant::now());
            this.calls.0.conduct.ended(is_premature);
            return Poll::Ready(());
        }
        if matches!(this.overdue, Overdue::New) {
            *this.overdue = Overdue::Unknown;
        }
        if matches!(this.overdue, Overdue::Unknown) && this.end.can_be_overdue() {
            let end = Arc::clone(this.end);
            *this.overdue = Overdue::At(Box::pin(async move { end.overdue().await }));
        }
        let Overdue::At(overdue) = this.overdue else { return Poll::Pending };
        ready!(overdue.as_mut().poll(cx));
        this.calls.0.conduct.ended(false);
        Poll::Ready(())
    }
}

impl std::fmt::Debug for Overdue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::New => "New",
            Self::Unknown => "Unknown",
            Self::At(_) => "At",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::future::pending;

    use super::*;
    use crate::edge::{
        call_end::{Bounds, Why},
        stage::Stages,
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn calls() -> Calls {
        Calls::new(&TaskTracker::new(), &Arc::new(PeerConduct::default()))
    }

    fn bound(end: &CallEnd) {
        let at = Instant::now() + 5 * SECOND;
        let why = Why::Maximum(5 * SECOND);
        end.bound(Bounds { at, why, stages: Stages::default(), stall_timeout: 2 * SECOND });
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_overdue_is_dropped_and_its_place_is_free() {
        let calls = calls();
        let started = Instant::now();
        let end = calls.begin();
        let place = Arc::new(());
        let held = Arc::clone(&place);
        calls.execute(async move {
            pending::<()>().await;
            drop(held);
        });
        bound(&end);
        calls.0.tasks.close();
        calls.0.tasks.wait().await;
        assert_eq!((started.elapsed(), Arc::strong_count(&place)), (6 * SECOND, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_was_refused_is_dropped_when_its_peer_does_not_take_the_refusal() {
        let calls = calls();
        let started = Instant::now();
        calls.begin().answered();
        calls.execute(pending::<()>());
        calls.0.tasks.close();
        calls.0.tasks.wait().await;
        assert_eq!(started.elapsed(), 10 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn each_call_has_the_end_that_was_begun_for_it_and_one_that_nobody_began_has_no_end() {
        let calls = calls();
        let first = calls.begin();
        let second = calls.begin();
        bound(&first);
        calls.execute(pending::<()>());
        calls.execute(pending::<()>());
        tokio::time::sleep(60 * SECOND).await;
        assert_eq!(calls.0.tasks.len(), 2);
        bound(&second);
        assert!(first.reset().is_none() && second.reset().is_none(), "nobody polls the call, so nobody looks");
        let third = calls.begin();
        bound(&third);
        calls.execute(pending::<()>());
        tokio::time::sleep(60 * SECOND).await;
        assert!(third.reset().is_some());
        assert_eq!(calls.0.tasks.len(), 2);
    }
}
