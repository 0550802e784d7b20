//! Walks the frames of one direction of an HTTP/2 connection, without keeping any of it.

/// Bytes of a frame's head (RFC 9113 section 4.1).
const HEAD: usize = 9;
/// Bytes of a payload that are looked at, at most: those of a `GOAWAY`.
const PEEK: usize = 8;

pub(super) const DATA: u8 = 0x0;
pub(super) const HEADERS: u8 = 0x1;
pub(super) const RST_STREAM: u8 = 0x3;
pub(super) const SETTINGS: u8 = 0x4;
pub(super) const PING: u8 = 0x6;
pub(super) const GOAWAY: u8 = 0x7;
pub(super) const WINDOW_UPDATE: u8 = 0x8;
pub(super) const CONTINUATION: u8 = 0x9;

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

/// The head of a frame, and the beginning of some payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    /// Bytes of the payload.
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// Of `DATA` with padding its length; of `RST_STREAM` and `GOAWAY` the first eight bytes;
    /// zeros where there is no such payload.
    payload: [u8; PEEK],
}

/// Where one direction of a connection stands.
#[derive(Debug)]
pub(super) struct Walker {
    /// Bytes of a preface or a payload that are to be passed over.
    skip: usize,
    /// What has come of the frame's head, and of the payload's beginning.
    begun: [u8; HEAD + PEEK],
    filled: usize,
    /// How much of it is wanted.
    wanted: usize,
}

impl Frame {
    fn of(begun: [u8; HEAD + PEEK]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3, payload @ ..] = begun;
        Self {
            length: u32::from_be_bytes([0, l0, l1, l2]),
            kind,
            flags,
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
            payload,
        }
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether it is `DATA` in which there is no data.
    pub(super) fn is_empty_data(&self) -> bool {
        let [padding, ..] = self.payload;
        let padding = if self.has(PADDED) {
            1 + u32::from(padding)
        } else {
            0
        };
        self.kind == DATA && self.length <= padding
    }

    /// The error code of `RST_STREAM` or `GOAWAY` (RFC 9113 section 7).
    pub(super) fn error_code(&self) -> u32 {
        let [a0, a1, a2, a3, b0, b1, b2, b3] = self.payload;
        match self.kind {
            GOAWAY => u32::from_be_bytes([b0, b1, b2, b3]),
            _ => u32::from_be_bytes([a0, a1, a2, a3]),
        }
    }

    /// How much of the payload is looked at.
    fn peeked(&self) -> usize {
        let peeked = match self.kind {
            DATA if self.has(PADDED) => 1,
            RST_STREAM => 4,
            GOAWAY => PEEK,
            _ => 0,
        };
        peeked.min(self.payload_length())
    }

    fn payload_length(&self) -> usize {
        usize::try_from(self.length).unwrap_or(usize::MAX)
    }
}

impl Walker {
    /// At the start of a direction that begins with a preface of this many bytes.
    pub(super) fn new(preface: usize) -> Self {
        Self {
            skip: preface,
            begun: [0; HEAD + PEEK],
            filled: 0,
            wanted: HEAD,
        }
    }

    /// Walks over the next bytes, and shows each frame as soon as its head is there.
    pub(super) fn walk(&mut self, mut bytes: &[u8], mut show: impl FnMut(Frame)) {
        loop {
            bytes = self.pass(bytes);
            if bytes.is_empty() {
                return;
            }
            bytes = self.fill(bytes);
            if self.filled < self.wanted {
                return;
            }
            let frame = Frame::of(self.begun);
            if self.wanted == HEAD && frame.peeked() > 0 {
                self.wanted = HEAD + frame.peeked();
                continue;
            }
            self.skip = frame.payload_length() - (self.wanted - HEAD);
            self.begun = [0; HEAD + PEEK];
            self.filled = 0;
            self.wanted = HEAD;
            show(frame);
        }
    }

    /// Whether the next byte begins a frame.
    pub(super) fn is_between_frames(&self) -> bool {
        self.skip == 0 && self.filled == 0
    }

    /// Whether there is more to come of a preface or a payload.
    pub(super) fn is_in_payload(&self) -> bool {
        self.skip > 0
    }

    fn pass<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let passed = self.skip.min(bytes.len());
        self.skip -= passed;
        bytes.get(passed..).unwrap_or_default()
    }

    fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let taken = (self.wanted - self.filled).min(bytes.len());
        let (beginning, rest) = bytes.split_at(taken);
        let place = self.begun.iter_mut().skip(self.filled);
        for (place, byte) in place.zip(beginning) {
            *place = *byte;
        }
        self.filled += taken;
        rest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn walked(preface: usize, bytes: &[u8], step: usize) -> Vec<Frame> {
        let mut walker = Walker::new(preface);
        let mut frames = Vec::new();
        for chunk in bytes.chunks(step) {
            walker.walk(chunk, |frame| frames.push(frame));
        }
        assert!(walker.is_between_frames());
        frames
    }

    #[test]
    fn frames_are_the_same_wherever_the_bytes_are_split() {
        let bytes = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(SETTINGS, 0, 0, &[0; 18]),
            frame(SETTINGS, 1, 0, &[]),
            frame(HEADERS, END_HEADERS, 1, &[7; 300]),
            frame(DATA, PADDED, 1, &[3, 0, 0, 0]),
            frame(DATA, PADDED, 1, &[3, 1, 0, 0, 0]),
            frame(DATA, 0, 1, &[]),
            frame(RST_STREAM, 0, 0x8000_0001, &[0, 0, 0, 8]),
            frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 11, b'w', b'h', b'y']),
            frame(PING, 0, 0, &[9; 8]),
        ]
        .concat();
        let whole = walked(24, &bytes, bytes.len());
        let seen: Vec<_> = whole
            .iter()
            .map(|frame| (frame.kind, frame.length, frame.stream))
            .collect();
        assert_eq!(
            seen,
            [
                (SETTINGS, 18, 0),
                (SETTINGS, 0, 0),
                (HEADERS, 300, 1),
                (DATA, 4, 1),
                (DATA, 5, 1),
                (DATA, 0, 1),
                (RST_STREAM, 4, 1),
                (GOAWAY, 11, 0),
                (PING, 8, 0),
            ]
        );
        let empty: Vec<_> = whole.iter().map(Frame::is_empty_data).collect();
        assert_eq!(
            empty,
            [false, false, false, true, false, true, false, false, false]
        );
        assert_eq!(whole[6].error_code(), 8);
        assert_eq!(whole[7].error_code(), 11);
        for step in 1..40 {
            assert_eq!(walked(24, &bytes, step), whole, "{step}");
        }
    }

    #[test]
    fn a_payload_that_is_too_short_for_its_kind_is_passed_over() {
        let bytes = [
            frame(RST_STREAM, 0, 1, &[1]),
            frame(DATA, PADDED, 1, &[]),
            frame(GOAWAY, 0, 0, &[0, 0, 0]),
            frame(PING, 0, 0, &[]),
        ]
        .concat();
        let kinds: Vec<_> = walked(0, &bytes, 5)
            .iter()
            .map(|frame| frame.kind)
            .collect();
        assert_eq!(kinds, [RST_STREAM, DATA, GOAWAY, PING]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_and_their_splits_make_no_difference(
            chunks: Vec<Vec<u8>>,
            // Mostly short frames: what is longer than all that comes is one frame.
            lengths: Vec<u8>,
        ) {
            let mut bytes = Vec::new();
            for (chunk, length) in chunks.iter().zip(lengths) {
                bytes.extend([0, 0, length]);
                bytes.extend(chunk);
            }
            let mut whole = Vec::new();
            Walker::new(0).walk(&bytes, |frame| whole.push(frame));
            let mut walker = Walker::new(0);
            let mut parts = Vec::new();
            let mut rest = bytes.as_slice();
            for chunk in &chunks {
                let (part, after) = rest.split_at(chunk.len().min(rest.len()));
                walker.walk(part, |frame| parts.push(frame));
                rest = after;
            }
            walker.walk(rest, |frame| parts.push(frame));
            prop_assert_eq!(whole, parts);
        }
    }
}
