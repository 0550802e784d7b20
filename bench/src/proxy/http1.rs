//! The heads of HTTP/1.1 messages, as far as load and upstream look at them.

use anyhow::{Context, Result, ensure};

/// A head that is there whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Its length, the empty line included.
    pub(super) length: usize,
    /// Of the body, where it is told.
    pub(super) content_length: Option<usize>,
}

/// The head at the beginning of what was received; `None` where more of it must come.
pub(super) fn head(received: &[u8]) -> Result<Option<Head>> {
    const END: &[u8] = b"\r\n\r\n";
    let end = received.windows(END.len()).position(|four| four == END);
    let Some(end) = end else {
        return Ok(None);
    };
    let mut content_length = None;
    let lines = received.get(..end).unwrap_or_default();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some((name, value)) = split(line) else {
            continue;
        };
        if name.eq_ignore_ascii_case(b"content-length") {
            let value = std::str::from_utf8(value)?.trim();
            let value = value.parse().context("content-length is no number")?;
            content_length = Some(value);
        }
        ensure!(
            !name.eq_ignore_ascii_case(b"transfer-encoding"),
            "a message is chunked: lengths were told"
        );
    }
    Ok(Some(Head {
        length: end + END.len(),
        content_length,
    }))
}

/// The name of a header, and what follows its colon.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    Some((line.get(..colon)?, line.get(colon + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_an_empty_line_and_tells_the_length_of_the_body() {
        let parsed = |text: &str| head(text.as_bytes()).unwrap();
        assert_eq!(parsed("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n"), None);
        assert_eq!(
            parsed("HTTP/1.1 200 OK\r\nContent-Length:  5\r\n\r\nhello"),
            Some(Head {
                length: 39,
                content_length: Some(5),
            })
        );
        assert_eq!(
            parsed("GET /a:b HTTP/1.1\r\nhost: a\r\n\r\n"),
            Some(Head {
                length: 30,
                content_length: None,
            })
        );
    }

    #[test]
    fn a_body_without_a_length_is_refused() {
        assert!(head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(head(b"HTTP/1.1 200 OK\r\ncontent-length: five\r\n\r\n").is_err());
    }
}
