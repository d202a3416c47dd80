use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, future};
use tokio::sync::watch;
use tracing::{info, warn};

use super::{
    App, Signal,
    current::CurrentGeneration,
    reload::{self, Newest},
    stack::stack,
};
use crate::edge::{Stage, Stages};

impl App {
    /// Serves until [`Signal::Stop`], then drains.
    pub async fn serve(self, signals: impl Stream<Item = Signal>) {
        let Self { listener, admin, generation } = self;
        let process = Arc::clone(&generation.process);
        generation.log_targets();
        generation.log_unmatched_rules();
        info!(addr = %admin.addr(), "admin");
        info!(addr = %listener.addr(), "listening");
        let current = CurrentGeneration::new(generation, stack);
        // Of the configurations that arrive while one is being put into use, only the newest is worth it.
        let (newest, configs) = watch::channel(None);
        let serving = listener.serve(current.clone(), process.stages.clone(), process.metrics.clone());
        let answering = admin.serve(Arc::new(current.clone()));
        let following = follow(signals, &process.stages, &newest);
        let reloading = reload::keep_reloading(&current, configs);
        tokio::select! {
            () = serving => {}
            ((), (), ()) = future::join3(following, reloading, answering) => {}
        }
        info!("stopped");
    }
}

/// Advances the stage at each signal to stop, and passes each configuration on. It never waits for a reload, which may
/// take its time, so that a signal to stop is heard at once.
async fn follow(signals: impl Stream<Item = Signal>, stages: &Stages, newest: &watch::Sender<Newest>) {
    let react = |signal| {
        match signal {
            Signal::Reload(config) => drop(newest.send_replace(Some(Arc::new(config)))),
            Signal::Stop if stages.advance(Stage::NotServing) => info!("draining"),
            Signal::Stop => {
                warn!("stopping at once");
                stages.advance(Stage::CutOff);
            }
        }
        future::ready(())
    };
    signals.for_each(react).await;
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn a_stop_is_heard_behind_configurations_of_which_the_newest_alone_waits() {
        let reload = |max_calls| {
            let mut config = Box::<Config>::default();
            config.limits.max_calls = max_calls;
            Signal::Reload(Ok(config))
        };
        let (stages, (newest, mut configs)) = (Stages::default(), watch::channel(None));
        follow(stream::iter([reload(1), reload(2), Signal::Stop]), &stages, &newest).await;
        assert_eq!(stages.now(), Stage::NotServing);
        configs.changed().await.unwrap();
        let waiting = configs.borrow_and_update().clone().unwrap();
        assert_eq!((*waiting).as_ref().unwrap().limits.max_calls, 2);
        assert!(!configs.has_changed().unwrap());
        follow(stream::iter([Signal::Stop]), &stages, &newest).await;
        assert_eq!(stages.now(), Stage::CutOff);
    }
}
