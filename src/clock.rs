//! The port for wall time, by which certificates, tokens, callers and AWS go. Everything else goes by tokio's clock,
//! which tests can pause.

use std::time::SystemTime;

/// Returns the wall time.
#[expect(clippy::disallowed_methods, reason = "this is the port")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}
