use futures_util::{StreamExt as _, stream};
use http::{Request, Response};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};

use super::stage::{Stage, Stages};
use crate::grpc::{Body, Failure, Reason, RequestBody, answer, answers, message};

/// The largest request, which anybody may send: the name of a service.
const MAX_REQUEST: usize = 1024;

/// `grpc.health.v1.Health`, of services that are served until the gateway is told to stop. tonic-health's own ends a watch of a
/// service that is not known, which the protocol wants to stay open, and holds a drain by those that are.
#[derive(Debug)]
pub struct Health {
    /// The full names of the services; the server as a whole has the empty one.
    pub services: &'static [&'static str],
    /// Where the drain is.
    pub stages: Stages,
}

impl Health {
    fn status(&self, service: &str) -> ServingStatus {
        match self.services.contains(&service) {
            false => ServingStatus::ServiceUnknown,
            true if self.stages.has_reached(Stage::NotServing) => ServingStatus::NotServing,
            true => ServingStatus::Serving,
        }
    }

    /// Answers whether a service is served.
    ///
    /// # Errors
    /// `NOT_FOUND` if the gateway has no such service; and what a request that is not one message is refused with.
    pub async fn check(&self, request: Request<RequestBody>) -> Result<Response<Body>, Failure> {
        let HealthCheckRequest { service } = message(request, MAX_REQUEST).await?;
        match self.status(&service) {
            ServingStatus::ServiceUnknown => {
                Err(Failure::new(Reason::UnknownService, "the gateway has no such service"))
            }
            status => Ok(answer(told(status))),
        }
    }

    /// Answers whether a service is served, and again when that changes, until the gateway goes away.
    ///
    /// # Errors
    /// What a request that is not one message is refused with.
    pub async fn watch(&self, request: Request<RequestBody>) -> Result<Response<Body>, Failure> {
        let HealthCheckRequest { service } = message(request, MAX_REQUEST).await?;
        let (now, stages) = (self.status(&service), self.stages.clone());
        let first = stream::once(async move { Ok(told(now)) });
        let then = stages.clone();
        let changed = stream::once(async move {
            then.reached(Stage::NotServing).await;
            Ok(told(ServingStatus::NotServing))
        });
        let changed = changed.take(usize::from(now == ServingStatus::Serving));
        let end = stream::once(async move {
            stages.reached(Stage::GoingAway).await;
            Err(Failure::new(Reason::Draining, "the gateway is going away: watch another one"))
        });
        Ok(answers(first.chain(changed).chain(end)))
    }
}

fn told(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}
