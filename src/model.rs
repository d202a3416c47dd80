//! What is asked and what is answered, as plain values: no I/O, no gRPC, no AWS.

mod freshness;
mod query;
mod record;
mod target;

pub use freshness::Freshness;
pub use query::{Filter, Filters, Query};
pub use record::{Records, RecordsBuilder};
pub use target::{InvalidTargetName, TargetName};
