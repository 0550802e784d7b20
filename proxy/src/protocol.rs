//! What a listener's clients speak.

/// What a listener's clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP/2 or HTTP/1, as ALPN says; without ALPN, as the first bytes say.
    #[default]
    Auto,
    /// HTTP/1.0 and HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Anything: bytes are passed on as they are.
    Tcp,
}

/// What every HTTP/2 connection of a client begins with (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Protocol {
    /// What clients may choose from by ALPN, the preferred one first.
    pub fn alpn(self) -> &'static [&'static str] {
        match self {
            Self::Auto => &["h2", "http/1.1"],
            Self::Http1 => &["http/1.1"],
            Self::Http2 => &["h2"],
            Self::Tcp => &[],
        }
    }
}

/// Whether a connection that begins like this speaks HTTP/2; `None` where more has to come.
pub(crate) fn is_http2(begun: &[u8]) -> Option<bool> {
    let mut pairs = begun.iter().zip(HTTP2_PREFACE);
    if !pairs.all(|(found, expected)| found == expected) {
        return Some(false);
    }
    (begun.len() >= HTTP2_PREFACE.len()).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_that_is_not_the_prefaces_makes_it_http1() {
        for (begun, expected) in [
            (&b""[..], None),
            (b"P", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", None),
            (HTTP2_PREFACE, Some(true)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", Some(true)),
            (b"G", Some(false)),
            (b"\r\n", Some(false)),
            (b"PO", Some(false)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\n", Some(false)),
            (b"PRI / HTTP/1.1\r\n", Some(false)),
        ] {
            assert_eq!(is_http2(begun), expected, "{begun:?}");
        }
    }
}
