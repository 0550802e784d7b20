//! Lets clients connect whose HTTP/2 `:authority` is a percent-encoded socket path.
//!
//! gRPC's C core (and so Python, Ruby, C++ and others) sends `tmp%2Fapi.sock` for
//! `unix:///tmp/api.sock`. The `h2` library takes no `%` in an authority and resets the stream before
//! any service sees it. Nobody reads the authority of a Unix socket, so this filter puts `-` for `%`
//! there, byte for byte, on the way in: lengths, and the client's HPACK table, stay as they are.
//!
//! It walks frames (RFC 9113 section 4) and the representations in header blocks (RFC 7541 section
//! 6) just far enough to know where the values of `:authority` are. Huffman-coded values are left
//! alone: that core does not send them.

const PREFACE: usize = 24;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const HUFFMAN: u8 = 0x80;
const AUTHORITY: &[u8] = b":authority";
/// Its place in HPACK's static table.
const AUTHORITY_INDEX: usize = 1;

/// The state of one connection's bytes, however they are cut into reads.
#[derive(Debug)]
pub(super) struct AuthorityFilter {
    preface_left: usize,
    header: FrameHeader,
    payload_left: usize,
    /// Whether the byte that tells the padding has come, where there is one.
    padding_known: bool,
    /// Bytes of a priority that still come before the header block.
    skip: usize,
    /// Bytes behind the header block.
    padding: usize,
    in_block: bool,
    block: Block,
}

#[derive(Debug, Default)]
struct FrameHeader {
    filled: usize,
    length: usize,
    kind: u8,
    flags: u8,
}

/// Where in a header block the next byte stands.
#[derive(Debug, Clone, Copy)]
enum Block {
    Representation,
    /// The continuation of an integer (RFC 7541 section 5.1).
    Integer {
        value: usize,
        shift: u32,
        then: Then,
    },
    NameLength,
    ValueLength {
        is_authority: bool,
    },
    /// A name: how many of its bytes are left, and how many were those of `:authority`.
    Name {
        left: usize,
        matched: Option<usize>,
    },
    Value {
        left: usize,
        is_authority: bool,
    },
}

/// What an integer tells.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// Nothing of interest: a new representation follows.
    Representation,
    /// The index of a name, whose value follows.
    ValueLength { is_authority: bool },
    /// The length of a name.
    Name { is_plain: bool },
    /// The length of a value.
    Value { is_authority: bool },
}

impl Default for AuthorityFilter {
    fn default() -> Self {
        Self {
            preface_left: PREFACE,
            header: FrameHeader::default(),
            payload_left: 0,
            padding_known: true,
            skip: 0,
            padding: 0,
            in_block: false,
            block: Block::Representation,
        }
    }
}

impl AuthorityFilter {
    /// Passes the next bytes.
    pub(super) fn pass(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.step(byte);
        }
    }

    fn step(&mut self, byte: &mut u8) {
        if self.preface_left > 0 {
            self.preface_left -= 1;
        } else if self.payload_left > 0 {
            self.payload(byte);
        } else if self.header.push(*byte) {
            self.begin_frame();
        }
    }

    fn begin_frame(&mut self) {
        let FrameHeader {
            length,
            kind,
            flags,
            ..
        } = std::mem::take(&mut self.header);
        self.payload_left = length;
        self.in_block = kind == HEADERS || kind == CONTINUATION;
        let is_headers = kind == HEADERS;
        self.padding = 0;
        self.padding_known = !(is_headers && flags & PADDED != 0);
        self.skip = if is_headers && flags & PRIORITY != 0 {
            5
        } else {
            0
        };
        if is_headers {
            self.block = Block::Representation;
        }
    }

    fn payload(&mut self, byte: &mut u8) {
        self.payload_left -= 1;
        if !self.in_block {
            return;
        }
        if !self.padding_known {
            self.padding_known = true;
            self.padding = usize::from(*byte);
        } else if self.skip > 0 {
            self.skip -= 1;
        } else if self.payload_left >= self.padding {
            self.block = self.block.next(byte);
        }
    }
}

impl FrameHeader {
    /// Takes one of nine bytes; says whether it was the last.
    fn push(&mut self, byte: u8) -> bool {
        match self.filled {
            0..=2 => self.length = self.length << 8 | usize::from(byte),
            3 => self.kind = byte,
            4 => self.flags = byte,
            _ => {}
        }
        self.filled += 1;
        self.filled == 9
    }
}

impl Block {
    fn next(self, byte: &mut u8) -> Self {
        match self {
            Self::Representation => match *byte {
                indexed @ 0x80.. => Self::integer(indexed, 0x7f, Then::Representation),
                literal @ 0x40..=0x7f => Self::literal(literal, 0x3f),
                size_update @ 0x20..=0x3f => Self::integer(size_update, 0x1f, Then::Representation),
                literal => Self::literal(literal, 0x0f),
            },
            Self::Integer { value, shift, then } => {
                let digit = usize::from(*byte & 0x7f).checked_shl(shift).unwrap_or(0);
                let value = value.saturating_add(digit);
                if *byte & 0x80 == 0 {
                    Self::after(then, value)
                } else {
                    Self::Integer {
                        value,
                        shift: shift.saturating_add(7),
                        then,
                    }
                }
            }
            Self::NameLength => {
                let is_plain = *byte & HUFFMAN == 0;
                Self::integer(*byte, 0x7f, Then::Name { is_plain })
            }
            Self::ValueLength { is_authority } => {
                let is_authority = is_authority && *byte & HUFFMAN == 0;
                Self::integer(*byte, 0x7f, Then::Value { is_authority })
            }
            Self::Name { left, matched } => {
                let matched = matched.filter(|&matched| AUTHORITY.get(matched) == Some(byte));
                let matched = matched.map(|matched| matched + 1);
                match left.saturating_sub(1) {
                    0 => Self::ValueLength {
                        is_authority: matched == Some(AUTHORITY.len()),
                    },
                    left => Self::Name { left, matched },
                }
            }
            Self::Value { left, is_authority } => {
                if is_authority && *byte == b'%' {
                    *byte = b'-';
                }
                match left.saturating_sub(1) {
                    0 => Self::Representation,
                    left => Self::Value { left, is_authority },
                }
            }
        }
    }

    /// The first byte of an integer, whose value may go on in the next.
    fn integer(byte: u8, prefix: u8, then: Then) -> Self {
        let value = usize::from(byte & prefix);
        if byte & prefix == prefix {
            Self::Integer {
                value,
                shift: 0,
                then,
            }
        } else {
            Self::after(then, value)
        }
    }

    /// A literal field: the index of its name, or 0 and then the name itself.
    fn literal(byte: u8, prefix: u8) -> Self {
        match usize::from(byte & prefix) {
            0 => Self::NameLength,
            index => {
                let is_authority = index == AUTHORITY_INDEX;
                Self::integer(byte, prefix, Then::ValueLength { is_authority })
            }
        }
    }

    fn after(then: Then, value: usize) -> Self {
        match then {
            Then::Representation => Self::Representation,
            Then::ValueLength { is_authority } => Self::ValueLength { is_authority },
            Then::Name { .. } if value == 0 => Self::ValueLength {
                is_authority: false,
            },
            Then::Name { is_plain } => Self::Name {
                left: value,
                matched: is_plain.then_some(0),
            },
            Then::Value { .. } if value == 0 => Self::Representation,
            Then::Value { is_authority } => Self::Value {
                left: value,
                is_authority,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn field(first: &[u8], value: &str) -> Vec<u8> {
        let mut length = vec![u8::try_from(value.len().min(127)).unwrap()];
        if let Some(mut rest) = value.len().checked_sub(127) {
            while rest >= 128 {
                length.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            length.push(u8::try_from(rest).unwrap());
        }
        [first, &length, value.as_bytes()].concat()
    }

    /// Passes a connection whole, and byte by byte: both must give `expected`.
    fn check(frames: &[Vec<u8>], expected: &[Vec<u8>]) {
        let connection = |frames: &[Vec<u8>]| [vec![0; PREFACE], frames.concat()].concat();
        let mut whole = connection(frames);
        AuthorityFilter::default().pass(&mut whole);
        assert_eq!(whole, connection(expected));
        let mut pieces = connection(frames);
        let mut filter = AuthorityFilter::default();
        pieces.chunks_mut(1).for_each(|piece| filter.pass(piece));
        assert_eq!(pieces, whole);
    }

    #[test]
    fn only_the_value_of_the_authority_is_changed() {
        let method = vec![0x83];
        let path = field(&[0x44], "/a%2Fb");
        let own = field(&[&[0x40][..], &field(&[], "x-%")].concat(), "%");
        let update = vec![0x3f, 0xe1, 0x1f];
        let block = |authority: &str| {
            [&update, &method, &path, &field(&[0x41], authority), &own]
                .map(Vec::as_slice)
                .concat()
        };
        check(
            &[
                frame(4, 0, b"%%%%%%"),
                frame(HEADERS, 4, &block("tmp%2Fa%2Fb")),
                frame(0, 1, b"A\x41%"),
            ],
            &[
                frame(4, 0, b"%%%%%%"),
                frame(HEADERS, 4, &block("tmp-2Fa-2Fb")),
                frame(0, 1, b"A\x41%"),
            ],
        );
    }

    #[test]
    fn every_form_of_literal_and_long_values_are_known() {
        let long = "%".repeat(300);
        let named = [&[0x40][..], &field(&[], ":authority")].concat();
        for first in [&[0x41][..], &[0x01], &[0x11], &named] {
            check(
                &[
                    frame(HEADERS, 4, &field(first, &long)),
                    frame(HEADERS, 4, &field(first, "%")),
                ],
                &[
                    frame(HEADERS, 4, &field(first, &"-".repeat(300))),
                    frame(HEADERS, 4, &field(first, "-")),
                ],
            );
        }
        let names = [":authorit", ":authority2", "x:authority", ""];
        let others = names.map(|name| [&[0x40][..], &field(&[], name)].concat());
        for first in others.iter().map(Vec::as_slice).chain([&[0x0f, 0x32][..]]) {
            let other = frame(HEADERS, 4, &field(first, "%"));
            check(std::slice::from_ref(&other), std::slice::from_ref(&other));
        }
    }

    #[test]
    fn padding_priority_and_continuations_are_walked_over() {
        let (before, after) = (field(&[0x41], "a%b"), field(&[0x41], "a-b"));
        let padded = |field: &[u8]| [&[2, 0, 0, 0, 0, 0][..], field, b"\x41%"].concat();
        let (first, rest) = before.split_at(3);
        let (first_after, rest_after) = after.split_at(3);
        check(
            &[
                frame(HEADERS, 4 | PADDED | PRIORITY, &padded(&before)),
                frame(HEADERS, 0, first),
                frame(CONTINUATION, 4, rest),
            ],
            &[
                frame(HEADERS, 4 | PADDED | PRIORITY, &padded(&after)),
                frame(HEADERS, 0, first_after),
                frame(CONTINUATION, 4, rest_after),
            ],
        );
    }
}
