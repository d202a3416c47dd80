use std::time::SystemTime;

use bytes::Bytes;

use super::{ListingError, cursor::Cursor, walk::Walk};
use crate::upstream::UpstreamPage;

/// Reads a listing onwards from a cursor, in pages of any size.
#[derive(Debug)]
pub struct Reader {
    walk: Walk,
    fingerprint: [u8; 16],
    cursor: Cursor,
    /// The upstream page that the cursor is in, once it is fetched.
    page: Option<UpstreamPage>,
}

/// A run of a listing's records.
#[derive(Debug, Clone)]
pub struct Page {
    /// The encoded records, in order; each piece holds whole records (see [`crate::model::Records`]).
    pub records: Vec<Bytes>,
    /// When the oldest fetch that it came from was sent.
    pub as_of: SystemTime,
}

impl Reader {
    pub(super) fn new(walk: Walk, fingerprint: [u8; 16], cursor: Cursor) -> Self {
        Self { walk, fingerprint, cursor, page: None }
    }

    /// Reads the next `limit` records, fewer only at the end, and fetches no further than that takes. After a failure
    /// the reader stands where it last fetched, so the records read in the failed call are lost to it: go on from the
    /// cursor of the page before.
    ///
    /// # Errors
    /// Any [`ListingError`].
    pub async fn read(&mut self, limit: usize) -> Result<Page, ListingError> {
        let mut records = Vec::new();
        let mut as_of = None;
        let mut left = limit;
        while left > 0 {
            let place = match &mut self.cursor {
                Cursor::At(place) => place,
                Cursor::End(ended) => {
                    as_of = as_of.or(Some(*ended));
                    break;
                }
            };
            let page = match &mut self.page {
                Some(page) => page,
                none => {
                    let page = self.walk.fetch(place).await?;
                    place.find_again(&page.records);
                    none.insert(page)
                }
            };
            as_of = Some(as_of.unwrap_or(page.as_of).min(page.as_of));
            let start = place.offset;
            let end = page.records.len().min(start + left);
            if start < end {
                records.push(page.records.slice(start..end));
                left -= end - start;
                place.offset = end;
                place.last_id = page.records.id(end - 1).map(str::to_owned);
            }
            if end == page.records.len() {
                self.cursor = place.behind(page);
                self.page = None;
            }
        }
        Ok(Page { records, as_of: as_of.unwrap_or_else(SystemTime::now) })
    }

    /// Where to go on, as text for callers; at the end too, where it leads to the end at once.
    pub fn cursor(&self) -> String {
        self.cursor.to_text(&self.fingerprint, SystemTime::now())
    }

    /// Whether the listing is known to have no more records.
    pub fn is_at_end(&self) -> bool {
        matches!(self.cursor, Cursor::End(_))
    }
}

#[cfg(test)]
mod tests;
