use std::sync::{Arc, Mutex, PoisonError};

use crate::{access::Principal, model::TargetName};

/// The notes of a call: what its layers and its service know, and the edge reports when the call ends. Clones share the
/// notes; one of them is among the extensions of the request.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallNotes(Arc<Mutex<Noted>>);

/// What was noted of a call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Noted {
    /// The caller.
    pub(crate) principal: Option<Principal>,
    /// The target that the call is about, if it is about one.
    pub(crate) target: Option<TargetName>,
    /// How many targets the call is about.
    pub(crate) targets: usize,
    /// How many of them could not be reached, where others could.
    pub(crate) unreachable: usize,
    /// How the first page was obtained: `hit`, `miss`, `coalesced` or `stale`.
    pub(crate) provenance: Option<&'static str>,
    /// AWS's ID of the request that brought the first page.
    pub(crate) aws_request_id: Option<Arc<str>>,
}

impl Noted {
    /// Returns the name of the target that the call is about, if it is about one.
    pub(crate) fn target(&self) -> Option<&str> {
        self.target.as_ref().map(TargetName::as_str)
    }
}

impl CallNotes {
    /// Adds to the notes.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Noted)) {
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes the notes, and leaves none.
    pub(crate) fn take(&self) -> Noted {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
