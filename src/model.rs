//! What is asked and what is answered, as plain values: no I/O, no gRPC, no AWS.

mod freshness;
mod query;
mod record;
mod target;

pub use self::{
    freshness::Freshness,
    query::{Filter, Filters, Query, Scope},
    record::{Records, RecordsBuilder},
    target::{InvalidTargetName, TargetName},
};
