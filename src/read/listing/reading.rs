use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use super::{
    cursor::{Cursor, ResumePoint},
    pages::KeptPage,
    render::Rendered,
};
use crate::{read::Served, source::Sent};

/// The most bytes of records in a page of more than one. Most clients refuse messages over 4 MiB unless they are
/// configured not to, and would refuse the same page for ever; half a mebibyte is left for the head and the cursor.
pub(super) const MAX_BYTES: usize = 7 << 19;

/// The amount that a reader wants at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want {
    /// How many records.
    pub(super) limit: usize,
    /// How many upstream pages are to be fetched beyond those that are read.
    pub(super) ahead: usize,
}

/// The outcome of a look at a listing.
#[derive(Debug)]
pub(super) enum Look {
    /// All that was wanted, or all there is.
    Gathered(Gathered),
    /// A page is missing, and is to come.
    Missing(Reading),
}

/// Records one after the other, across upstream pages, while they are gathered.
#[derive(Debug)]
pub(super) struct Reading {
    /// How many records may still be added.
    pub(super) left: usize,
    pub(super) ahead: usize,
    /// The page and the record in it that come next.
    pub(super) index: usize,
    pub(super) offset: usize,
    /// The place that has to be found again in the first page.
    sought: Option<ResumePoint>,
    pub(super) records: VecDeque<Bytes>,
    /// How many bytes the records are.
    bytes: usize,
    /// The upstream page that they are just the records of.
    pub(super) whole: Option<Arc<KeptPage>>,
    /// The one of them that was sent first.
    pub(super) oldest: Option<Arc<KeptPage>>,
    pub(super) served: Served,
    /// How often fetches had failed at the first look: one more failure is this reader's.
    pub(super) failures: Option<u64>,
}

/// The records that a reader gathered, and where it goes on.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) records: VecDeque<Bytes>,
    pub(super) next: Next,
    /// When the oldest of the records were sent, and as which request; none where AWS gave no record at all, and none
    /// is known.
    pub(super) oldest: Option<(Sent, Option<Arc<str>>)>,
    pub(super) served: Served,
    /// Whether the listing has no records at all.
    pub(super) is_empty: bool,
    /// Whether the listing is known to have no more records.
    pub(super) is_at_end: bool,
}

/// The place at which a reader goes on.
#[derive(Debug)]
pub(super) enum Next {
    /// Behind an upstream page that stands ready as messages, all of whose records were gathered and no more.
    Rendered(Arc<Rendered>),
    /// Here, which is not written yet.
    At(Cursor),
}

impl Reading {
    /// Begins to gather records from this record of this page on, or where `sought` is found again in the page.
    pub(super) fn new(want: Want, index: usize, offset: usize, sought: Option<ResumePoint>) -> Self {
        Self {
            left: want.limit,
            ahead: want.ahead,
            index,
            offset,
            sought,
            records: VecDeque::new(),
            bytes: 0,
            whole: None,
            oldest: None,
            served: Served::Hit,
            failures: None,
        }
    }

    /// Adds the records of the page from the offset on, as many as may be added and as there is room for, one at least
    /// if there is none yet. Once a page is not used up no more may be added.
    pub(super) fn add(&mut self, page: &Arc<KeptPage>) {
        if let Some(point) = self.sought.take().filter(|point| point.pages_before == page.key.number) {
            self.offset = point.find_again(&page.records);
        }
        let len = page.records.len();
        let fitting = page.records.run_end(self.offset, self.left, MAX_BYTES.saturating_sub(self.bytes));
        let end = if self.records.is_empty() { fitting.max(self.offset + 1).min(len) } else { fitting };
        let added = end.saturating_sub(self.offset);
        if added > 0 {
            let records = page.records.slice(self.offset..end);
            self.bytes += records.len();
            self.records.push_back(records);
            let is_older = self.oldest.as_ref().is_none_or(|oldest| page.sent.at < oldest.sent.at);
            if is_older {
                self.oldest = Some(Arc::clone(page));
            }
        }
        self.whole = (added == len && self.records.len() == 1).then(|| Arc::clone(page));
        (self.index, self.offset) = if end == len { (self.index + 1, 0) } else { (self.index, end) };
        self.left = if end < len { 0 } else { self.left - added };
    }
}
