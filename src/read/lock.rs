use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, poisoned or not: nothing that a panic could leave half done is kept under these locks.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
