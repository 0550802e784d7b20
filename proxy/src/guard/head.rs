//! How large a request's head may be.

use http::request::Parts;

use crate::error::ProxyError;
use crate::limits::Limits;

/// What each header counts besides its name and value (RFC 9113 section 6.5.2).
const EACH: usize = 32;

/// Refuses heads over the listener's limits. hyper refuses by itself what is much larger.
pub(crate) fn check(head: &Parts, limits: &Limits) -> Result<(), ProxyError> {
    let target = head.uri.path_and_query();
    if target.is_some_and(|target| target.as_str().len() > limits.max_uri_bytes) {
        return Err(ProxyError::UriTooLong);
    }
    if head.headers.len() > limits.max_headers {
        return Err(ProxyError::TooManyHeaders);
    }
    let bytes = head.headers.iter();
    let bytes: usize = bytes
        .map(|(name, value)| name.as_str().len() + value.len() + EACH)
        .sum();
    if u32::try_from(bytes).is_ok_and(|bytes| bytes <= limits.max_header_bytes) {
        Ok(())
    } else {
        Err(ProxyError::HeadersTooLarge)
    }
}
