use tonic::{Request, Response, Status};

use crate::{
    listing::{Listings, TargetState},
    model::TargetName,
    proto::{self, ListTargetsRequest, ListTargetsResponse, target_service_server::TargetService},
};

/// `ssm_gateway.v1.TargetService` over listings.
#[derive(Debug)]
pub struct Targets {
    listings: Listings,
    default_target: Option<TargetName>,
}

impl Targets {
    /// Builds the service.
    #[must_use]
    pub fn new(listings: Listings, default_target: Option<TargetName>) -> Self {
        Self { listings, default_target }
    }
}

#[tonic::async_trait]
impl TargetService for Targets {
    async fn list_targets(&self, _: Request<ListTargetsRequest>) -> Result<Response<ListTargetsResponse>, Status> {
        let targets = self.listings.targets().map(|target| proto::Target {
            name: target.name().to_string(),
            region: target.region().to_owned(),
            state: state(target.state()).into(),
            last_answered: target.last_answered().map(Into::into),
            is_default: self.default_target.as_ref() == Some(target.name()),
        });
        Ok(Response::new(ListTargetsResponse { targets: targets.collect() }))
    }
}

fn state(state: TargetState) -> proto::TargetState {
    match state {
        TargetState::Unused => proto::TargetState::Unused,
        TargetState::Ready => proto::TargetState::Ready,
        TargetState::Throttled => proto::TargetState::Throttled,
        TargetState::Unavailable => proto::TargetState::Unavailable,
        TargetState::Denied => proto::TargetState::Denied,
        TargetState::BreakerOpen => proto::TargetState::BreakerOpen,
    }
}
