//! How a line of the access log is written.

use std::fmt::Write;
use std::net::SocketAddr;

use http::Method;

use crate::access_log::Line;

/// How a line of the access log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFormat {
    /// A JSON object, with everything that is known.
    Json,
    /// Apache's combined format: the SPIFFE ID is the user, referrer and user agent are never
    /// written, and verdict, duration, request id and what ended the request early stand behind.
    Text,
}

impl LineFormat {
    /// Adds the line without its end to others. After an error there may be a part of it.
    pub(crate) fn write(self, line: &Line, lines: &mut Vec<u8>) -> serde_json::Result<()> {
        match self {
            Self::Json => serde_json::to_writer(lines, line),
            Self::Text => {
                let verdict = serde_json::to_value(line.verdict)?;
                let verdict = verdict.as_str().unwrap_or("-");
                lines.extend_from_slice(combined(line, verdict).as_bytes());
                Ok(())
            }
        }
    }
}

fn combined(line: &Line, verdict: &str) -> String {
    let host = line.downstream.parse::<SocketAddr>();
    let host = host.map_or_else(
        |_| line.downstream.to_string(),
        |address| address.ip().to_string(),
    );
    let mut text = String::with_capacity(256);
    push(&mut text, &host);
    text.push_str(" - ");
    push(&mut text, &line.peer);
    text.push_str(" [");
    text.push_str(&apache_time(&line.time));
    text.push_str("] \"");
    push(&mut text, line.method.as_ref().map_or("", Method::as_str));
    text.push(' ');
    push(&mut text, &line.path);
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        " {}\" {} {} \"-\" \"-\" {verdict} {:.3}ms ",
        line.protocol,
        line.status.unwrap_or_default(),
        line.response_bytes,
        line.duration_ms
    );
    push(&mut text, &line.request_id);
    text.push(' ');
    text.push_str(line.error.unwrap_or("-"));
    text
}

/// Adds one field of what a client may have chosen: it ends neither the field nor the line.
fn push(text: &mut String, field: &str) {
    if field.is_empty() {
        text.push('-');
    }
    for byte in field.bytes() {
        match byte {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            0x21..=0x7e => text.push(char::from(byte)),
            // As Apache does it, and spaces too: they part fields.
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
}

/// `22/Nov/2026:20:10:58 +0000`, of RFC 3339 in UTC.
fn apache_time(rfc3339: &str) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let parts = || {
        let (date, time) = rfc3339.split_once('T')?;
        let mut date = date.split('-');
        let (year, month, day) = (date.next()?, date.next()?, date.next()?);
        let month = MONTHS.get(month.parse::<usize>().ok()?.checked_sub(1)?)?;
        Some(format!("{day}/{month}/{year}:{} +0000", time.get(..8)?))
    };
    parts().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_ends_its_quotes_or_its_line() {
        let mut text = String::new();
        push(&mut text, "/a\"b\\c d\ne\u{e9}");
        assert_eq!(text, r#"/a\"b\\c\x20d\x0ae\xc3\xa9"#);
        text.clear();
        push(&mut text, "");
        assert_eq!(text, "-");
    }

    #[test]
    fn the_time_is_apaches() {
        let time = apache_time("2026-11-22T20:10:58.123456789Z");
        assert_eq!(time, "22/Nov/2026:20:10:58 +0000");
        assert_eq!(apache_time("never"), "");
    }
}
