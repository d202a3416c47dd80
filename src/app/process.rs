use std::{sync::atomic::AtomicBool, time::Instant};

use super::error::AppError;
use crate::{
    aws::CredentialsCache,
    edge::{self, Stages},
};

/// The state that lives as long as the process: no reload replaces it, and every generation refers to it.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) started: Instant,
    pub(super) stages: Stages,
    pub(super) metrics: edge::Metrics,
    pub(super) credentials: CredentialsCache,
    /// Latched once every required target has answered: a later outage or reload makes no replica unready.
    pub(super) is_ready: AtomicBool,
    /// Whether the newest configuration could not be used.
    pub(super) has_reload_failed: AtomicBool,
}

impl Process {
    pub(super) fn new() -> Result<Self, AppError> {
        Ok(Self {
            started: Instant::now(),
            stages: Stages::default(),
            metrics: edge::Metrics::new()?,
            credentials: CredentialsCache::default(),
            is_ready: AtomicBool::new(false),
            has_reload_failed: AtomicBool::new(false),
        })
    }
}
