//! Request paths that mean the same to everybody who reads them.
//!
//! A policy that decides on one reading of a path is worth nothing if the upstream acts on another.
//! What can be read in two ways is refused; what passes is authorized and forwarded byte by byte
//! as it came.

/// What makes a path ambiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathProblem {
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    #[error("the path has an empty segment (`//`)")]
    EmptySegment,
    #[error("the path has a dot segment (`.` or `..`)")]
    DotSegment,
    #[error("the path has an escaped slash or backslash")]
    EscapedSlash,
    #[error("the path has a backslash")]
    Backslash,
    #[error("the path has a semicolon")]
    Semicolon,
    #[error("the path has an escape that is not two hex digits")]
    BadEscape,
    #[error("the path has a control character, a space, or a byte that is not ASCII")]
    BadByte,
}

/// Why no request with this path is ever forwarded, for whoever writes a path down.
#[must_use]
pub fn ambiguity(path: &str) -> Option<String> {
    check(path).err().map(|problem| problem.to_string())
}

/// Checks the path of a request target, without its query.
pub(crate) fn check(path: &str) -> Result<(), PathProblem> {
    let rest = path.strip_prefix('/').ok_or(PathProblem::NotAbsolute)?;
    let mut segments = rest.split('/').peekable();
    // Most have nothing that would have to be looked at more closely.
    let is_plain = rest
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/-_~".contains(&byte));
    if is_plain && !rest.contains("//") && !rest.starts_with('/') {
        return Ok(());
    }
    while let Some(segment) = segments.next() {
        let decoded = decode(segment)?;
        if decoded.is_empty() && segments.peek().is_some() {
            return Err(PathProblem::EmptySegment);
        }
        if decoded == b"." || decoded == b".." {
            return Err(PathProblem::DotSegment);
        }
    }
    Ok(())
}

/// One segment with its escapes resolved.
fn decode(segment: &str) -> Result<Vec<u8>, PathProblem> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'\\' => return Err(PathProblem::Backslash),
            b';' => return Err(PathProblem::Semicolon),
            0..=b' ' | 0x7f.. => return Err(PathProblem::BadByte),
            b'%' => match (hex(bytes.next()), hex(bytes.next())) {
                (Some(high), Some(low)) => match high << 4 | low {
                    b'/' | b'\\' => return Err(PathProblem::EscapedSlash),
                    b';' => return Err(PathProblem::Semicolon),
                    0..b' ' | 0x7f => return Err(PathProblem::BadByte),
                    byte => byte,
                },
                _ => return Err(PathProblem::BadEscape),
            },
            byte => byte,
        });
    }
    Ok(decoded)
}

fn hex(digit: Option<u8>) -> Option<u8> {
    let value = char::from(digit?).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_path_passes() {
        for path in [
            "/",
            "/a",
            "/a/b/",
            "/a.b/..c/...",
            "/%20/%C3%A9",
            "/a:b@c,d=e~f",
            "/.well-known/x",
        ] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn a_path_that_can_be_read_in_two_ways_is_refused() {
        for (path, problem) in [
            ("", PathProblem::NotAbsolute),
            ("*", PathProblem::NotAbsolute),
            ("a", PathProblem::NotAbsolute),
            ("//a", PathProblem::EmptySegment),
            ("/a//b", PathProblem::EmptySegment),
            ("/a//", PathProblem::EmptySegment),
            ("/..", PathProblem::DotSegment),
            ("/a/./b", PathProblem::DotSegment),
            ("/a/%2e%2E/b", PathProblem::DotSegment),
            ("/a/.%2e", PathProblem::DotSegment),
            ("/a%2fb", PathProblem::EscapedSlash),
            ("/a%5Cb", PathProblem::EscapedSlash),
            ("/a\\b", PathProblem::Backslash),
            ("/a;b=c/d", PathProblem::Semicolon),
            ("/a%3bb", PathProblem::Semicolon),
            ("/%", PathProblem::BadEscape),
            ("/%4", PathProblem::BadEscape),
            ("/%zz", PathProblem::BadEscape),
            ("/%+1", PathProblem::BadEscape),
            ("/%00", PathProblem::BadByte),
            ("/%0a", PathProblem::BadByte),
            ("/a b", PathProblem::BadByte),
            ("/é", PathProblem::BadByte),
        ] {
            assert_eq!(check(path), Err(problem), "{path}");
        }
    }
}
