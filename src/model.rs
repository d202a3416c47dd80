//! What is asked and what is answered, as plain values: no I/O, no gRPC, no AWS.

mod causes;
mod file_name;
mod freshness;
mod glob;
mod notes;
mod policy;
mod principal;
mod query;
mod record;
mod shown;
mod target;
mod token_hash;

pub use causes::Causes;
pub use file_name::FileName;
pub use freshness::Freshness;
pub use notes::{CallNotes, Noted};
pub use policy::{Allow, Denied, Method, Policy};
pub use principal::Principal;
pub use query::{Filter, Filters, Query, Scope};
pub use record::{Records, RecordsBuilder};
pub use shown::Shown;
pub use target::{InvalidTargetName, TargetName};
pub use token_hash::{InvalidTokenHash, TokenHash};
