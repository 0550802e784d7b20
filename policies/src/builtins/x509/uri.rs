//! URIs of certificates as Go's `url.URL` shows them in JSON.

use regorus::Value;

use crate::builtins::values::object;

/// `None` if Go would not parse it, as far as that is seen here.
pub(super) fn document(uri: &str) -> Option<Value> {
    if uri.chars().any(|character| character.is_ascii_control()) {
        return None;
    }
    let (rest, fragment) = uri.split_once('#').unwrap_or((uri, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let force_query = uri.split('#').next()?.ends_with('?') && query.is_empty();
    let (scheme, rest) = match rest.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (scheme.to_ascii_lowercase(), rest),
        Some(("", _)) => return None,
        _ => (String::new(), rest),
    };
    let mut opaque = "";
    let (mut user, mut host, mut raw_path) = (Value::Null, "", rest);
    if !scheme.is_empty() && !rest.starts_with('/') {
        (opaque, raw_path) = (rest, "");
    } else if let Some(authority) = rest.strip_prefix("//") {
        let end = authority.find('/').unwrap_or(authority.len());
        let (authority, path) = authority.split_at_checked(end)?;
        raw_path = path;
        host = authority;
        if let Some((_, after)) = authority.rsplit_once('@') {
            // Go keeps who it is to itself.
            user = Value::new_object();
            host = after;
        }
        if !is_host(host) {
            return None;
        }
    }
    let path = unescape(raw_path)?;
    let shown_path = if escape(&path) == raw_path {
        ""
    } else {
        raw_path
    };
    let plain_fragment = unescape(fragment)?;
    let shown_fragment = if escape(&plain_fragment) == fragment {
        ""
    } else {
        fragment
    };
    Some(object([
        ("Scheme", scheme.into()),
        ("Opaque", opaque.into()),
        ("User", user),
        ("Host", host.into()),
        ("Path", path.as_str().into()),
        ("Fragment", plain_fragment.as_str().into()),
        ("RawQuery", query.into()),
        ("RawPath", shown_path.into()),
        ("RawFragment", shown_fragment.into()),
        ("ForceQuery", force_query.into()),
        ("OmitHost", false.into()),
    ]))
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|character| character.is_ascii_alphanumeric() || "+-.".contains(character))
}

/// Hosts of certificates are names and addresses, with a port at most.
fn is_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => {
            if !port.bytes().all(|byte| byte.is_ascii_digit()) {
                return false;
            }
            name
        }
        _ => host,
    };
    !name.contains([' ', '<', '>', '"', '\\', '^', '`', '{', '|', '}', '%'])
}

fn unescape(escaped: &str) -> Option<String> {
    let mut bytes = escaped.bytes();
    let mut plain = Vec::with_capacity(escaped.len());
    while let Some(byte) = bytes.next() {
        plain.push(if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            let digits = std::str::from_utf8(&digits).ok()?;
            if digits.starts_with('+') {
                return None;
            }
            u8::from_str_radix(digits, 16).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(plain).ok()
}

/// As Go writes a path by itself.
fn escape(path: &str) -> String {
    path.bytes().fold(String::new(), |mut escaped, byte| {
        let character = char::from(byte);
        if character.is_ascii_alphanumeric() || "-_.~$&+,/:;=@".contains(character) {
            escaped.push(character);
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
        escaped
    })
}
