//! Events put together into chunks: gzip'd JSON arrays of a bounded size.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

/// A chunk that is ready to be uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    pub(super) events: u64,
}

/// What became of the events of a chunk.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) chunks: Vec<Chunk>,
    /// Events that are too large for a chunk of their own.
    pub(super) too_large: u64,
}

/// Gathers events until they fill a chunk.
///
/// How well events will compress is only known afterwards, so it is guessed by
/// the chunk before; what turns out too large is cut in halves.
#[derive(Debug)]
pub(super) struct Chunks {
    limit: usize,
    events: Vec<Vec<u8>>,
    bytes: usize,
    /// Bytes before and after compression, last time.
    ratio: (usize, usize),
}

impl Chunks {
    /// `limit` is the size of a chunk in bytes, compressed.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            events: Vec::new(),
            bytes: 0,
            ratio: (1, 1),
        }
    }

    /// Adds an event's JSON. Gives what there is once that fills a chunk.
    pub(super) fn add(&mut self, event: Vec<u8>) -> io::Result<Option<Closed>> {
        self.bytes = self.bytes.saturating_add(event.len()).saturating_add(1);
        self.events.push(event);
        let (before, after) = self.ratio;
        let guess = self.bytes.saturating_mul(after) / before.max(1);
        // Nine tenths leave room for what compresses a little worse.
        let is_full = guess >= self.limit.saturating_mul(9) / 10;
        is_full.then(|| self.close()).transpose()
    }

    /// Makes chunks of all there is.
    pub(super) fn close(&mut self) -> io::Result<Closed> {
        let events = std::mem::take(&mut self.events);
        let before = std::mem::take(&mut self.bytes);
        let mut closed = Closed::default();
        if !events.is_empty() {
            let all = compress(&events)?;
            self.ratio = (before, all.len());
            self.cut(&events, all, &mut closed)?;
        }
        Ok(closed)
    }

    fn cut(&self, events: &[Vec<u8>], bytes: Vec<u8>, closed: &mut Closed) -> io::Result<()> {
        if bytes.len() <= self.limit {
            let events = u64::try_from(events.len()).unwrap_or(u64::MAX);
            closed.chunks.push(Chunk { bytes, events });
        } else if events.len() <= 1 {
            closed.too_large = closed.too_large.saturating_add(1);
        } else {
            let (first, second) = events.split_at(events.len() / 2);
            self.cut(first, compress(first)?, closed)?;
            self.cut(second, compress(second)?, closed)?;
        }
        Ok(())
    }
}

fn compress(events: &[Vec<u8>]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut separator = b"[";
    for event in events {
        encoder.write_all(separator)?;
        encoder.write_all(event)?;
        separator = b",";
    }
    encoder.write_all(b"]")?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use serde_json::Value as Json;

    use super::*;

    fn read(chunk: &Chunk) -> Vec<Json> {
        let mut text = String::new();
        GzDecoder::new(chunk.bytes.as_slice())
            .read_to_string(&mut text)
            .unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Text that does not compress, the same for the same number.
    fn noise(number: usize, length: usize) -> String {
        let mut state = u64::try_from(number).unwrap().wrapping_add(0x9e37_79b9);
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            char::from(b' ' + 2 + u8::try_from(state >> 58).unwrap())
        };
        (0..length)
            .map(|_| next())
            .filter(|letter| *letter != '\\')
            .collect()
    }

    /// Everything that comes of these texts, in order.
    fn chunks(limit: usize, texts: &[String]) -> Closed {
        let mut chunks = Chunks::new(limit);
        let mut all = Closed::default();
        let events = texts.iter().map(|text| serde_json::to_vec(text).unwrap());
        let closed: Vec<_> = events
            .filter_map(|event| chunks.add(event).unwrap())
            .collect();
        for mut closed in closed.into_iter().chain([chunks.close().unwrap()]) {
            all.chunks.append(&mut closed.chunks);
            all.too_large += closed.too_large;
        }
        all
    }

    #[test]
    fn every_event_is_in_one_chunk_in_order_and_no_chunk_is_too_large() {
        let even: Vec<_> = (0..500)
            .map(|number| format!("{number} {}", "a".repeat(300)))
            .collect();
        let noisy: Vec<_> = (0..200).map(|number| noise(number, 400)).collect();
        // Compresses well until it does not: the guess is far too good.
        let turning: Vec<_> = even.iter().chain(&noisy).cloned().collect();
        for (texts, limit) in [
            (&even, 1024),
            (&noisy, 2048),
            (&turning, 4096),
            (&turning, 600),
        ] {
            let all = chunks(limit, texts);
            assert_eq!(all.too_large, 0);
            assert!(all.chunks.iter().all(|chunk| chunk.bytes.len() <= limit));
            assert!(all.chunks.len() > 1, "{}", all.chunks.len());
            let counted: u64 = all.chunks.iter().map(|chunk| chunk.events).sum();
            assert_eq!(counted, u64::try_from(texts.len()).unwrap());
            let found: Vec<Json> = all.chunks.iter().flat_map(read).collect();
            let expected: Vec<Json> = texts.iter().map(|text| text.as_str().into()).collect();
            assert!(found == expected);
        }
    }

    #[test]
    fn chunks_are_well_filled_once_the_ratio_is_known() {
        let texts: Vec<_> = (0..5000)
            .map(|number| format!("{number} {}", noise(number, 40)))
            .collect();
        let chunks = chunks(4096, &texts).chunks;
        let well = chunks
            .iter()
            .filter(|chunk| chunk.bytes.len() > 4096 / 2)
            .count();
        assert!(well * 10 >= chunks.len() * 8, "{well} of {}", chunks.len());
    }

    #[test]
    fn an_event_that_is_too_large_alone_takes_no_other_with_it() {
        let texts = ["first".to_owned(), noise(1, 5000), "last".to_owned()];
        let all = chunks(1000, &texts);
        assert_eq!(all.too_large, 1);
        let found: Vec<Json> = all.chunks.iter().flat_map(read).collect();
        assert_eq!(found, ["first", "last"]);
    }

    #[test]
    fn without_events_there_is_no_chunk() {
        assert_eq!(Chunks::new(100).close().unwrap(), Closed::default());
    }
}
