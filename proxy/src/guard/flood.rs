//! Counts the frames of an HTTP/2 connection that cost more than they bring.
//!
//! hyper has no hook for frames, and h2 bears most of these; so they are counted as bytes, between
//! TLS and hyper.

use std::num::NonZeroU32;

use prometheus_client::encoding::EncodeLabelValue;

use super::bucket;
use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, Walker,
};
use crate::limits::{Http2Limits, Limits};

/// Bytes of the client's connection preface (RFC 9113 section 3.4).
const PREFACE: usize = 24;

/// Microseconds in which a limit's worth of frames may come.
const SECOND: u64 = 1_000_000;

/// How many limits' worth of frames that answer ours may be kept for later.
const MAX_CREDIT: u32 = 10;

/// How much larger a compressed head may be than the headers in it before that ends the connection.
const BLOCK_FACTOR: u32 = 4;

const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Error codes of streams that were reset because of what the client did: `PROTOCOL_ERROR`,
/// `FLOW_CONTROL_ERROR`, `STREAM_CLOSED`, `FRAME_SIZE_ERROR`, `REFUSED_STREAM`.
const CLIENTS_FAULT: [u32; 5] = [0x1, 0x3, 0x5, 0x6, 0x7];

/// What there was too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue, thiserror::Error)]
#[expect(non_camel_case_types, reason = "the names are the labels' values")]
pub(crate) enum Flood {
    #[error("too many RST_STREAM frames")]
    reset,
    #[error("too many streams had to be reset")]
    local_reset,
    #[error("too many PING frames")]
    ping,
    #[error("too many SETTINGS frames")]
    settings,
    #[error("too many empty DATA frames")]
    empty_data,
    #[error("too many WINDOW_UPDATE frames")]
    window_update,
    #[error("too many frames that mean nothing here")]
    ignored,
    #[error("too many CONTINUATION frames")]
    continuation,
    #[error("a head that is much too large")]
    header_block,
    /// h2 has limits of its own, such as for small `DATA` frames and for resets before a request
    /// was looked at.
    #[error("too much for the HTTP/2 library")]
    other,
}

/// Watches both directions of one connection. Times are microseconds since it was opened.
#[derive(Debug)]
pub(crate) struct Http2Guard {
    inbound: Walker,
    outbound: Walker,
    counts: Counts,
    /// When the first bytes came of a preface or head that is not complete.
    head_since: Option<u64>,
}

#[derive(Debug)]
struct Counts {
    limits: Http2Limits,
    max_block_bytes: u32,
    resets: Bucket,
    local_resets: Bucket,
    pings: Bucket,
    settings: Bucket,
    empty_data: Bucket,
    window_updates: Bucket,
    ignored: Bucket,
    block: Block,
    /// The client's latest stream.
    latest_stream: u32,
}

/// How many frames of one kind may still come.
#[derive(Debug, Default)]
struct Bucket {
    full_at: u64,
    /// Frames that are answers to ours.
    credit: u32,
}

/// The head that comes in now, or came last.
#[derive(Debug)]
struct Block {
    bytes: u32,
    continuations: u32,
    /// Whether further frames of it must come.
    is_open: bool,
    /// Whether the frame that came last is of it.
    is_last: bool,
}

impl Flood {
    /// In the order of their declaration.
    pub(crate) const ALL: [Self; 10] = [
        Self::reset,
        Self::local_reset,
        Self::ping,
        Self::settings,
        Self::empty_data,
        Self::window_update,
        Self::ignored,
        Self::continuation,
        Self::header_block,
        Self::other,
    ];
}

impl Http2Guard {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            inbound: Walker::new(PREFACE),
            outbound: Walker::new(0),
            counts: Counts::new(limits),
            head_since: None,
        }
    }

    /// Bytes came from the client.
    pub(crate) fn received(&mut self, bytes: &[u8], now: u64) -> Result<(), Flood> {
        let Self {
            inbound, counts, ..
        } = self;
        let mut flood = None;
        inbound.walk(bytes, |frame| {
            flood = flood.or(counts.received(frame, now).err());
        });
        let is_open = counts.block.is_open || (counts.block.is_last && inbound.is_in_payload());
        self.head_since = is_open.then(|| self.head_since.unwrap_or(now));
        flood.map_or(Ok(()), Err)
    }

    /// Bytes went to the client.
    pub(crate) fn sent(&mut self, bytes: &[u8], now: u64) -> Result<(), Flood> {
        let Self {
            outbound, counts, ..
        } = self;
        let mut flood = None;
        outbound.walk(bytes, |frame| {
            flood = flood.or(counts.sent(frame, now).err());
        });
        flood.map_or(Ok(()), Err)
    }

    /// When the head began to come that is not complete yet.
    pub(crate) fn head_since(&self) -> Option<u64> {
        self.head_since
    }

    /// A `GOAWAY` frame that tells the client to calm down; `None` in the middle of another frame.
    pub(crate) fn goaway(&self) -> Option<[u8; 17]> {
        let [s0, s1, s2, s3] = self.counts.latest_stream.to_be_bytes();
        let [c0, c1, c2, c3] = ENHANCE_YOUR_CALM.to_be_bytes();
        let frame = [
            0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, s0, s1, s2, s3, c0, c1, c2, c3,
        ];
        self.outbound.is_between_frames().then_some(frame)
    }
}

impl Counts {
    fn new(limits: &Limits) -> Self {
        Self {
            limits: limits.http2,
            max_block_bytes: limits.max_header_bytes.saturating_mul(BLOCK_FACTOR),
            resets: Bucket::default(),
            local_resets: Bucket::default(),
            pings: Bucket::default(),
            settings: Bucket::default(),
            empty_data: Bucket::default(),
            window_updates: Bucket::default(),
            ignored: Bucket::default(),
            // A connection begins like a head: with a preface that has to come whole.
            block: Block {
                bytes: 0,
                continuations: 0,
                is_open: false,
                is_last: true,
            },
            latest_stream: 0,
        }
    }

    fn received(&mut self, frame: Frame, now: u64) -> Result<(), Flood> {
        let limits = &self.limits;
        self.block.is_last = matches!(frame.kind, HEADERS | CONTINUATION);
        match frame.kind {
            HEADERS => {
                self.latest_stream = self.latest_stream.max(frame.stream);
                self.block.bytes = 0;
                self.block.continuations = 0;
                self.in_block(frame)
            }
            CONTINUATION => {
                self.block.continuations += 1;
                if self.block.continuations > limits.max_continuations {
                    return Err(Flood::continuation);
                }
                self.in_block(frame)
            }
            DATA if !frame.is_empty_data() || frame.has(END_STREAM) => Ok(()),
            DATA => self
                .empty_data
                .take(limits.max_empty_data, now, Flood::empty_data),
            RST_STREAM => self.resets.take(limits.max_resets, now, Flood::reset),
            PING => self.pings.take(limits.max_pings, now, Flood::ping),
            SETTINGS => self
                .settings
                .take(limits.max_settings, now, Flood::settings),
            WINDOW_UPDATE => {
                let limit = limits.max_window_updates;
                self.window_updates.take(limit, now, Flood::window_update)
            }
            _ => self.ignored.take(limits.max_ignored, now, Flood::ignored),
        }
    }

    fn in_block(&mut self, frame: Frame) -> Result<(), Flood> {
        self.block.is_open = !frame.has(END_HEADERS);
        self.block.bytes = self.block.bytes.saturating_add(frame.length);
        if self.block.bytes > self.max_block_bytes {
            return Err(Flood::header_block);
        }
        Ok(())
    }

    fn sent(&mut self, frame: Frame, now: u64) -> Result<(), Flood> {
        let limits = &self.limits;
        match frame.kind {
            DATA => {
                self.window_updates.earn(2, limits.max_window_updates);
                self.pings.earn(1, limits.max_pings);
                // Some clients reset a stream again for each frame that was on its way.
                self.resets.earn(1, limits.max_resets);
            }
            HEADERS => {
                self.resets.earn(1, limits.max_resets);
                self.pings.earn(1, limits.max_pings);
            }
            RST_STREAM if CLIENTS_FAULT.contains(&frame.error_code()) => {
                let limit = limits.max_local_resets;
                return self.local_resets.take(limit, now, Flood::local_reset);
            }
            GOAWAY if frame.error_code() == ENHANCE_YOUR_CALM => return Err(Flood::other),
            _ => {}
        }
        Ok(())
    }
}

impl Bucket {
    fn take(&mut self, limit: NonZeroU32, now: u64, flood: Flood) -> Result<(), Flood> {
        if let Some(rest) = self.credit.checked_sub(1) {
            self.credit = rest;
            return Ok(());
        }
        let burst = u64::from(limit.get());
        self.full_at = bucket::take(self.full_at, now, SECOND / burst, burst).ok_or(flood)?;
        Ok(())
    }

    fn earn(&mut self, frames: u32, limit: NonZeroU32) {
        let most = limit.get().saturating_mul(MAX_CREDIT);
        self.credit = self.credit.saturating_add(frames).min(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn guard() -> Http2Guard {
        let mut guard = Http2Guard::new(&Limits::default());
        guard.received(&[b'x'; PREFACE], 0).unwrap();
        guard
    }

    #[test]
    fn each_kind_of_frame_has_its_limit() {
        for (flood, bytes, limit) in [
            (Flood::reset, frame(RST_STREAM, 0, &[0, 0, 0, 8]), 100),
            (Flood::ping, frame(PING, 0, &[0; 8]), 100),
            (Flood::settings, frame(SETTINGS, 0, &[]), 50),
            (Flood::empty_data, frame(DATA, 0, &[]), 100),
            (Flood::empty_data, frame(DATA, 8, &[2, 0, 0]), 100),
            (Flood::window_update, frame(WINDOW_UPDATE, 0, &[0; 4]), 500),
            (Flood::ignored, frame(2, 0, &[0; 5]), 100),
            (Flood::ignored, frame(0xbe, 0, &[]), 100),
        ] {
            let mut guard = guard();
            let tolerated = bytes.repeat(limit);
            assert_eq!(guard.received(&tolerated, 1), Ok(()), "{flood:?}");
            assert_eq!(guard.received(&bytes, 1), Err(flood));
            // As many in the next second, and no more.
            assert_eq!(guard.received(&tolerated, 1 + SECOND), Ok(()), "{flood:?}");
            assert_eq!(guard.received(&bytes, 1 + SECOND), Err(flood));
        }
    }

    #[test]
    fn frames_that_answer_ours_do_not_count() {
        let mut guard = guard();
        let data = frame(DATA, 0, b"data");
        guard.sent(&data.repeat(700), 1).unwrap();
        let updates = frame(WINDOW_UPDATE, 0, &[0; 4]).repeat(1900);
        assert_eq!(guard.received(&updates, 1), Ok(()));
        let pings = frame(PING, 0, &[0; 8]).repeat(800);
        assert_eq!(guard.received(&pings, 1), Ok(()));
        assert_eq!(guard.received(&pings, 1), Err(Flood::ping));

        let response = frame(HEADERS, END_HEADERS, b"x");
        guard.sent(&response.repeat(100_000), 1).unwrap();
        let reset = frame(RST_STREAM, 0, &[0, 0, 0, 8]);
        assert_eq!(guard.received(&reset.repeat(1100), 1), Ok(()));
        assert_eq!(guard.received(&reset, 1), Err(Flood::reset));
    }

    #[test]
    fn only_streams_that_were_reset_by_the_clients_fault_count() {
        let mut guard = guard();
        for code in [0, 2, 8] {
            let reset = frame(RST_STREAM, 0, &[0, 0, 0, code]).repeat(500);
            assert_eq!(guard.sent(&reset, 1), Ok(()));
        }
        let reset = frame(RST_STREAM, 0, &[0, 0, 0, 3]);
        assert_eq!(guard.sent(&reset.repeat(100), 1), Ok(()));
        assert_eq!(guard.sent(&reset, 1), Err(Flood::local_reset));
        let calm = frame(GOAWAY, 0, &[0, 0, 0, 1, 0, 0, 0, 11]);
        assert_eq!(guard.sent(&calm, 1), Err(Flood::other));
    }

    #[test]
    fn a_head_may_have_so_many_continuations_and_bytes() {
        let open = frame(HEADERS, 0, b"x");
        let more = frame(CONTINUATION, 0, b"x");
        let mut guard = guard();
        for _ in 0..100 {
            guard.received(&open, 1).unwrap();
            guard.received(&more.repeat(7), 1).unwrap();
            let last = frame(CONTINUATION, END_HEADERS, b"x");
            assert_eq!(guard.received(&last, 1), Ok(()));
        }
        guard.received(&open, 1).unwrap();
        assert_eq!(guard.received(&more.repeat(9), 1), Err(Flood::continuation));
        let mut guard = Http2Guard::new(&Limits {
            max_header_bytes: 100,
            ..Limits::default()
        });
        guard.received(&[b'x'; PREFACE], 0).unwrap();
        guard.received(&frame(HEADERS, 0, &[1; 200]), 1).unwrap();
        guard
            .received(&frame(CONTINUATION, 0, &[1; 200]), 1)
            .unwrap();
        assert_eq!(
            guard.received(&frame(CONTINUATION, 0, &[1]), 1),
            Err(Flood::header_block)
        );
    }

    #[test]
    fn a_head_is_open_from_its_first_frame_to_its_last_byte() {
        let mut guard = Http2Guard::new(&Limits::default());
        guard.received(b"PRI", 5).unwrap();
        assert_eq!(guard.head_since(), Some(5));
        guard.received(&[b'x'; PREFACE - 3], 6).unwrap();
        assert_eq!(guard.head_since(), None);
        guard.received(&frame(SETTINGS, 0, &[]), 7).unwrap();
        assert_eq!(guard.head_since(), None);
        guard.received(&frame(HEADERS, 0, b"head"), 8).unwrap();
        let last = frame(CONTINUATION, END_HEADERS, b"more");
        let (most, rest) = last.split_at(last.len() - 1);
        guard.received(most, 9).unwrap();
        assert_eq!(guard.head_since(), Some(8));
        guard.received(rest, 10).unwrap();
        assert_eq!(guard.head_since(), None);
        // A body may take its time.
        guard
            .received(&[0, 0, 9, DATA, 0, 0, 0, 0, 1, 0], 11)
            .unwrap();
        assert_eq!(guard.head_since(), None);
    }

    #[test]
    fn the_client_is_told_to_calm_down_between_two_frames_only() {
        let mut guard = guard();
        guard
            .received(&frame(HEADERS, END_HEADERS, b"x"), 1)
            .unwrap();
        let goaway = guard.goaway().unwrap();
        assert_eq!(goaway[..9], [0, 0, 8, GOAWAY, 0, 0, 0, 0, 0]);
        assert_eq!(goaway[9..], [0, 0, 0, 1, 0, 0, 0, 11]);
        guard.sent(&[0, 0], 1).unwrap();
        assert_eq!(guard.goaway(), None);
    }
}
