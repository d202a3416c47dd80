use super::config::Config;
use crate::{access::Policy, model::TargetName, read::Listings};

/// What calls are answered from, and by which rules.
#[derive(Debug)]
pub struct Serving {
    /// The listings, in front of all targets.
    pub listings: Listings,
    /// The target that is asked where none is named.
    pub default_target: Option<TargetName>,
    /// Who may ask what.
    pub policy: Policy,
    /// What requests may be.
    pub config: Config,
}
