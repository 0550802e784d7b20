//! Switching to another protocol on a connection (RFC 9110 section 7.8), such as WebSocket.
//!
//! A client asks for it over HTTP/1.1 with `Connection: upgrade` and `Upgrade`, and over HTTP/2 with
//! an extended CONNECT (RFC 8441), which is decided and forwarded as the first. A CONNECT without a
//! protocol (RFC 9110 section 9.3.6) asks for a tunnel to a server that speaks none of HTTP.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    UPGRADE,
};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use http_body::Body;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;

use crate::body::Source;
use crate::upstream::{Stream, UpstreamError};

/// HTTP/2 without TLS. It is no protocol to switch to behind TLS, where ALPN offers HTTP/2.
const H2C: &str = "h2c";

/// What a WebSocket server appends to a key before it answers (RFC 6455 section 1.3).
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A client's wish to switch to another protocol.
pub(crate) struct Upgrade {
    /// One or several, as in the header. None for CONNECT.
    protocols: Option<HeaderValue>,
    /// The client's connection or stream, once a response has been sent that accepts it.
    downstream: OnUpgrade,
    asked: Asked,
}

/// How the client has asked.
enum Asked {
    Header,
    Connect,
    ExtendedConnect {
        /// What the upstream has to answer to the key that the client did not send.
        accept: Option<HeaderValue>,
    },
}

/// Both ends of a tunnel, once they are there.
pub(crate) struct Ends {
    pub(crate) downstream: OnUpgrade,
    pub(crate) upstream: UpstreamEnd,
}

/// The end of a tunnel at the upstream.
pub(crate) enum UpstreamEnd {
    /// Once it has switched.
    Switched(OnUpgrade),
    /// It is connected to for this tunnel.
    Dialled(Stream),
}

impl Upgrade {
    /// What a request asks for. The wish of one with a body is ignored, as a server may do: the
    /// body would have to end before anything can switch.
    ///
    /// An extended CONNECT becomes the request that asks for the same over HTTP/1.1.
    pub(crate) fn take(head: &mut Parts, body: &impl Body) -> Option<Self> {
        let downstream = head.extensions.remove::<OnUpgrade>()?;
        if let Some(protocol) = head.extensions.remove::<Protocol>() {
            return Self::of_connect(head, protocol.as_str(), downstream);
        }
        if head.version == Version::HTTP_10 || !body.is_end_stream() {
            return None;
        }
        if head.method == Method::CONNECT {
            return Some(Self {
                protocols: None,
                downstream,
                asked: Asked::Connect,
            });
        }
        if !tokens(&head.headers, &CONNECTION).any(|name| name.eq_ignore_ascii_case("upgrade")) {
            return None;
        }
        let protocols: Vec<_> = tokens(&head.headers, &UPGRADE)
            .filter(|protocol| !protocol.eq_ignore_ascii_case(H2C))
            .collect();
        let protocols = HeaderValue::from_str(&protocols.join(", ")).ok()?;
        (!protocols.is_empty()).then_some(Self {
            protocols: Some(protocols),
            downstream,
            asked: Asked::Header,
        })
    }

    fn of_connect(head: &mut Parts, protocol: &str, downstream: OnUpgrade) -> Option<Self> {
        let protocols = HeaderValue::from_str(protocol).ok()?;
        let mut accept = None;
        if protocol.eq_ignore_ascii_case("websocket") {
            let (key, answer) = websocket_key()?;
            head.headers.insert(SEC_WEBSOCKET_KEY, key);
            accept = Some(answer);
        }
        head.method = Method::GET;
        Some(Self {
            protocols: Some(protocols),
            downstream,
            asked: Asked::ExtendedConnect { accept },
        })
    }

    /// Writes the wish into a normalized head.
    pub(crate) fn put(&self, head: &mut Parts) {
        if let Some(protocols) = &self.protocols {
            put(&mut head.headers, protocols.clone());
        }
    }

    /// Makes the response one to what the client has sent: an extended CONNECT is accepted with 200.
    pub(crate) fn answer<B>(&self, response: &mut Response<B>) -> Result<(), UpstreamError> {
        let Asked::ExtendedConnect { accept } = &self.asked else {
            return Ok(());
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let headers = response.headers_mut();
            headers.remove(UPGRADE);
            headers.remove(CONNECTION);
            // The key was ours, so it is for us to check the answer to it (RFC 6455 section 4.1).
            let answer = headers.remove(SEC_WEBSOCKET_ACCEPT);
            if accept.is_some() && answer != *accept {
                return Err(UpstreamError::BadUpgrade);
            }
            *response.status_mut() = StatusCode::OK;
        } else if response.status().is_success() {
            // The client would take it for a tunnel.
            return Err(UpstreamError::BadUpgrade);
        }
        Ok(())
    }

    /// Both ends, if the response accepts it.
    pub(crate) fn accepted(self, response: &mut Response<Source>) -> Option<Ends> {
        let upstream = match self.asked {
            Asked::Connect => UpstreamEnd::Dialled(response.body_mut().take_tunnel()?),
            Asked::Header | Asked::ExtendedConnect { .. } => {
                UpstreamEnd::Switched(response.extensions_mut().remove::<OnUpgrade>()?)
            }
        };
        Some(Ends {
            downstream: self.downstream,
            upstream,
        })
    }
}

/// The protocol that a response switches to, if it is one of those that were asked for.
pub(crate) fn accepted(asked: Option<&HeaderValue>, response: &HeaderMap) -> Option<HeaderValue> {
    let accepted = response.get(UPGRADE)?;
    let name = accepted.to_str().ok()?.trim();
    let mut asked = asked?.to_str().ok()?.split(',');
    let is_one = asked.any(|asked| asked.trim().eq_ignore_ascii_case(name));
    is_one.then(|| accepted.clone())
}

/// Names a protocol to switch to.
pub(crate) fn put(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// What a header lists.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    let tokens = values.flat_map(|value| value.split(','));
    tokens.map(str::trim).filter(|token| !token.is_empty())
}

/// A key that no cache has an answer to, and the answer (RFC 6455 sections 4.1 and 4.2.2).
fn websocket_key() -> Option<(HeaderValue, HeaderValue)> {
    let mut nonce = [0; 16];
    rand::fill(&mut nonce).ok()?;
    let key = STANDARD.encode(nonce);
    let answer = HeaderValue::from_str(&websocket_answer(&key)).ok()?;
    Some((HeaderValue::from_str(&key).ok()?, answer))
}

fn websocket_answer(key: &str) -> String {
    let text = format!("{key}{WEBSOCKET_GUID}");
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use http_body_util::{Empty, Full};

    use super::*;

    fn asked(version: Version, headers: &[(&str, &str)], body: &str) -> Option<String> {
        let mut request = http::Request::builder().version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        let pending = hyper::upgrade::on(&mut request);
        let (mut head, ()) = request.into_parts();
        head.extensions.insert(pending);
        let body = Full::new(bytes::Bytes::from(body.to_owned()));
        let upgrade = Upgrade::take(&mut head, &body)?;
        upgrade.put(&mut head);
        assert_eq!(head.headers.get(CONNECTION).unwrap(), "Upgrade");
        Some(
            head.headers
                .get(UPGRADE)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned(),
        )
    }

    #[test]
    fn only_a_whole_wish_that_means_this_connection_is_one() {
        let connection = ("connection", "keep-alive, Upgrade");
        for (headers, body, expected) in [
            (
                &[connection, ("upgrade", "websocket")][..],
                "",
                Some("websocket"),
            ),
            (
                &[connection, ("upgrade", "h2c, WebSocket,irc/6.9")],
                "",
                Some("WebSocket, irc/6.9"),
            ),
            (&[connection, ("upgrade", "H2C")], "", None),
            (&[connection, ("upgrade", " , ")], "", None),
            (&[connection], "", None),
            (&[("upgrade", "websocket")], "", None),
            (
                &[("connection", "close"), ("upgrade", "websocket")],
                "",
                None,
            ),
            (&[connection, ("upgrade", "websocket")], "body", None),
        ] {
            let found = asked(Version::HTTP_11, headers, body);
            assert_eq!(found.as_deref(), expected, "{headers:?} {body}");
        }
        let headers = [connection, ("upgrade", "websocket")];
        assert_eq!(asked(Version::HTTP_10, &headers, ""), None);
    }

    #[test]
    fn a_request_that_asks_for_nothing_has_no_wish() {
        let (mut head, ()) = http::Request::new(()).into_parts();
        assert!(Upgrade::take(&mut head, &Empty::<bytes::Bytes>::new()).is_none());
    }

    #[test]
    fn an_upstream_may_switch_to_what_it_was_asked_for_only() {
        for (asked, answered, expected) in [
            (Some("websocket"), Some("WebSocket"), true),
            (Some("a, b/1"), Some("b/1"), true),
            (Some("a, b/1"), Some("b"), false),
            (Some("a"), None, false),
            (None, Some("a"), false),
            (Some("a, b"), Some("a, b"), false),
        ] {
            let asked = asked.map(HeaderValue::from_static);
            let mut response = HeaderMap::new();
            if let Some(answered) = answered {
                response.insert(UPGRADE, HeaderValue::from_static(answered));
            }
            let found = accepted(asked.as_ref(), &response);
            assert_eq!(found.is_some(), expected, "{asked:?} {response:?}");
        }
    }

    #[test]
    fn a_websocket_key_has_the_answer_that_servers_give() {
        let (key, answer) = websocket_key().unwrap();
        assert_eq!((key.len(), answer.len()), (24, 28));
        let answer = websocket_answer("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(
            answer, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            "the example of RFC 6455"
        );
        assert_ne!(websocket_key().unwrap().0, key);
    }
}
