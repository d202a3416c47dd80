//! gRPC on the wire, the same for every method: what a path names, how requests are read and answers written, how a call is
//! refused.

mod call_notes;
mod refusal;
mod request;
mod response;
mod route;
mod timeout;

pub(crate) use self::{
    call_notes::{CallNotes, Noted},
    refusal::{GATEWAY, malformed, name, no_such_method, refusal, refusal_with},
    request::{Messages, message},
    response::{answer, answers},
    route::Route,
    timeout::timeout,
};
