use std::sync::{Arc, Mutex, PoisonError};

use crate::{access::Principal, model::TargetName};

/// What those who serve a call note of it, for the edge to tell when it ends. Clones share it; one is among a request's
/// extensions.
#[derive(Debug, Clone, Default)]
pub struct CallNotes(Arc<Mutex<Noted>>);

/// What is noted of a call.
#[derive(Debug, Clone, Default)]
pub struct Noted {
    /// Who calls.
    pub principal: Option<Principal>,
    /// The target that is asked, if it is one.
    pub target: Option<TargetName>,
    /// How many are asked.
    pub targets: usize,
    /// How many of them could not be reached, where others could.
    pub unreachable: usize,
    /// How the first page came: `hit`, `miss`, `coalesced` or `stale`.
    pub provenance: Option<&'static str>,
    /// The ID under which AWS knows the answer that the first page is of.
    pub aws_request_id: Option<Arc<str>>,
}

impl CallNotes {
    /// Notes something.
    pub fn note(&self, note: impl FnOnce(&mut Noted)) {
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes out what is noted.
    #[must_use]
    pub fn take(&self) -> Noted {
        let mut noted = Noted::default();
        self.note(|notes| std::mem::swap(&mut noted, notes));
        noted
    }
}
