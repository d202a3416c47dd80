use serde::{Deserialize, Serialize};

use super::compress::Encoding;
use crate::setting::{InvalidSetting, positive};

/// What requests and answers may be; the `[service]` table of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The largest request, in bytes, before and after decompression.
    pub max_request_size: usize,
    /// The most filters in one request.
    pub max_filters: usize,
    /// What answers may be compressed with, the best first; none, they are not.
    pub compression: Vec<Encoding>,
    /// The size of the smallest answer that is compressed, in bytes.
    pub compress_from: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_request_size: 1 << 20, max_filters: 100, compression: Vec::new(), compress_from: 4096 }
    }
}

impl Config {
    /// Checks every setting.
    ///
    /// # Errors
    /// The first setting that every call would be refused by.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let Self { max_request_size, max_filters: _, compression: _, compress_from: _ } = self;
        positive("max_request_size", *max_request_size)
    }
}
