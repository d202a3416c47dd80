//! Rewrites blocks of headers (HPACK, RFC 7541) so that `:authority` is `localhost` whatever the peer sent, and no
//! field refers to the dynamic table any more. Strings stay as they are coded; of a Huffman code only the length is
//! needed.

use std::collections::VecDeque;

/// The largest dynamic table: HTTP/2's default, which the gateway keeps.
const MAX_TABLE: usize = 4096;
/// How many bytes each field counts beside its name and value, in the table and in the size of a list.
const FIELD: usize = 32;
/// How many fields the static table has. `:authority`, with an empty value, is the first of them.
const STATIC: usize = 61;
const AUTHORITY: usize = 1;
/// `:authority: localhost` as a literal that is not to be indexed.
const LOCALHOST: &[u8] = b"\x01\x09localhost";
/// `:authority`, plain and in the Huffman code.
const NAME: &[u8] = b":authority";
const NAME_HUFFMAN: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];

/// Rewrites the blocks that one side of a connection sends; holds that side's dynamic table.
#[derive(Debug)]
pub(super) struct Rewriter {
    table: VecDeque<Entry>,
    size: usize,
    max_size: usize,
}

#[derive(Debug, Clone)]
struct Entry {
    name: Name,
    value: Text,
}

#[derive(Debug, Clone)]
enum Name {
    /// The name of this field of the static table.
    Static(usize),
    Literal(Text),
}

/// A string, as the peer coded it.
#[derive(Debug, Clone)]
struct Text {
    is_huffman: bool,
    bytes: Vec<u8>,
    /// The length of the decoded string.
    len: usize,
}

/// A block that is not valid HPACK: the connection must end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Rewriter {
    pub(super) fn new() -> Self {
        Self { table: VecDeque::new(), size: 0, max_size: MAX_TABLE }
    }

    /// Returns a complete block, rewritten. Leaves out the fields beyond `max_size`, as HTTP/2 counts the size of a
    /// list, since few bytes of a block can stand for very many; keeps the first field beyond it, so that HTTP/2
    /// refuses the list as too large.
    ///
    /// # Errors
    /// [`Malformed`] if the block is not valid HPACK, or wants a dynamic table larger than [`MAX_TABLE`].
    pub(super) fn rewrite(&mut self, mut block: &[u8], max_size: usize) -> Result<Vec<u8>, Malformed> {
        let mut written = Vec::with_capacity(block.len() + LOCALHOST.len());
        let mut size = 0;
        let block = &mut block;
        while let Some(&first) = block.first() {
            let entry = if first & 0x80 != 0 {
                match integer(block, 7)? {
                    0 => return Err(Malformed),
                    AUTHORITY => Entry { name: Name::Static(AUTHORITY), value: Text::EMPTY },
                    index if index <= STATIC => {
                        write_integer(&mut written, 0x80, 7, index);
                        continue;
                    }
                    index => self.table.get(index - STATIC - 1).ok_or(Malformed)?.clone(),
                }
            } else if first & 0xe0 == 0x20 {
                self.resize(integer(block, 5)?)?;
                continue;
            } else {
                let is_indexed = first & 0x40 != 0;
                let name = match integer(block, if is_indexed { 6 } else { 4 })? {
                    0 => Name::Literal(Text::read(block)?),
                    index if index <= STATIC => Name::Static(index),
                    index => self.table.get(index - STATIC - 1).ok_or(Malformed)?.name.clone(),
                };
                let entry = Entry { name, value: Text::read(block)? };
                if is_indexed {
                    self.insert(entry.clone());
                }
                entry
            };
            if size <= max_size {
                size += entry.size();
                entry.write(&mut written);
            }
        }
        Ok(written)
    }

    fn resize(&mut self, max_size: usize) -> Result<(), Malformed> {
        if max_size > MAX_TABLE {
            return Err(Malformed);
        }
        self.max_size = max_size;
        self.evict(0);
        Ok(())
    }

    fn insert(&mut self, entry: Entry) {
        let size = entry.size();
        self.evict(size);
        if size <= self.max_size {
            self.size += size;
            self.table.push_front(entry);
        }
    }

    /// Evicts the oldest fields until this many bytes fit.
    fn evict(&mut self, room: usize) {
        while self.size + room > self.max_size
            && let Some(oldest) = self.table.pop_back()
        {
            self.size -= oldest.size();
        }
    }
}

impl Entry {
    fn size(&self) -> usize {
        let name = match &self.name {
            Name::Static(index) => static_name_len(*index),
            Name::Literal(name) => name.len,
        };
        name + self.value.len + FIELD
    }

    fn is_authority(&self) -> bool {
        match &self.name {
            Name::Static(index) => *index == AUTHORITY,
            Name::Literal(name) => name.bytes == if name.is_huffman { NAME_HUFFMAN } else { NAME },
        }
    }

    /// Writes the field as a literal that is not to be indexed.
    fn write(&self, to: &mut Vec<u8>) {
        if self.is_authority() {
            return to.extend_from_slice(LOCALHOST);
        }
        match &self.name {
            Name::Static(index) => write_integer(to, 0, 4, *index),
            Name::Literal(name) => {
                to.push(0);
                name.write(to);
            }
        }
        self.value.write(to);
    }
}

impl Text {
    const EMPTY: Self = Self { is_huffman: false, bytes: Vec::new(), len: 0 };

    fn read(block: &mut &[u8]) -> Result<Self, Malformed> {
        let is_huffman = block.first().ok_or(Malformed)? & 0x80 != 0;
        let coded = integer(block, 7)?;
        let (bytes, rest) = block.split_at_checked(coded).ok_or(Malformed)?;
        *block = rest;
        let len = if is_huffman { huffman_len(bytes) } else { coded };
        Ok(Self { is_huffman, bytes: bytes.to_vec(), len })
    }

    fn write(&self, to: &mut Vec<u8>) {
        write_integer(to, if self.is_huffman { 0x80 } else { 0 }, 7, self.bytes.len());
        to.extend_from_slice(&self.bytes);
    }
}

/// Reads an integer that begins in the low `bits` of the first byte.
fn integer(block: &mut &[u8], bits: u32) -> Result<usize, Malformed> {
    /// The most further bytes: 28 bits are more than any length or index here.
    const MOST: usize = 4;
    let mut next = || {
        let (first, rest) = block.split_first().ok_or(Malformed)?;
        *block = rest;
        Ok(usize::from(*first))
    };
    let most = (1 << bits) - 1;
    let mut value = next()? & most;
    if value < most {
        return Ok(value);
    }
    for index in 0..MOST {
        let byte = next()?;
        value += (byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

#[expect(clippy::cast_possible_truncation, reason = "each is masked, or less than 128")]
fn write_integer(to: &mut Vec<u8>, first: u8, bits: u32, mut value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        return to.push(first | value as u8);
    }
    to.push(first | most as u8);
    value -= most;
    while value >= 0x80 {
        to.push(0x80 | (value & 0x7f) as u8);
        value >>= 7;
    }
    to.push(value as u8);
}

/// Returns how many symbols a text in the Huffman code has. The code is canonical: the number of codes of each length
/// defines it. An incomplete symbol at the end is padding.
fn huffman_len(bytes: &[u8]) -> usize {
    /// How many codes there are of one bit, of two, and so on, up to thirty.
    const CODES: [u32; 30] =
        [0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4];
    let bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| u32::from(byte >> bit & 1)));
    // The code so far, the first code of its length, and that length.
    let mut symbols = 0;
    let mut code = 0u32;
    let mut first = 0u32;
    let mut length = 0;
    for bit in bits {
        (code, first) = (code << 1 | bit, first << 1);
        let codes = CODES.get(length).copied().unwrap_or_default();
        length += 1;
        if code - first < codes {
            symbols += 1;
            (code, first, length) = (0, 0, 0);
        } else {
            first += codes;
        }
    }
    symbols
}

/// Returns the length of a name in the static table (RFC 7541, appendix A).
fn static_name_len(index: usize) -> usize {
    const LENGTHS: [u8; STATIC] = [
        10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13, 12, 6,
        4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3, 16,
    ];
    index.checked_sub(1).and_then(|index| LENGTHS.get(index)).copied().map_or(0, usize::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 1 << 16;

    fn literal(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
        let text = |text: &[u8]| [&[u8::try_from(text.len()).unwrap()][..], text].concat();
        let name = if name.is_empty() { Vec::new() } else { text(name) };
        [vec![first], name, text(value)].concat()
    }

    #[test]
    fn an_authority_is_localhost_however_it_is_written_and_all_else_stays() {
        for authority in [
            vec![0x81],
            literal(0x41, b"", b"%2Ftmp%2Fgateway.sock"),
            literal(0x01, b"", b"/tmp/gateway.sock"),
            literal(0x40, NAME, b""),
            [&[0x10, 0x88], NAME_HUFFMAN, &[1, b'x']].concat(),
        ] {
            let block = [&[0x83, 0x86][..], &authority, &literal(0, b"te", b"trailers")].concat();
            let expected = [&[0x83, 0x86][..], LOCALHOST, &literal(0, b"te", b"trailers")].concat();
            assert_eq!(Rewriter::new().rewrite(&block, MAX).unwrap(), expected, "{authority:?}");
        }
    }

    #[test]
    fn what_is_in_the_table_is_found_there_until_it_is_evicted() {
        let mut rewriter = Rewriter::new();
        let first = literal(0x40, b"a", b"1");
        let second = literal(0x41, b"", b"");
        rewriter.rewrite(&[first, second].concat(), MAX).unwrap();
        let found = rewriter.rewrite(&[0xbe, 0xbf, 0x7f, 0, 1, b'2'], MAX).unwrap();
        assert_eq!(found, [LOCALHOST, &literal(0, b"a", b"1"), &literal(0, b"a", b"2")].concat());
        // The new one of `a` alone.
        assert_eq!(rewriter.rewrite(&[0x20 | 31, 34 - 31, 0xbe], MAX).unwrap(), literal(0, b"a", b"2"));
        assert_eq!(rewriter.rewrite(&[0xbf], MAX), Err(Malformed));
        assert_eq!(rewriter.rewrite(&[0x20, 0xbe], MAX), Err(Malformed));
    }

    #[test]
    fn few_bytes_that_stand_for_many_are_written_up_to_a_limit() {
        let mut rewriter = Rewriter::new();
        let value = vec![b'v'; 3000];
        let block = [&[0x40, 1, b'x', 0x7f, 0xb9, 0x16][..], &value, &[0xbe; 10_000]].concat();
        let written = rewriter.rewrite(&block, MAX).unwrap();
        assert!((MAX..MAX + 4000).contains(&written.len()), "{}", written.len());
    }

    #[test]
    fn a_text_in_the_huffman_code_is_as_long_as_it_is() {
        let example = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(huffman_len(&example), "www.example.com".len());
        assert_eq!(huffman_len(NAME_HUFFMAN), NAME.len());
        assert_eq!(huffman_len(&[0xff, 0xc7]), 1, "a code of thirteen bits");
        assert_eq!(huffman_len(&[]), 0);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..4)) {
            let mut rewriter = Rewriter::new();
            for block in blocks {
                let _malformed = rewriter.rewrite(&block, MAX);
                prop_assert!(rewriter.size <= MAX_TABLE);
                prop_assert_eq!(rewriter.size, rewriter.table.iter().map(Entry::size).sum::<usize>());
            }
        }

        #[test]
        fn integers_are_read_as_they_were_written(value in 0usize..1 << 20, bits in 4u32..8) {
            let mut written = Vec::new();
            write_integer(&mut written, 0, bits, value);
            prop_assert_eq!(integer(&mut &written[..], bits), Ok(value));
        }
    }
}
