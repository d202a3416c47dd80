//! How every listener of the program accepts connections: a failure of the system is waited out, not spun on.

use std::{io, time::Duration};

use tokio::time;
use tracing::warn;

/// How long to wait before the next try: out of file descriptors, the system fails at once each time.
const BACKOFF: Duration = Duration::from_millis(100);

/// Returns the next connection of a listener. Calls `next` again, after a pause, while the system cannot accept, and
/// logs the first of these failures under the listener's name.
///
/// Cancel safe if `next` is.
pub(crate) async fn accept<T, F>(listener: &'static str, next: impl Fn() -> F) -> T
where
    F: Future<Output = io::Result<T>>,
{
    let mut has_failed = false;
    loop {
        match next().await {
            Ok(connection) => return connection,
            Err(error) => {
                if !has_failed {
                    warn!(listener, %error, "connections cannot be accepted");
                }
                has_failed = true;
                time::sleep(BACKOFF).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future};

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_accepted_once_the_system_can_and_not_tried_for_without_a_pause() {
        let started = Instant::now();
        let tries = Cell::new(0);
        let third = || {
            tries.set(tries.get() + 1);
            future::ready(if tries.get() < 3 { Err(io::ErrorKind::Other.into()) } else { Ok(tries.get()) })
        };
        assert_eq!((accept("test", third).await, started.elapsed()), (3, 2 * BACKOFF));
    }
}
