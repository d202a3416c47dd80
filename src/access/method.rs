use std::fmt;

use serde::{Deserialize, Serialize};

/// A method of the gateway's own services, as a rule of the policy names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// Returns one page of a target's nodes.
    DescribeInstanceInformation,
    /// Streams all pages of any number of targets.
    StreamInstanceInformation,
    /// Returns the targets that the caller may ask about.
    ListTargets,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
