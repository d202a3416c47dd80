use std::{collections::VecDeque, sync::Arc};

use super::{cursor::ResumePoint, render::Rendered};
use crate::{
    model::Records,
    source::{Origin, Sent},
};

/// The identity of an upstream page within its walk.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct PageKey {
    /// The token that leads to it; none leads to the first.
    pub(super) token: Option<Arc<str>>,
    /// How many pages lie before it, empty ones included.
    pub(super) number: u32,
}

/// An upstream page with records in it.
#[derive(Debug)]
pub(super) struct KeptPage {
    pub(super) key: PageKey,
    pub(super) records: Records,
    /// The page as the messages that it is sent in, whole and with the cursor to what follows.
    pub(super) rendered: Arc<Rendered>,
    /// Whether no page follows.
    pub(super) is_last: bool,
    pub(super) sent: Sent,
    pub(super) origin: Origin,
}

/// The pages of a listing, counted from its first, of which the front may not be kept.
#[derive(Debug, Default)]
pub(super) struct Pages {
    kept: VecDeque<Arc<KeptPage>>,
    /// How many pages before these are not kept any more.
    trimmed: usize,
    /// Whether the listing outgrew its cap, and keeps only what its readers still need.
    is_windowed: bool,
}

impl Pages {
    /// Returns how many pages there were so far.
    pub(super) fn len(&self) -> usize {
        self.trimmed + self.kept.len()
    }

    /// Returns whether no page is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Returns whether all pages are kept.
    pub(super) fn is_whole(&self) -> bool {
        self.trimmed == 0
    }

    pub(super) fn is_windowed(&self) -> bool {
        self.is_windowed
    }

    /// Returns whether the page at this index was kept once, and is not any more.
    pub(super) fn is_trimmed(&self, index: usize) -> bool {
        index < self.trimmed
    }

    /// Returns the page at this index, if it is kept.
    pub(super) fn get(&self, index: usize) -> Option<&Arc<KeptPage>> {
        self.kept.get(index.checked_sub(self.trimmed)?)
    }

    /// Returns the last page, if it is kept.
    pub(super) fn last(&self) -> Option<&Arc<KeptPage>> {
        self.kept.back()
    }

    /// Finds the page, and the record in it, that `point` leads to; none if that page is no longer kept. `next` is the
    /// page that follows all of these.
    pub(super) fn find(&self, point: &ResumePoint, next: &PageKey) -> Option<(usize, usize)> {
        let index = self.kept.partition_point(|page| page.key.number < point.pages_before);
        let page = self.kept.get(index);
        let found = page.map_or(next.number, |page| page.key.number);
        if found == point.pages_before {
            let records = page.map_or(0, |page| page.records.len());
            return Some((self.trimmed + index, point.offset.min(records)));
        }
        // The pages between were empty, unless they are gone.
        let is_gone = index == 0 && self.trimmed > 0;
        (point.pages_before < found && !is_gone).then_some((self.trimmed + index, 0))
    }

    pub(super) fn push(&mut self, page: KeptPage) {
        self.kept.push_back(Arc::new(page));
    }

    /// Has only those pages kept from now on that readers still need.
    pub(super) fn make_window(&mut self) {
        self.is_windowed = true;
    }

    /// Drops the pages before this index, and returns how many bytes they took.
    pub(super) fn drop_before(&mut self, index: usize) -> usize {
        let mut bytes = 0;
        while self.trimmed < index
            && let Some(page) = self.kept.pop_front()
        {
            bytes += page.size();
            self.trimmed += 1;
        }
        bytes
    }

    /// Forgets the pages that are kept.
    pub(super) fn clear(&mut self) {
        self.kept = VecDeque::new();
    }
}

impl PageKey {
    /// Returns how many bytes of memory it takes beside itself.
    pub(super) fn size(&self) -> usize {
        self.token.as_deref().map_or(0, str::len)
    }
}

impl KeptPage {
    /// Returns how many bytes of memory it takes, roughly, the allocations around it included.
    pub(super) fn size(&self) -> usize {
        const AROUND: usize = 128;
        let parts = self.key.size() + self.records.size() + self.rendered.size() + self.origin.size();
        size_of::<Self>() + parts + AROUND
    }
}
