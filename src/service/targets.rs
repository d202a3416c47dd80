use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{Serving, caller::Caller};
use crate::{
    listing::TargetState,
    model::Method,
    proto::{self, ListTargetsRequest, ListTargetsResponse, target_service_server::TargetService},
};

/// `ssm_gateway.v1.TargetService` over listings.
#[derive(Debug)]
pub struct Targets(Arc<Serving>);

impl Targets {
    /// Builds the service.
    #[must_use]
    pub fn new(serving: Arc<Serving>) -> Self {
        Self(serving)
    }
}

#[tonic::async_trait]
impl TargetService for Targets {
    async fn list_targets(
        &self,
        request: Request<ListTargetsRequest>,
    ) -> Result<Response<ListTargetsResponse>, Status> {
        let Serving { listings, default_target, policy, .. } = &*self.0;
        let caller = Caller::new(policy, request.extensions(), Method::ListTargets);
        caller.may_call()?;
        let targets = listings.targets().filter(|target| caller.sees(target.name())).map(|target| proto::Target {
            name: target.name().to_string(),
            region: target.region().to_owned(),
            state: state(target.state()).into(),
            last_answered: target.last_answered().map(Into::into),
            is_default: default_target.as_ref() == Some(target.name()),
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
