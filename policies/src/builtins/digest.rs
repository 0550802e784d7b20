//! `crypto.md5` and the like: digests and message authentication codes, as
//! hexadecimal digits.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use aws_lc_rs::hmac::{self, HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256, HMAC_SHA512};
use md5::{Digest, Md5};
use regorus::Value;

use super::values::{hexadecimal, text};

/// What MD5 works on at once, in bytes.
const MD5_BLOCK: usize = 64;

pub(super) fn md5(arguments: &[Value]) -> Option<Value> {
    let [message] = arguments else { return None };
    Some(hexadecimal(&Md5::digest(text(message)?)))
}

pub(super) fn sha1(arguments: &[Value]) -> Option<Value> {
    with_algorithm(arguments, &SHA1_FOR_LEGACY_USE_ONLY)
}

pub(super) fn sha256(arguments: &[Value]) -> Option<Value> {
    with_algorithm(arguments, &SHA256)
}

/// RFC 2104 over MD5, which the cryptographic library no longer has.
pub(super) fn hmac_md5(arguments: &[Value]) -> Option<Value> {
    let [message, key] = arguments else {
        return None;
    };
    let (message, key) = (text(message)?.as_bytes(), text(key)?.as_bytes());
    let mut padded = if key.len() > MD5_BLOCK {
        Md5::digest(key).to_vec()
    } else {
        key.to_vec()
    };
    padded.resize(MD5_BLOCK, 0);
    let mixed = |pad: u8| padded.iter().map(|byte| byte ^ pad).collect::<Vec<u8>>();
    let inner = Md5::new().chain_update(mixed(0x36)).chain_update(message);
    let outer = Md5::new().chain_update(mixed(0x5c));
    Some(hexadecimal(
        &outer.chain_update(inner.finalize()).finalize(),
    ))
}

pub(super) fn hmac_sha1(arguments: &[Value]) -> Option<Value> {
    with_key(arguments, HMAC_SHA1_FOR_LEGACY_USE_ONLY)
}

pub(super) fn hmac_sha256(arguments: &[Value]) -> Option<Value> {
    with_key(arguments, HMAC_SHA256)
}

pub(super) fn hmac_sha512(arguments: &[Value]) -> Option<Value> {
    with_key(arguments, HMAC_SHA512)
}

/// Compares two codes in a time that does not tell where they differ.
pub(super) fn hmac_equal(arguments: &[Value]) -> Option<Value> {
    let [left, right] = arguments else {
        return None;
    };
    let (left, right) = (text(left)?.as_bytes(), text(right)?.as_bytes());
    Some(verify_slices_are_equal(left, right).is_ok().into())
}

fn with_algorithm(arguments: &[Value], algorithm: &'static digest::Algorithm) -> Option<Value> {
    let [message] = arguments else { return None };
    let digest = digest::digest(algorithm, text(message)?.as_bytes());
    Some(hexadecimal(digest.as_ref()))
}

fn with_key(arguments: &[Value], algorithm: hmac::Algorithm) -> Option<Value> {
    let [message, key] = arguments else {
        return None;
    };
    let key = hmac::Key::new(algorithm, text(key)?.as_bytes());
    Some(hexadecimal(
        hmac::sign(&key, text(message)?.as_bytes()).as_ref(),
    ))
}
