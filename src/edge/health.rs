use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, stream};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server};

use super::{
    error_info::refusal,
    stage::{Stage, Stages},
};

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
            true if self.stages.is_at(Stage::NotServing) => ServingStatus::NotServing,
            true => ServingStatus::Serving,
        }
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match self.status(&request.get_ref().service) {
            ServingStatus::ServiceUnknown => {
                Err(refusal(Code::NotFound, "UNKNOWN_SERVICE", "the gateway has no such service", None))
            }
            status => Ok(Response::new(told(status))),
        }
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (now, stages) = (self.status(&request.get_ref().service), self.stages.clone());
        let first = stream::once(async move { Ok(told(now)) });
        let then = stages.clone();
        let changed = stream::once(async move {
            then.reached(Stage::NotServing).await;
            Ok(told(ServingStatus::NotServing))
        });
        let changed = changed.take(usize::from(now == ServingStatus::Serving));
        let end = stream::once(async move {
            stages.reached(Stage::GoingAway).await;
            Err(refusal(Code::Unavailable, "DRAINING", "the gateway is going away: watch another one", None))
        });
        Ok(Response::new(first.chain(changed).chain(end).boxed()))
    }
}

fn told(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}
