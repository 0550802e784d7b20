//! Request paths that mean the same to everybody who reads them.
//!
//! A policy that decides on one reading of a path is worth nothing if the upstream acts on another.
//! What can be read in two ways is refused, unless the listener's rules say what it means. What
//! passes is normalized once: routes, policy, upstream and access log all see the same bytes, and
//! normalizing them again changes nothing.
//!
//! Where a rule rewrites paths, escapes of unreserved characters are resolved too, and the others
//! get upper-case digits (RFC 3986 section 6.2.2). Where none does, a path passes as it came.

use std::borrow::Cow;
use std::fmt::Write;

/// What becomes of what can be read in two ways in a path. By default, all of it is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathRules {
    /// Of slashes and backslashes that are escaped: `%2F` and `%5C`.
    pub escaped_slashes: EscapedSlashes,
    /// Of the segments `.` and `..`, also where their dots are escaped.
    pub dot_segments: DotSegments,
    /// Of segments with nothing in them: `//`.
    pub double_slashes: DoubleSlashes,
    /// Of semicolons, also escaped ones.
    pub semicolons: Semicolons,
    /// Of backslashes, with those that were escaped and are decoded.
    pub backslashes: Backslashes,
}

/// What becomes of escaped slashes and backslashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// The request is refused.
    #[default]
    Reject,
    /// They stay escaped: part of their segment.
    Keep,
    /// They become what they stand for.
    Decode,
}

/// What becomes of the segments `.` and `..`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DotSegments {
    /// The request is refused.
    #[default]
    Reject,
    /// They are resolved (RFC 3986 section 5.2.4). Nothing is above the root.
    Resolve,
}

/// What becomes of slashes next to each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DoubleSlashes {
    /// The request is refused.
    #[default]
    Reject,
    /// They become one, before dot segments are resolved.
    Merge,
    /// They stay: the segment between them is empty.
    Keep,
}

/// What becomes of semicolons.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Semicolons {
    /// The request is refused.
    #[default]
    Reject,
    /// They stay, escaped or not.
    Keep,
}

/// What becomes of backslashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backslashes {
    /// The request is refused.
    #[default]
    Reject,
    /// They become slashes.
    ToSlash,
}

/// What makes a path ambiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathProblem {
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    #[error("the path has an empty segment (`//`)")]
    EmptySegment,
    #[error("the path has a dot segment (`.` or `..`)")]
    DotSegment,
    #[error("the path has a dot segment behind an escaped slash or before a semicolon")]
    HiddenDotSegment,
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

impl PathRules {
    /// Why no request with this path is ever forwarded, for whoever writes a path down.
    #[must_use]
    pub fn ambiguity(&self, path: &str) -> Option<String> {
        match self.normalize(path) {
            Ok(normalized) if normalized == path => None,
            Ok(normalized) => Some(format!("it has become `{normalized}` by then")),
            Err(problem) => Some(problem.to_string()),
        }
    }

    /// The path of a request target, without its query, as it is decided on and forwarded.
    pub(crate) fn normalize<'a>(&self, path: &'a str) -> Result<Cow<'a, str>, PathProblem> {
        if !path.starts_with('/') {
            return Err(PathProblem::NotAbsolute);
        }
        // Most have nothing that would have to be looked at more closely.
        let is_plain = path
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/-_~.".contains(&byte));
        if is_plain && !path.contains("//") && !path.contains("/.") {
            return Ok(Cow::Borrowed(path));
        }
        // All decoding comes before anything is resolved: nothing new can come to light later.
        let decoded = self.decode(path)?;
        let normalized = self.resolve(&decoded)?;
        Ok(match self.rewrites() && normalized != path {
            true => Cow::Owned(normalized),
            false => Cow::Borrowed(path),
        })
    }

    /// Whether a path may leave otherwise than it came.
    fn rewrites(&self) -> bool {
        self.escaped_slashes == EscapedSlashes::Decode
            || self.dot_segments == DotSegments::Resolve
            || self.double_slashes == DoubleSlashes::Merge
            || self.backslashes == Backslashes::ToSlash
    }

    /// The path with all escapes resolved that are to be, and the others in upper case.
    fn decode(&self, path: &str) -> Result<String, PathProblem> {
        let mut decoded = String::with_capacity(path.len());
        let mut bytes = path.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\\' => decoded.push(self.backslash()?),
                b';' if self.semicolons == Semicolons::Reject => {
                    return Err(PathProblem::Semicolon);
                }
                0..=b' ' | 0x7f.. => return Err(PathProblem::BadByte),
                b'%' => match (hex(bytes.next()), hex(bytes.next())) {
                    (Some(high), Some(low)) => self.unescape(high << 4 | low, &mut decoded)?,
                    _ => return Err(PathProblem::BadEscape),
                },
                byte => decoded.push(char::from(byte)),
            }
        }
        Ok(decoded)
    }

    /// Adds what an escape stands for, or the escape.
    fn unescape(&self, byte: u8, decoded: &mut String) -> Result<(), PathProblem> {
        match (byte, self.escaped_slashes) {
            (b'/' | b'\\', EscapedSlashes::Reject) => return Err(PathProblem::EscapedSlash),
            (b'/', EscapedSlashes::Decode) => decoded.push('/'),
            (b'\\', EscapedSlashes::Decode) => decoded.push(self.backslash()?),
            (b';', _) if self.semicolons == Semicolons::Reject => {
                return Err(PathProblem::Semicolon);
            }
            (0..b' ' | 0x7f, _) => return Err(PathProblem::BadByte),
            (b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~', _) => {
                decoded.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            _ => {
                let _ = write!(decoded, "%{byte:02X}");
            }
        }
        Ok(())
    }

    fn backslash(&self) -> Result<char, PathProblem> {
        match self.backslashes {
            Backslashes::Reject => Err(PathProblem::Backslash),
            Backslashes::ToSlash => Ok('/'),
        }
    }

    /// A decoded path with its segments as they are to be.
    fn resolve(&self, decoded: &str) -> Result<String, PathProblem> {
        let mut kept = Vec::new();
        let mut segments = decoded.split('/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            let is_last = segments.peek().is_none();
            match (segment, self.double_slashes) {
                ("." | "..", _) => {
                    if self.dot_segments == DotSegments::Reject {
                        return Err(PathProblem::DotSegment);
                    }
                    if segment == ".." {
                        kept.pop();
                    }
                    // What it stands for is a folder.
                    if is_last {
                        kept.push("");
                    }
                }
                ("", DoubleSlashes::Reject) if !is_last => return Err(PathProblem::EmptySegment),
                ("", DoubleSlashes::Merge) if !is_last => {}
                _ if hides_dots(segment) => return Err(PathProblem::HiddenDotSegment),
                _ => kept.push(segment),
            }
        }
        Ok(format!("/{}", kept.join("/")))
    }
}

/// Whether a decoded segment is a dot segment to a reader who unescapes slashes, or leaves away
/// what follows a semicolon.
fn hides_dots(segment: &str) -> bool {
    if !segment.contains(['%', ';']) {
        return false;
    }
    let read = segment
        .replace("%2F", "/")
        .replace("%5C", "/")
        .replace("%3B", ";");
    let mut parts = read.split('/').map(|part| part.split(';').next());
    parts.any(|name| matches!(name, Some("." | "..")))
}

fn hex(digit: Option<u8>) -> Option<u8> {
    let value = char::from(digit?).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEEPING: PathRules = PathRules {
        escaped_slashes: EscapedSlashes::Keep,
        dot_segments: DotSegments::Reject,
        double_slashes: DoubleSlashes::Keep,
        semicolons: Semicolons::Keep,
        backslashes: Backslashes::Reject,
    };

    const REWRITING: PathRules = PathRules {
        escaped_slashes: EscapedSlashes::Decode,
        dot_segments: DotSegments::Resolve,
        double_slashes: DoubleSlashes::Merge,
        semicolons: Semicolons::Keep,
        backslashes: Backslashes::ToSlash,
    };

    /// All ways in which rules can be put together.
    fn all_rules() -> Vec<PathRules> {
        let mut all = Vec::new();
        for escaped_slashes in [
            EscapedSlashes::Reject,
            EscapedSlashes::Keep,
            EscapedSlashes::Decode,
        ] {
            for dot_segments in [DotSegments::Reject, DotSegments::Resolve] {
                for double_slashes in [
                    DoubleSlashes::Reject,
                    DoubleSlashes::Merge,
                    DoubleSlashes::Keep,
                ] {
                    for semicolons in [Semicolons::Reject, Semicolons::Keep] {
                        for backslashes in [Backslashes::Reject, Backslashes::ToSlash] {
                            all.push(PathRules {
                                escaped_slashes,
                                dot_segments,
                                double_slashes,
                                semicolons,
                                backslashes,
                            });
                        }
                    }
                }
            }
        }
        all
    }

    /// Paths of pieces that are read in several ways, in any order.
    fn paths() -> impl Strategy<Value = String> {
        let pieces = [
            "/", "//", ".", "..", "%2e", "%2E", "%2f", "%2F", "%5c", "\\", ";", "%3b", "a", "b",
            "%61", "%7e", "%25", "2f", "2e", "%c3%a9", "%20", "%3F", ":", "x=1",
        ];
        let piece = prop::sample::select(pieces.to_vec());
        prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn what_is_normalized_stays_as_it_is(path in paths()) {
            for rules in all_rules() {
                let Ok(once) = rules.normalize(&path) else { continue };
                prop_assert_eq!(rules.normalize(&once), Ok(Cow::Borrowed(&*once)), "{:?}", rules);
                prop_assert_eq!(rules.ambiguity(&once), None);
                if !rules.rewrites() {
                    prop_assert_eq!(&once, &path);
                }
            }
        }

        #[test]
        fn no_reader_finds_a_dot_segment_in_what_is_normalized(path in paths()) {
            for rules in all_rules() {
                let Ok(once) = rules.normalize(&path) else { continue };
                let read = percent_encoding::percent_decode_str(&once).decode_utf8_lossy();
                for segment in read.split(['/', '\\']) {
                    let name = segment.split(';').next();
                    prop_assert!(!matches!(name, Some("." | "..")), "{} {:?}", once, rules);
                }
                let has_double = once.contains("//");
                prop_assert!(!has_double || rules.double_slashes == DoubleSlashes::Keep);
                prop_assert!(!once.contains('\\'));
                if rules.escaped_slashes != EscapedSlashes::Keep {
                    let lower = once.to_ascii_lowercase();
                    prop_assert!(!lower.contains("%2f") && !lower.contains("%5c"), "{}", once);
                }
            }
        }
    }

    #[test]
    fn a_path_is_rewritten_as_the_rules_say() {
        for (path, rewritten) in [
            ("/a%2Fb", "/a/b"),
            ("/a%2f%2Fb", "/a/b"),
            ("/a%5Cb\\c", "/a/b/c"),
            ("/a/./b/../c", "/a/c"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/..%2f..%5c..\\b", "/b"),
            ("/../../a", "/a"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/a//..//b", "/b"),
            ("//", "/"),
            ("/a//", "/a/"),
            ("/%61%2D%7e/%c3%a9", "/a-~/%C3%A9"),
            // What is escaped twice is unescaped by nobody.
            ("/%252e%252e%252fa", "/%252e%252e%252fa"),
            ("/a;b=%3bc", "/a;b=%3Bc"),
        ] {
            assert_eq!(REWRITING.normalize(path), Ok(rewritten.into()), "{path}");
        }
    }

    #[test]
    fn what_is_kept_is_kept_byte_by_byte() {
        for path in [
            "/a%2fb%5C",
            "//a///b",
            "/a;b=c;/%3bd",
            "/%61/%c3",
            "/a%2f%2fb",
        ] {
            let kept = KEEPING.normalize(path);
            assert!(
                matches!(kept, Ok(Cow::Borrowed(kept)) if kept == path),
                "{path}"
            );
        }
    }

    #[test]
    fn no_rule_lets_a_dot_segment_hide() {
        for path in [
            "/a/..%2fb",
            "/a/%2e%2E%2Fb",
            "/a%2f..%5cb",
            "/a%5c.",
            "/..;/b",
            "/a/..;x=1/b",
            "/a/.%3b",
        ] {
            let hidden = Err(PathProblem::HiddenDotSegment);
            assert_eq!(KEEPING.normalize(path), hidden, "{path}");
            let rules = PathRules {
                dot_segments: DotSegments::Resolve,
                ..KEEPING
            };
            assert_eq!(rules.normalize(path), hidden, "{path}");
        }
    }

    #[test]
    fn a_path_that_no_request_has_is_told() {
        let told = |rules: PathRules, path| rules.ambiguity(path);
        assert_eq!(told(PathRules::default(), "/a"), None);
        assert!(told(PathRules::default(), "/a;b").is_some());
        assert_eq!(told(KEEPING, "/a;b"), None);
        let becomes = told(REWRITING, "/a/../b").unwrap();
        assert_eq!(becomes, "it has become `/b` by then");
    }

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
            let normalized = PathRules::default().normalize(path);
            assert_eq!(normalized, Ok(Cow::Borrowed(path)));
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
            assert_eq!(PathRules::default().normalize(path), Err(problem), "{path}");
        }
    }
}
