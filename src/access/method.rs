use std::fmt;

use serde::{Deserialize, Serialize};

/// A method of the gateway's own services, as a rule of the policy names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Method {
    /// Returns one page of a target's nodes.
    DescribeInstanceInformation,
    /// Streams all pages of any number of targets.
    StreamInstanceInformation,
    /// Returns the targets that the caller may ask about.
    ListTargets,
}

impl Method {
    /// Returns the method's name in the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DescribeInstanceInformation => "DescribeInstanceInformation",
            Self::StreamInstanceInformation => "StreamInstanceInformation",
            Self::ListTargets => "ListTargets",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
