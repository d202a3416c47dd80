use std::time::SystemTime;

/// Returns the wall time, by which tokens and sessions expire.
#[expect(
    clippy::disallowed_methods,
    reason = "the simulator has a port of its own, because it shares no code with the gateway"
)]
pub(super) fn now() -> SystemTime {
    SystemTime::now()
}
