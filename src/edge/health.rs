use futures_util::{StreamExt as _, stream};
use http::{Request, Response};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};

use super::stage::{Stage, Stages};
use crate::grpc::{Body, Failure, Reason, RequestBody, answer, answers, message};

/// The largest request, in bytes. Anybody may send one, and it holds the name of a service.
const MAX_REQUEST: usize = 1024;

/// The service `grpc.health.v1.Health`. It reports services as serving until the gateway begins to stop. tonic-health's
/// own service ends the watch of an unknown service, which by the protocol stays open, and its watches hold up a drain.
#[derive(Debug)]
pub struct Health {
    /// The full names of the services. The empty name is the server as a whole.
    pub services: &'static [&'static str],
    /// The stage of the gateway.
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

    /// Reports whether a service is serving.
    ///
    /// # Errors
    /// `NOT_FOUND` if the gateway has no such service, and the failure of a request that is not one message.
    pub async fn check(&self, request: Request<RequestBody>) -> Result<Response<Body>, Failure> {
        let HealthCheckRequest { service } = message(request, MAX_REQUEST).await?;
        match self.status(&service) {
            ServingStatus::ServiceUnknown => {
                Err(Failure::new(Reason::UnknownService, "the gateway has no such service"))
            }
            status => Ok(answer(response(status))),
        }
    }

    /// Reports whether a service is serving, and again when that changes, until the gateway goes away.
    ///
    /// # Errors
    /// The failure of a request that is not one message.
    pub async fn watch(&self, request: Request<RequestBody>) -> Result<Response<Body>, Failure> {
        let HealthCheckRequest { service } = message(request, MAX_REQUEST).await?;
        let now = self.status(&service);
        let stages = self.stages.clone();
        let first = stream::once(async move { Ok(response(now)) });
        let then = stages.clone();
        let changed = stream::once(async move {
            then.reached(Stage::NotServing).await;
            Ok(response(ServingStatus::NotServing))
        });
        let changed = changed.take(usize::from(now == ServingStatus::Serving));
        let end = stream::once(async move {
            stages.reached(Stage::GoingAway).await;
            Err(Failure::new(Reason::Draining, "the gateway is going away: watch another one"))
        });
        Ok(answers(first.chain(changed).chain(end)))
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}
