use std::{fmt, ops::Range, sync::Arc};

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::encoding::{decode_varint, encode_varint};

/// The protobuf tag of `instance_information_list` in both answers: field 1, length-delimited.
const LIST_TAG: u8 = 0x0a;
/// The protobuf tag of `InstanceInformation.instance_id`: field 1, length-delimited.
const ID_TAG: u8 = 0x0a;

/// A run of records, each encoded as an element of an answer's `instance_information_list`, tag and length included:
/// any stretch of the bytes that begins and ends with a record may be put into any answer as it is. Cheap to clone.
#[derive(Clone, Default)]
pub struct Records {
    bytes: Bytes,
    /// Where each record ends, from the first one's start.
    ends: Arc<[usize]>,
}

impl Records {
    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns how many bytes of memory they take.
    pub fn size(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.ends)
    }

    /// Returns the bytes of the records in `range`, as far as there are such records.
    pub fn slice(&self, range: Range<usize>) -> Bytes {
        let end = self.start_of(range.end);
        self.bytes.slice(self.start_of(range.start).min(end)..end)
    }

    /// Returns where the longest run of records that begins at `start` ends, if it may have so many records and bytes.
    pub fn run_end(&self, start: usize, records: usize, bytes: usize) -> usize {
        let most = self.start_of(start).saturating_add(bytes);
        let fitting = self.ends.partition_point(|end| *end <= most);
        fitting.min(start.saturating_add(records))
    }

    /// Copies the records behind a head. Returns both as one piece of memory, and the records as they stand in it.
    #[must_use]
    pub fn behind(&self, head: &[u8]) -> (Bytes, Self) {
        let whole = Bytes::from([head, &self.bytes].concat());
        let records = Self { bytes: whole.slice(head.len()..), ends: Arc::clone(&self.ends) };
        (whole, records)
    }

    /// Returns the `InstanceId` of the record at `index`, if there is such a record and it has one.
    pub fn id(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let (message, _) = field(LIST_TAG, self.bytes.get(self.start_of(index)..end)?)?;
        let (id, _) = field(ID_TAG, message)?;
        std::str::from_utf8(id).ok()
    }

    fn start_of(&self, index: usize) -> usize {
        let before = index.min(self.ends.len()).checked_sub(1);
        before.and_then(|before| self.ends.get(before)).copied().unwrap_or(0)
    }
}

/// Shows number and size alone: records contain addresses and host names.
impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Records({} records, {} bytes)", self.ends.len(), self.bytes.len())
    }
}

/// As for [`Records`].
impl fmt::Debug for RecordsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordsBuilder({} records, {} bytes)", self.ends.len(), self.bytes.len())
    }
}

/// Collects encoded `InstanceInformation` messages into [`Records`].
#[derive(Default)]
pub struct RecordsBuilder {
    bytes: BytesMut,
    ends: Vec<usize>,
}

impl RecordsBuilder {
    /// Adds one record, given as the encoded message.
    pub fn push(&mut self, message: &[u8]) {
        self.bytes.put_u8(LIST_TAG);
        encode_varint(message.len() as u64, &mut self.bytes);
        self.bytes.put_slice(message);
        self.ends.push(self.bytes.len());
    }

    /// Hands out what was collected, in memory of just its size: records may be kept for long.
    #[must_use]
    pub fn build(self) -> Records {
        Records { bytes: Bytes::copy_from_slice(&self.bytes), ends: self.ends.into() }
    }
}

/// Splits the length-delimited field that `bytes` begin with into its content and what follows it.
fn field(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = bytes.strip_prefix(&[tag])?;
    let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    /// The shape of an answer and of a record as far as this module knows them.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Answer {
        #[prost(message, repeated, tag = "1")]
        list: Vec<Node>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Node {
        #[prost(string, optional, tag = "1")]
        id: Option<String>,
        #[prost(string, tag = "14")]
        rest: String,
    }

    proptest! {
        #[test]
        fn any_slice_is_the_encoded_list_of_its_records(
            nodes in prop::collection::vec((prop::option::of("[a-z]{0,20}"), "[a-z]{0,300}"), 0..12),
            from in 0usize..14,
            to in 0usize..14,
            head in "[a-z]{0,9}",
        ) {
            let nodes: Vec<Node> = nodes.into_iter().map(|(id, rest)| Node { id, rest }).collect();
            let mut builder = RecordsBuilder::default();
            for node in &nodes {
                builder.push(&node.encode_to_vec());
            }
            let (_, records) = builder.build().behind(b"another");
            let (whole, records) = records.behind(head.as_bytes());

            prop_assert_eq!(whole, [head.as_bytes(), &records.slice(0..nodes.len())].concat());
            prop_assert_eq!(records.len(), nodes.len());
            for (index, node) in nodes.iter().enumerate() {
                prop_assert_eq!(records.id(index), node.id.as_deref());
            }
            let list: Vec<Node> = nodes.into_iter().take(to).skip(from).collect();
            let list = Answer { list }.encode_to_vec();
            prop_assert_eq!(&*records.slice(from..to), &*list);
            if from < to && to <= records.len() {
                prop_assert_eq!(records.run_end(from, to - from, usize::MAX), to);
                prop_assert_eq!(records.run_end(from, usize::MAX, list.len()), to);
                prop_assert_eq!(records.run_end(from, usize::MAX, list.len() - 1), to - 1);
            }
        }
    }

    #[test]
    fn debug_output_shows_no_record() {
        let mut builder = RecordsBuilder::default();
        builder.push(&Node { id: None, rest: "10.0.0.1".into() }.encode_to_vec());
        assert_eq!(format!("{:?}", builder.build()), "Records(1 records, 12 bytes)");
    }
}
