//! Reads a decision log, one event at a time: JSON lines, or JSON arrays of events as receivers
//! keep them; each may be compressed with gzip.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use serde_json::Value as Json;

/// The bytes of one event. Bodies that policies see are bounded far below.
const EVENT_BYTES: usize = 64 << 20;

/// One decision as a log tells it, as far as it is needed here.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct LoggedDecision {
    /// Its id.
    pub decision_id: String,
    /// The entrypoint.
    #[serde(default)]
    pub path: Option<String>,
    /// When.
    #[serde(default)]
    pub timestamp: Option<String>,
    /// What was asked.
    #[serde(default)]
    pub input: Option<Json>,
    /// What was answered.
    #[serde(default)]
    pub result: Option<Json>,
    /// What was removed, as JSON pointers into the event.
    #[serde(default)]
    pub erased: Vec<String>,
    /// What was replaced.
    #[serde(default)]
    pub masked: Vec<String>,
    /// Why there is no decision.
    #[serde(default)]
    pub error: Option<Json>,
}

/// What of a log is no event.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The log cannot be read further.
    #[error("the log cannot be read at line {line}")]
    Read {
        /// Line from 1.
        line: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is JSON, but no event; or it is no JSON.
    #[error("line {line} of the log is no event")]
    Event {
        /// Line from 1, of the event's start.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It is larger than an event may be, or ends within an event.
    #[error("line {line} of the log is no event: it {problem}")]
    Form {
        /// Line from 1, of the event's start.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
}

impl LogError {
    /// The stable diagnostic code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "SG0288",
            Self::Event { .. } | Self::Form { .. } => "SG0289",
        }
    }

    /// Where it is, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        match self {
            Self::Read { line, .. } | Self::Event { line, .. } | Self::Form { line, .. } => *line,
        }
    }

    /// Whether what follows can still be read.
    #[must_use]
    pub fn is_one_event(&self) -> bool {
        !matches!(self, Self::Read { .. })
    }
}

/// The events of a log, in its order. After an error that is not about one event nothing follows.
pub struct Events<'a> {
    reader: Box<dyn BufRead + 'a>,
    /// The line that is read, from 1.
    line: usize,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Unknown,
    Lines,
    Arrays,
    Ended,
}

impl<'a> Events<'a> {
    /// Looks at the first bytes for gzip.
    ///
    /// # Errors
    ///
    /// A log that cannot be read at all.
    pub fn new(reader: impl Read + 'a) -> Result<Self, LogError> {
        let mut reader = BufReader::new(reader);
        let start = reader.fill_buf();
        let start = start.map_err(|source| LogError::Read { line: 1, source })?;
        let reader: Box<dyn BufRead + 'a> = match start.starts_with(&[0x1f, 0x8b]) {
            true => Box::new(BufReader::new(MultiGzDecoder::new(reader))),
            false => Box::new(reader),
        };
        Ok(Self {
            reader,
            line: 1,
            form: Form::Unknown,
        })
    }

    fn next_byte(&mut self) -> Result<Option<u8>, LogError> {
        let buffer = self.reader.fill_buf().map_err(|source| LogError::Read {
            line: self.line,
            source,
        })?;
        let byte = buffer.first().copied();
        if let Some(byte) = byte {
            self.reader.consume(1);
            self.line = self.line.saturating_add(usize::from(byte == b'\n'));
        }
        Ok(byte)
    }

    /// The next byte that is not space, nor what separates events in arrays, is left unread.
    fn skip(&mut self) -> Result<Option<u8>, LogError> {
        loop {
            let buffer = self.reader.fill_buf().map_err(|source| LogError::Read {
                line: self.line,
                source,
            })?;
            match buffer.first() {
                None => return Ok(None),
                Some(byte) if byte.is_ascii_whitespace() => {}
                Some(b'[' | b']' | b',') if self.form == Form::Arrays => {}
                Some(byte) => return Ok(Some(*byte)),
            }
            self.next_byte()?;
        }
    }

    /// The text of the next event and its line.
    fn text(&mut self) -> Result<Option<(usize, Vec<u8>)>, LogError> {
        let Some(first) = self.skip()? else {
            return Ok(None);
        };
        if self.form == Form::Unknown {
            self.form = match first {
                b'[' => Form::Arrays,
                _ => Form::Lines,
            };
            if self.form == Form::Arrays && self.skip()?.is_none() {
                return Ok(None);
            }
        }
        let line = self.line;
        let text = match self.form {
            Form::Arrays => self.element(line)?,
            _ => self.whole_line(line)?,
        };
        Ok(Some((line, text)))
    }

    fn whole_line(&mut self, line: usize) -> Result<Vec<u8>, LogError> {
        let mut text = Vec::new();
        let mut within = true;
        while let Some(byte) = self.next_byte()? {
            if byte == b'\n' {
                break;
            }
            within &= text.len() < EVENT_BYTES;
            if within {
                text.push(byte);
            }
        }
        match within {
            true => Ok(text),
            false => Err(too_large(line)),
        }
    }

    /// One element of an array, up to its own end.
    fn element(&mut self, line: usize) -> Result<Vec<u8>, LogError> {
        let mut text = Vec::new();
        let mut depth = 0_usize;
        let mut in_string = false;
        let mut escaped = false;
        let mut within = true;
        loop {
            let Some(byte) = self.next_byte()? else {
                return Err(LogError::Form {
                    line,
                    problem: "is cut off",
                });
            };
            within &= text.len() < EVENT_BYTES;
            if within {
                text.push(byte);
            }
            if in_string {
                in_string = escaped || byte != b'"';
                escaped = byte == b'\\' && !escaped;
            } else {
                match byte {
                    b'"' => in_string = true,
                    b'{' | b'[' => depth = depth.saturating_add(1),
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            if depth == 0 && !in_string {
                // Numbers and words are no events; they end one by one, each an error.
                break;
            }
        }
        match within {
            true => Ok(text),
            false => Err(too_large(line)),
        }
    }
}

impl Iterator for Events<'_> {
    type Item = Result<(usize, LoggedDecision), LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.form == Form::Ended {
            return None;
        }
        let (line, text) = match self.text() {
            Ok(text) => text?,
            Err(error) => {
                if !error.is_one_event() {
                    self.form = Form::Ended;
                }
                return Some(Err(error));
            }
        };
        let event = serde_json::from_slice(&text);
        Some(match event {
            Ok(event) => Ok((line, event)),
            Err(source) => Err(LogError::Event { line, source }),
        })
    }
}

fn too_large(line: usize) -> LogError {
    LogError::Form {
        line,
        problem: "is larger than an event may be",
    }
}
