//! Reading `x-forwarded-client-cert`: elements apart by `,`, each of pairs `key=value` apart by `;`.
//!
//! Nothing of it is used here. It is read to be sure that whoever uses it behind us reads the same.

use std::iter::Peekable;
use std::slice::Iter;

/// Why a value is not in the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("an element without a pair, or a pair without a key that Envoy writes")]
    Key,
    #[error("a key that may be there once is there again")]
    Repeated,
    #[error("a value with a character that must stand in quotes, or in no header")]
    Character,
    #[error("a quoted value does not end, or something follows it")]
    Quotes,
}

/// Keys, in lower case, and whether an element may have several of it.
const KEYS: [(&str, bool); 7] = [
    ("by", true),
    ("hash", false),
    ("cert", false),
    ("chain", false),
    ("subject", false),
    ("uri", true),
    ("dns", true),
];

type Bytes<'a> = Peekable<Iter<'a, u8>>;

/// Checks one value: one element or several.
pub(super) fn check(value: &[u8]) -> Result<(), Malformed> {
    let mut bytes = value.iter().peekable();
    let mut seen: Vec<&str> = Vec::new();
    loop {
        if seen.is_empty() {
            // Who joins lines may write a space behind the comma.
            while bytes.next_if_eq(&&b' ').is_some() {}
        }
        let key = key(&mut bytes)?;
        match KEYS.iter().find(|(known, _)| *known == key) {
            None => return Err(Malformed::Key),
            Some((known, is_list)) if *is_list || !seen.contains(known) => seen.push(known),
            Some(_) => return Err(Malformed::Repeated),
        }
        match bytes.next_if_eq(&&b'"') {
            Some(_) => skip_quoted(&mut bytes)?,
            None => skip_plain(&mut bytes)?,
        }
        match bytes.next() {
            None => return Ok(()),
            Some(b';') => {}
            Some(b',') => seen.clear(),
            Some(_) => return Err(Malformed::Quotes),
        }
    }
}

/// A key in lower case, with the `=` behind it.
fn key(bytes: &mut Bytes<'_>) -> Result<String, Malformed> {
    let mut key = String::new();
    while let Some(byte) = bytes.next_if(|byte| byte.is_ascii_alphabetic()) {
        key.push(char::from(byte.to_ascii_lowercase()));
    }
    match bytes.next() {
        Some(b'=') => Ok(key),
        _ => Err(Malformed::Key),
    }
}

fn skip_plain(bytes: &mut Bytes<'_>) -> Result<(), Malformed> {
    while let Some(byte) = bytes.next_if(|byte| !b",;".contains(byte)) {
        if !byte.is_ascii_graphic() || b"=\"\\".contains(byte) {
            return Err(Malformed::Character);
        }
    }
    Ok(())
}

/// What follows an opening quote, with the closing one.
fn skip_quoted(bytes: &mut Bytes<'_>) -> Result<(), Malformed> {
    loop {
        let byte = match bytes.next() {
            Some(b'"') => return Ok(()),
            Some(b'\\') => bytes.next(),
            byte => byte,
        };
        match byte {
            Some(b' '..=b'~') => {}
            Some(_) => return Err(Malformed::Character),
            None => return Err(Malformed::Quotes),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_envoy_writes_is_read() {
        for value in [
            "By=spiffe://one.test/a;Hash=00ff;URI=spiffe://one.test/b",
            "Hash=00ff;URI=",
            "By=a;By=b;URI=c;URI=d;DNS=e;DNS=*.f",
            "Hash=0;Cert=\"-----BEGIN%20CERTIFICATE-----%0AMIIB%3D%0A\";Chain=\"%0A\"",
            "Subject=\"\"",
            "Subject=\"CN=a \\\"b\\\" c,O=Org\\, Inc.;x\\\\\";DNS=a",
            "hash=0,HASH=1",
            "Hash=0, Hash=1,By=a",
            "DNS=\"a;URI=b\"",
        ] {
            assert_eq!(check(value.as_bytes()), Ok(()), "{value}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (value, problem) in [
            ("", Malformed::Key),
            (",", Malformed::Key),
            ("Hash=0,", Malformed::Key),
            ("Hash=0;", Malformed::Key),
            (";Hash=0", Malformed::Key),
            ("Hash=0;;URI=a", Malformed::Key),
            ("Hash", Malformed::Key),
            ("Hash =0", Malformed::Key),
            ("=a", Malformed::Key),
            ("King=yes", Malformed::Key),
            ("URI=a; DNS=b", Malformed::Key),
            ("Hash=0;URI=a;Hash=1", Malformed::Repeated),
            ("Subject=\"a\";subject=\"b\"", Malformed::Repeated),
            ("URI=a=b", Malformed::Character),
            ("URI=a b", Malformed::Character),
            ("URI=a ,URI=b", Malformed::Character),
            ("URI=a\"b\"", Malformed::Character),
            ("URI=a\\", Malformed::Character),
            ("URI=\u{e9}", Malformed::Character),
            ("Subject=\"\u{e9}\"", Malformed::Character),
            ("Subject=\"a\tb\"", Malformed::Character),
            ("Subject=\"a", Malformed::Quotes),
            ("Subject=\"a\\", Malformed::Quotes),
            ("Subject=\"a\\\"", Malformed::Quotes),
            ("Subject=\"a\"b", Malformed::Quotes),
            ("Subject=\"a\" ;URI=b", Malformed::Quotes),
        ] {
            assert_eq!(check(value.as_bytes()), Err(problem), "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(value in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = check(&value);
        }

        #[test]
        fn an_element_before_another_counts_for_itself(
            first in "(By|Hash|URI|Subject|x)=\"?[a-b,;=\\\\\"]{0,6}\"?",
            second in "(By|Hash|URI|Subject|x)=\"?[a-b,;=\\\\\"]{0,6}\"?",
        ) {
            if check(first.as_bytes()).is_ok() {
                let both = check(format!("{first},{second}").as_bytes());
                prop_assert_eq!(both, check(second.as_bytes()));
            }
        }
    }
}
