//! `tracestate`: <https://www.w3.org/TR/trace-context-2/#tracestate-header>. What others have
//! written there is passed on as it is, or not at all.

use http::{HeaderMap, HeaderValue};

use super::TRACESTATE;

/// Members of the list at most; a longer one is no list.
const MAX_MEMBERS: usize = 32;

/// Bytes of the list that everybody passes on; of a longer one, members go.
const MAX_BYTES: usize = 512;

/// A member that is longer goes first.
const LONG_MEMBER: usize = 128;

const MAX_KEY: usize = 256;
const MAX_VALUE: usize = 256;

/// What a request brings, in one header; nothing where any of it is not valid.
pub(super) fn of(headers: &HeaderMap) -> Option<HeaderValue> {
    let all = headers.get_all(TRACESTATE);
    let mut members = Vec::new();
    for value in &all {
        let text = value.to_str().ok()?.split(',');
        // Members may be empty.
        let text = text.map(|member| member.trim_matches([' ', '\t']));
        members.extend(text.filter(|member| !member.is_empty()));
    }
    if members.is_empty() || members.len() > MAX_MEMBERS || !members.iter().all(is_member) {
        return None;
    }
    let mut values = all.iter();
    if let (Some(only), None) = (values.next(), values.next())
        && only.len() <= MAX_BYTES
    {
        return Some(only.clone());
    }
    shorten(&mut members);
    HeaderValue::from_str(&members.join(",")).ok()
}

/// Takes out whole members, the long ones first and then the last, until the rest is short enough.
fn shorten(members: &mut Vec<&str>) {
    let length = |members: &[&str]| {
        let bytes: usize = members.iter().map(|member| member.len()).sum();
        bytes.saturating_add(members.len().saturating_sub(1))
    };
    while length(members) > MAX_BYTES {
        let long = members
            .iter()
            .rposition(|member| member.len() > LONG_MEMBER);
        match long {
            Some(place) => drop(members.remove(place)),
            None => drop(members.pop()),
        }
    }
}

fn is_member(member: &&str) -> bool {
    member
        .split_once('=')
        .is_some_and(|(key, value)| is_key(key) && is_value(value))
}

fn is_key(key: &str) -> bool {
    let begins = key
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte);
    begins && key.len() <= MAX_KEY && key.bytes().all(is_allowed)
}

/// It ends with no space: those were around the member.
fn is_value(value: &str) -> bool {
    let is_allowed = |byte: u8| matches!(byte, b' '..=b'~') && !b",=".contains(&byte);
    !value.is_empty() && value.len() <= MAX_VALUE && value.bytes().all(is_allowed)
}
