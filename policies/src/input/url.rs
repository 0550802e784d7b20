//! Paths and queries as Go's `net/url` reads them, because policies written
//! for OPA rely on what it does.

/// Why a path or query does not parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What `+` stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    Itself,
    Space,
}

/// OPA-Envoy's `parsed_path`: the whole path unescaped, then split.
///
/// An escaped slash therefore separates segments like any other: a policy must
/// not be asked about a path that the proxy has not normalized.
pub(crate) fn path_segments(path: &str) -> Result<Vec<String>, Malformed> {
    let path = unescape(path, Plus::Itself)?;
    Ok(path
        .trim_start_matches('/')
        .split('/')
        .map(str::to_owned)
        .collect())
}

/// `url.ParseQuery`: keys and values in their order, keys not yet joined.
/// A semicolon and an escape that is none are errors.
pub(crate) fn query_pairs(query: &str) -> Result<Vec<(String, String)>, Malformed> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    let pairs = parts.map(|part| {
        if part.contains(';') {
            return Err(Malformed);
        }
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        Ok((unescape(key, Plus::Space)?, unescape(value, Plus::Space)?))
    });
    pairs.collect()
}

/// A name or value of a query, as `url.QueryUnescape` reads it.
pub(crate) fn unescape_parameter(text: &str) -> Result<String, Malformed> {
    unescape(text, Plus::Space)
}

/// Stricter than Go in one thing: the result must be UTF-8, which every string
/// of a Rego document is.
fn unescape(text: &str, plus: Plus) -> Result<String, Malformed> {
    let mut bytes = text.bytes();
    let mut unescaped = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        unescaped.push(match byte {
            b'%' => {
                let high = bytes.next().and_then(hex_digit).ok_or(Malformed)?;
                let low = bytes.next().and_then(hex_digit).ok_or(Malformed)?;
                (high << 4) | low
            }
            b'+' if plus == Plus::Space => b' ',
            other => other,
        });
    }
    String::from_utf8(unescaped).map_err(|_| Malformed)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_split_as_opa_envoy_splits_them() {
        let cases: &[(&str, Option<&[&str]>)] = &[
            ("", Some(&[""])),
            ("/", Some(&[""])),
            ("/a", Some(&["a"])),
            ("/a/", Some(&["a", ""])),
            ("//a", Some(&["a"])),
            ("/a//b", Some(&["a", "", "b"])),
            ("/a%2Fb", Some(&["a", "b"])),
            ("%2f%2fa", Some(&["a"])),
            ("/a+b%20c", Some(&["a+b c"])),
            ("/a;v=1/b", Some(&["a;v=1", "b"])),
            ("/%C3%BC", Some(&["ü"])),
            ("*", Some(&["*"])),
            ("/%", None),
            ("/%2", None),
            ("/%zz", None),
            ("/%ff", None),
        ];
        for (path, expected) in cases {
            let expected = expected
                .map(|parts| parts.iter().map(|part| (*part).to_owned()).collect())
                .ok_or(Malformed);
            assert_eq!(path_segments(path), expected, "{path}");
        }
    }

    #[test]
    fn queries_parse_as_go_parses_them() {
        type Pairs = Option<&'static [(&'static str, &'static str)]>;
        let cases: &[(&str, Pairs)] = &[
            ("", Some(&[])),
            ("a=1&b=2&a=3", Some(&[("a", "1"), ("b", "2"), ("a", "3")])),
            ("a", Some(&[("a", "")])),
            ("=v", Some(&[("", "v")])),
            ("a=b=c", Some(&[("a", "b=c")])),
            ("&&a=1&", Some(&[("a", "1")])),
            ("a+b=c+d%2B", Some(&[("a b", "c d+")])),
            ("a=?", Some(&[("a", "?")])),
            ("a=1;b=2", None),
            ("a=%", None),
            ("%g0=1", None),
            ("a=%ff", None),
        ];
        for (query, expected) in cases {
            let pairs = expected.map(|pairs| {
                pairs
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect()
            });
            assert_eq!(query_pairs(query), pairs.ok_or(Malformed), "{query}");
        }
    }
}
