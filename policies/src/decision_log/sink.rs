//! Where events go.

use std::io::{self, Write};
use std::time::Instant;

use serde::Serialize;

use super::chunk::{Chunks, Closed};
use super::event::Event;
use super::file::RotatingFile;
use super::metrics::DecisionLogMetrics;
use super::upload::{UploadOptions, Uploader};

/// What OPA calls such a line among others.
const TYPE: &str = "openpolicyagent.org/decision_logs";

/// One place for events.
pub(super) enum Sink {
    /// Lines among others, each with its type.
    Stream(Box<dyn Write + Send>),
    File(RotatingFile),
    Upload(Uploading),
}

/// Chunks in the making, and who takes them.
pub(super) struct Uploading {
    pub(super) chunks: Chunks,
    pub(super) uploader: Uploader,
    pub(super) options: UploadOptions,
    /// When what has gathered is to go.
    pub(super) due: Option<Instant>,
}

/// A line among others.
#[derive(Serialize)]
struct Line<'e, 'l> {
    r#type: &'static str,
    #[serde(flatten)]
    event: &'e Event<'l>,
}

impl Sink {
    /// Takes an event. What it cannot take is lost.
    pub(super) fn write(
        &mut self,
        event: &Event<'_>,
        metrics: &DecisionLogMetrics,
    ) -> io::Result<()> {
        match self {
            Self::Stream(stream) => {
                let mut line = serde_json::to_vec(&Line {
                    r#type: TYPE,
                    event,
                })?;
                line.push(b'\n');
                stream.write_all(&line).and_then(|()| stream.flush())?;
                metrics.events.inc();
            }
            Self::File(file) => {
                let mut line = serde_json::to_vec(event)?;
                line.push(b'\n');
                file.write(&line)?;
                metrics.events.inc();
            }
            Self::Upload(uploading) => {
                let closed = uploading.chunks.add(serde_json::to_vec(event)?)?;
                match closed {
                    Some(closed) => uploading.hand_on(closed, metrics),
                    None => uploading.wait(),
                }
            }
        }
        Ok(())
    }

    /// When [`flush`](Self::flush) is to be called.
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Self::Upload(uploading) => uploading.due,
            Self::Stream(_) | Self::File(_) => None,
        }
    }

    /// Hands on what has gathered.
    pub(super) fn flush(&mut self, metrics: &DecisionLogMetrics) -> io::Result<()> {
        if let Self::Upload(uploading) = self {
            let closed = uploading.chunks.close()?;
            uploading.hand_on(closed, metrics);
        }
        Ok(())
    }

    /// Waits until all is where it belongs.
    pub(super) fn finish(mut self, metrics: &DecisionLogMetrics) -> io::Result<()> {
        self.flush(metrics)?;
        if let Self::Upload(uploading) = self {
            uploading.uploader.finish();
        }
        Ok(())
    }
}

impl Uploading {
    fn hand_on(&mut self, closed: Closed, metrics: &DecisionLogMetrics) {
        if closed.too_large > 0 {
            tracing::error!(
                code = "SG0266",
                events = closed.too_large,
                limit = self.options.chunk_size,
                "events of the decision log are larger than a chunk may be: they are lost"
            );
            metrics.drops.too_large.inc_by(closed.too_large);
        }
        for chunk in closed.chunks {
            self.uploader.add(chunk);
        }
        self.due = None;
    }

    fn wait(&mut self) {
        let UploadOptions {
            min_delay,
            max_delay,
            ..
        } = self.options;
        let delay = || rand::random_range(min_delay..=max_delay.max(min_delay));
        self.due.get_or_insert_with(|| Instant::now() + delay());
    }
}
