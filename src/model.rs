//! What is asked and what is answered, as plain values: no I/O, no gRPC, no AWS.

mod freshness;
mod glob;
mod policy;
mod principal;
mod query;
mod record;
mod target;

pub use freshness::Freshness;
pub use policy::{Allow, Denied, Method, Policy};
pub use principal::Principal;
pub use query::{Filter, Filters, Query};
pub use record::{Records, RecordsBuilder};
pub use target::{InvalidTargetName, TargetName};
