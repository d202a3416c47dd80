use http::Response;

use super::{call_context::CallContext, serving::Serving};
use crate::{
    grpc::{self, Body},
    proto::{self, ListTargetsRequest, ListTargetsResponse},
    read::TargetState,
};

/// Answers the targets that the caller may ask about, in the order of their names.
pub(super) fn list_targets(
    serving: &Serving,
    call: &CallContext<'_>,
    ListTargetsRequest {}: ListTargetsRequest,
) -> Response<Body> {
    let Serving { listings, default_target, .. } = serving;
    let targets = listings.targets().filter(|target| call.sees(target.name())).map(|target| proto::Target {
        name: target.name().to_string(),
        region: target.region().to_owned(),
        state: state(target.state()).into(),
        last_answered: target.last_answered().map(Into::into),
        is_default: default_target.as_ref() == Some(target.name()),
    });
    grpc::answer(ListTargetsResponse { targets: targets.collect() })
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
