//! `traceparent`: <https://www.w3.org/TR/trace-context-2/#traceparent-header>.

use std::fmt;

use http::{HeaderMap, HeaderValue};
use serde::{Serialize, Serializer};

use super::TRACEPARENT;

/// Bytes of the header in version 00.
const LENGTH: usize = 55;

/// The version that no header has.
const FORBIDDEN_VERSION: u8 = 0xff;

/// The id of a trace: 16 bytes, not all of which are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

/// The id of a span: 8 bytes, not all of which are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId([u8; 8]);

/// The flags that have a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags(u8);

/// A span, as it tells those that it calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) flags: Flags,
}

impl TraceId {
    pub(super) fn random() -> Self {
        Self(random(u128::to_be_bytes))
    }

    /// Its bytes, the first one first.
    #[must_use]
    pub fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// The part that samplers look at.
    pub(super) fn low(self) -> u64 {
        let [.., a, b, c, d, e, f, g, h] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl SpanId {
    pub(super) fn random() -> Self {
        Self(random(u64::to_be_bytes))
    }

    /// Its bytes, the first one first.
    #[must_use]
    pub fn bytes(self) -> [u8; 8] {
        self.0
    }
}

impl Flags {
    const SAMPLED: u8 = 0b01;

    /// The trace's id is random.
    pub(super) const RANDOM: Self = Self(0b10);

    pub(super) fn is_sampled(self) -> bool {
        self.0 & Self::SAMPLED != 0
    }

    pub(super) fn with_sampled(self, is_sampled: bool) -> Self {
        Self(self.0 & !Self::SAMPLED | u8::from(is_sampled))
    }

    pub(super) fn bits(self) -> u8 {
        self.0
    }
}

impl Context {
    /// What a request brings; nothing where it is not there just once, or not valid.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value.as_bytes()),
            _ => None,
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (known, further) = text.split_at_checked(LENGTH)?;
        let mut parts = known.split(|byte| *byte == b'-');
        let [version] = bytes(parts.next()?)?;
        let trace_id = bytes(parts.next()?)?;
        let span_id = bytes(parts.next()?)?;
        let [flags] = bytes(parts.next()?)?;
        let may_go_on = match version {
            0 => further.is_empty(),
            FORBIDDEN_VERSION => false,
            // Later versions may have more behind it.
            _ => further.first().is_none_or(|byte| *byte == b'-'),
        };
        let is_valid = parts.next().is_none()
            && may_go_on
            && trace_id.iter().any(|byte| *byte != 0)
            && span_id.iter().any(|byte| *byte != 0);
        is_valid.then_some(Self {
            trace_id: TraceId(trace_id),
            span_id: SpanId(span_id),
            flags: Flags(flags & (Flags::SAMPLED | Flags::RANDOM.0)),
        })
    }

    /// The header, always of the version that we know.
    pub(super) fn header(self) -> HeaderValue {
        let mut text = [b'-'; LENGTH];
        let (version, rest) = text.split_at_mut(3);
        let (trace_id, rest) = rest.split_at_mut(33);
        let (span_id, flags) = rest.split_at_mut(17);
        put(version, &[0]);
        put(trace_id, &self.trace_id.0);
        put(span_id, &self.span_id.0);
        put(flags, &[self.flags.0]);
        // It is of digits, letters and hyphens.
        let header = HeaderValue::from_bytes(&text);
        let mut header = header.unwrap_or(HeaderValue::from_static(""));
        // It never comes again (RFC 7541 section 7.1.3).
        header.set_sensitive(true);
        header
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        with_text(&mut [0; 32], &self.0, |text| formatter.write_str(text))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        with_text(&mut [0; 16], &self.0, |text| formatter.write_str(text))
    }
}

impl Serialize for TraceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        with_text(&mut [0; 32], &self.0, |text| serializer.serialize_str(text))
    }
}

impl Serialize for SpanId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        with_text(&mut [0; 16], &self.0, |text| serializer.serialize_str(text))
    }
}

/// Takes bytes in hexadecimal, written into `text`, which has room for just so many.
fn with_text<T>(text: &mut [u8], bytes: &[u8], take: impl FnOnce(&str) -> T) -> T {
    put(text, bytes);
    take(std::str::from_utf8(text).unwrap_or_default())
}

/// Bytes that are not all zero.
fn random<T, const N: usize>(bytes: fn(T) -> [u8; N]) -> [u8; N]
where
    rand::distr::StandardUniform: rand::distr::Distribution<T>,
{
    loop {
        let bytes = bytes(rand::random());
        if bytes != [0; N] {
            return bytes;
        }
    }
}

/// Exactly so many bytes in hexadecimal, in lower case.
fn bytes<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

fn digit(letter: u8) -> Option<u8> {
    match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        _ => None,
    }
}

/// Writes bytes in hexadecimal.
fn put(text: &mut [u8], bytes: &[u8]) {
    let letter = |digit: u8| match digit {
        0..=9 => b'0' + digit,
        _ => b'a' + digit - 10,
    };
    let (pairs, _) = text.as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(bytes) {
        *pair = [letter(byte >> 4), letter(byte & 15)];
    }
}
