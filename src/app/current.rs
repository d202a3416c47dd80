use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use tower::Service;

use super::generation::Generation;

/// The generation that serves now, with the stack of layers that is built of it. Calls and administrators both read
/// this one value, so that a reload switches them together, and each call is served by one generation from its
/// beginning to its end.
pub(super) struct CurrentGeneration<S> {
    serving: Arc<ArcSwap<Serving<S>>>,
    stack: fn(&Generation) -> S,
}

struct Serving<S> {
    generation: Arc<Generation>,
    service: S,
}

impl<S> Serving<S> {
    fn new(generation: Arc<Generation>, stack: fn(&Generation) -> S) -> Arc<Self> {
        let service = stack(&generation);
        Arc::new(Self { generation, service })
    }
}

impl<S> CurrentGeneration<S> {
    /// Serves by `generation` first. `stack` builds the service of this and of every later generation.
    pub(super) fn new(generation: Generation, stack: fn(&Generation) -> S) -> Self {
        let serving = Serving::new(Arc::new(generation), stack);
        Self { serving: Arc::new(ArcSwap::new(serving)), stack }
    }

    /// Returns the generation that serves now.
    pub(super) fn get(&self) -> Arc<Generation> {
        Arc::clone(&self.serving.load().generation)
    }

    /// Serves every further call by `generation`.
    pub(super) fn replace(&self, generation: Arc<Generation>) {
        self.serving.store(Serving::new(generation, self.stack));
    }
}

impl<S> Clone for CurrentGeneration<S> {
    fn clone(&self) -> Self {
        Self { serving: Arc::clone(&self.serving), stack: self.stack }
    }
}

impl<S> fmt::Debug for CurrentGeneration<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CurrentGeneration").field(&self.get()).finish()
    }
}

impl<S, R> Service<R> for CurrentGeneration<S>
where
    S: Service<R> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    /// Always ready: so is every layer of the stack, since limits reject calls and let none wait.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> S::Future {
        self.serving.load().service.clone().call(request)
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::ready};

    use tower::{ServiceExt as _, service_fn};

    use super::*;
    use crate::config::Config;

    async fn generation(max_calls: usize) -> Generation {
        let mut config = Config::default();
        config.upstream.region = Some("eu-west-1".to_owned());
        config.limits.max_calls = max_calls;
        Generation::first(config).await.unwrap()
    }

    #[tokio::test]
    async fn every_clone_and_the_stack_switch_to_the_next_generation_together() {
        let current = CurrentGeneration::new(generation(1).await, |generation| {
            let max_calls = generation.config.limits.max_calls;
            service_fn(move |(): ()| ready(Ok::<_, Infallible>(max_calls)))
        });
        let connection = current.clone();
        let begun = connection.get();
        assert_eq!(connection.clone().oneshot(()).await, Ok(1));
        current.replace(Arc::new(generation(2).await));
        assert_eq!(connection.clone().oneshot(()).await, Ok(2));
        assert_eq!((begun.config.limits.max_calls, connection.get().config.limits.max_calls), (1, 2));
    }
}
