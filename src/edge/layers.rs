//! The layers of a call, a file each.

mod arrival;
mod authenticate;
mod call;
mod header_list;
mod lifetime;
mod limits;
mod observe;
mod panics;
mod protocol;
mod route;
mod trace_context;

pub use self::{
    arrival::ArrivalLayer,
    authenticate::AuthenticateLayer,
    header_list::HeaderListLayer,
    lifetime::LifetimeLayer,
    limits::{Config as LimitsConfig, LimitsLayer},
    observe::ObserveLayer,
    panics::CatchPanicLayer,
    protocol::ProtocolLayer,
    route::RouteLayer,
};
