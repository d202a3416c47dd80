//! What gRPC is to the gateway, the same for every method: the method that a path names, how a request is read and an
//! answer written, and every reason for which a call fails.

mod call_notes;
mod failure;
mod reason;
mod request;
mod response;
mod route;
mod timeout;

pub(crate) use self::{
    call_notes::{CallNotes, Noted},
    reason::{Reason, code_name},
    request::{Messages, message},
    response::{PREFIX, answer, answers, message_head, response},
    route::Route,
    timeout::timeout,
};
pub use self::{
    failure::Failure,
    request::RequestBody,
    response::Body,
    route::{SERVICE_NAME, TARGET_SERVICE_NAME},
};
