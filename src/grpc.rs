//! What gRPC is to the gateway, the same for every method: the method that a path names, how a request is read and an answer
//! written, and every reason for which a call fails.

mod failure;
mod reason;
mod request;
mod response;
mod route;
mod timeout;

pub use self::{failure::Failure, request::RequestBody, response::Body};
pub(crate) use self::{
    reason::{Reason, code_name},
    request::{Messages, message},
    response::{PREFIX, answer, answers, response},
    route::Route,
    timeout::timeout,
};
