use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// The bytes of a listing within the bytes of all.
#[derive(Debug)]
pub(super) struct Charge {
    total: Arc<AtomicUsize>,
    bytes: usize,
}

impl Charge {
    pub(super) fn new(total: &Arc<AtomicUsize>) -> Self {
        Self { total: Arc::clone(total), bytes: 0 }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.total.fetch_add(bytes, Relaxed);
    }

    pub(super) fn subtract(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.total.fetch_sub(bytes, Relaxed);
    }

    pub(super) fn clear(&mut self) {
        self.subtract(self.bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.clear();
    }
}
