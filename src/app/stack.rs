use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tower::{Service, ServiceBuilder};

use super::generation::Generation;
use crate::{
    config::Config,
    edge::{
        ArrivalLayer, AuthenticateLayer, CatchPanicLayer, HeaderListLayer, LifetimeLayer, ObserveLayer, ProtocolLayer,
        RouteLayer,
    },
};

/// Builds the stack of layers that every call goes through, the outermost first.
///
/// Each layer is generic over the answer's body, so that an answer is boxed once, by the routes, and not by each layer.
pub(super) fn stack(
    generation: &Generation,
) -> impl Service<
    Request<Incoming>,
    Response = Response<impl Body<Data = Bytes, Error = Infallible> + Send + use<>>,
    Error = Infallible,
    Future: Send,
> + Clone
+ Send
+ Sync
+ use<> {
    let metrics = generation.process.metrics.clone();
    let stages = generation.process.stages.clone();
    let Config { log, trace, limits, edge, listing, .. } = &generation.config;
    let max = limits.max_call_time;
    let stall_timeout = listing.stall_timeout;
    ServiceBuilder::new()
        // Outermost: a request that is no gRPC call must not be observed as one.
        .layer(ProtocolLayer)
        // Outside every layer that treats some methods differently.
        .layer(RouteLayer)
        // Outside every layer that can fail a call: a failure keeps its type until here, where it is counted, logged
        // and written to the caller.
        .layer(ObserveLayer { metrics, slow_call: log.slow_call, is_traced: trace.is_on() })
        // Outside every layer that reads what a caller sent, and inside Observe: a panic becomes a failure like others.
        .layer(CatchPanicLayer)
        // Outside Authenticate, which would otherwise hash and decode headers of any size.
        .layer(HeaderListLayer(edge.max_header_list_size))
        // Outside Limits, which count by principal, and Lifetime, which ends a call when its credential expires.
        .layer(AuthenticateLayer(Arc::clone(&generation.authenticator)))
        // Outside Lifetime: a refused call costs no timer, and a call counts until Lifetime has ended its answer.
        .layer(generation.limits.clone())
        // Outside Arrival: a deadline ends the wait for a slow message, too.
        .layer(LifetimeLayer { max, stages, stall_timeout })
        // Innermost: only the routes read the message whose arrival is bounded here.
        .layer(ArrivalLayer(edge.request_timeout))
        .service(generation.routes.clone())
}
