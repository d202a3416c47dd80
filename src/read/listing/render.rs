//! Pages that stand in memory as messages, rendered once for all who take them whole.

use std::{
    any::TypeId,
    collections::VecDeque,
    fmt::{self, Debug},
    ops::Range,
    time::SystemTime,
};

use bytes::Bytes;

use crate::model::{Records, TargetName};

/// Writes what goes before the records of a page, for each message that a whole page may be sent in. A service
/// implements it: this module knows no messages.
pub trait Render: Debug + Send + Sync + 'static {
    /// Returns a head for each message. The message of the last one stands in one piece of memory, so it should be the
    /// one that is sent most.
    fn heads(&self, page: &WholePage<'_>) -> Vec<Head>;
}

/// A page that is just what one fetch brought.
#[derive(Debug, Clone, Copy)]
pub struct WholePage<'a> {
    /// The target that was asked.
    pub target: &'a TargetName,
    /// When it was asked.
    pub as_of: SystemTime,
    /// The text of the cursor behind the page.
    pub cursor: &'a str,
    /// Whether AWS said that no page follows.
    pub is_last: bool,
    /// The length of the encoded records.
    pub records_len: usize,
}

/// The bytes before the cursor and the records of a page in one message.
#[derive(Debug, Clone)]
pub struct Head {
    message: TypeId,
    bytes: Vec<u8>,
    has_cursor: bool,
}

impl Head {
    /// Returns the head of a message of type `M`, in which the text of the cursor comes next.
    #[must_use]
    pub fn before_cursor<M: 'static>(bytes: Vec<u8>) -> Self {
        Self { message: TypeId::of::<M>(), bytes, has_cursor: true }
    }

    /// Returns the head of a message of type `M` that has no cursor: the records come next.
    #[must_use]
    pub fn before_records<M: 'static>(bytes: Vec<u8>) -> Self {
        Self { message: TypeId::of::<M>(), bytes, has_cursor: false }
    }
}

/// A page in one piece of memory, from which each of its messages is taken: the heads, the text of the cursor, the
/// records.
pub struct Rendered {
    memory: Bytes,
    heads: Box<[Place]>,
    cursor: Range<usize>,
}

/// The place of a message in the memory of its page.
struct Place {
    message: TypeId,
    head: Range<usize>,
    /// Where the message goes on behind its head.
    rest: usize,
}

impl Rendered {
    /// Puts the records behind the heads and the cursor, and returns them as they stand there, too.
    #[must_use]
    pub fn new(heads: &[Head], cursor: &str, records: &Records) -> (Self, Records) {
        let mut front = Vec::new();
        let ranges: Vec<_> = heads.iter().map(|head| append(&mut front, &head.bytes)).collect();
        let cursor = append(&mut front, cursor.as_bytes());
        let rest = |head: &Head| if head.has_cursor { cursor.start } else { cursor.end };
        let place =
            |(head, range): (&Head, Range<usize>)| Place { message: head.message, head: range, rest: rest(head) };
        let heads = heads.iter().zip(ranges).map(place).collect();
        let (memory, records) = records.behind(&front);
        (Self { memory, heads, cursor }, records)
    }

    /// Returns the message of type `M` as it is sent, in a piece or two; none if there is no head for it.
    #[must_use]
    pub fn message<M: 'static>(&self) -> Option<VecDeque<Bytes>> {
        let Place { head, rest, .. } = self.heads.iter().find(|place| place.message == TypeId::of::<M>())?;
        Some(if head.end == *rest {
            [self.memory.slice(head.start..)].into()
        } else {
            [self.memory.slice(head.clone()), self.memory.slice(*rest..)].into()
        })
    }

    /// Returns the text of the cursor behind the page.
    #[must_use]
    pub fn cursor(&self) -> Bytes {
        self.memory.slice(self.cursor.clone())
    }

    /// Returns how many bytes of memory it takes beside the records.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>() + self.cursor.end + size_of_val(&*self.heads)
    }
}

fn append(front: &mut Vec<u8>, bytes: &[u8]) -> Range<usize> {
    let start = front.len();
    front.extend_from_slice(bytes);
    start..front.len()
}

/// Shows the size alone: records hold addresses and host names.
impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rendered({} bytes, {} messages)", self.memory.len(), self.heads.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RecordsBuilder;

    struct Whole;
    struct Cut;
    struct Last;

    #[test]
    fn each_message_is_its_head_and_what_follows_and_the_last_is_one_piece() {
        let mut records = RecordsBuilder::default();
        records.push(b"record");
        let records = records.build();
        let heads = [
            Head::before_cursor::<Cut>(b"cut:".to_vec()),
            Head::before_records::<Last>(b"last:".to_vec()),
            Head::before_cursor::<Whole>(b"whole:".to_vec()),
        ];
        let (rendered, kept) = Rendered::new(&heads, "cursor", &records);
        let bytes = records.slice(0..1);
        let text = |parts: VecDeque<Bytes>| parts.iter().map(|part| &**part).collect::<Vec<_>>().concat();
        let expected = |head: &str| [head.as_bytes(), &*bytes].concat();
        let pieces = |message: Option<VecDeque<Bytes>>| message.map(|parts| (parts.len(), text(parts)));
        assert_eq!(pieces(rendered.message::<Whole>()), Some((1, expected("whole:cursor"))));
        assert_eq!(pieces(rendered.message::<Cut>()), Some((2, expected("cut:cursor"))));
        assert_eq!(pieces(rendered.message::<Last>()), Some((2, expected("last:"))));
        assert_eq!(pieces(rendered.message::<()>()), None);
        assert_eq!((&*rendered.cursor(), kept.slice(0..1)), (&b"cursor"[..], bytes));
    }
}
