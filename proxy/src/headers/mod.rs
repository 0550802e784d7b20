//! What upstreams are told of who calls, and what a peer may tell of those before it.
//!
//! A client's word about who it is counts for nothing, and is taken out. That of a *trusted hop*, a
//! proxy of our own in front of this one, is continued as Envoy does it.

mod client_cert;
mod subject;
mod xfcc;

use std::borrow::Cow;
use std::net::SocketAddr;

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName, HeaderValue};
use rustls::pki_types::CertificateDer;
use sidegate_identity::SpiffeId;
use sidegate_identity::tls::PeerError;

use crate::head::{REQUEST_ID, XFCC};
pub(crate) use client_cert::url_encoded;
pub(crate) use xfcc::Malformed;

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// How the client is connected.
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Envoy's header that tells the policy whether it sees a part of the body only.
const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";
/// What Envoy makes anew wherever a request comes from.
const ENVOY_INTERNAL: &str = "x-envoy-internal";

/// What an Envoy tells of a request that it trusts, and takes from those that it does not.
const ENVOYS: [&str; 4] = [
    "x-envoy-external-address",
    ENVOY_INTERNAL,
    "x-envoy-original-host",
    "x-envoy-original-path",
];

/// The longest id of a request that a trusted hop may give.
const REQUEST_ID_MAX: usize = 128;

/// What becomes of `x-forwarded-client-cert`: Envoy's `ForwardClientCertDetails`. What comes in it
/// is believed from trusted hops only; from all others it goes in every mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// There is none upstream.
    Sanitize,
    /// There is what a trusted hop sent. We add nothing.
    ForwardOnly,
    /// What we say of the peer follows what a trusted hop sent.
    AppendForward,
    /// There is only what we say of the peer.
    #[default]
    SanitizeSet,
    /// As [`ForwardClientCert::ForwardOnly`], which is for peers with a certificate. A peer without
    /// one is no trusted hop, so that here the two are the same.
    AlwaysForwardOnly,
}

/// What we say of the peer's certificate, besides `By` and `Hash`: Envoy's
/// `SetCurrentClientCertDetails`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientCertDetails {
    /// The certificate: PEM, URL-encoded.
    pub cert: bool,
    /// The certificate and those above it that the peer showed: PEM, URL-encoded.
    pub chain: bool,
    /// Its subject, in the form of RFC 2253.
    pub subject: bool,
    /// Its URI name: the SPIFFE ID.
    pub uri: bool,
    /// Its DNS names.
    pub dns: bool,
}

/// What a listener tells upstreams of its peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// What becomes of `x-forwarded-client-cert`.
    pub client_cert: ForwardClientCert,
    /// What we say in it.
    pub details: ClientCertDetails,
    /// Whom we believe what they tell of those before them. An ID without a path stands for every
    /// workload of its trust domain.
    pub trusted_hops: Vec<SpiffeId>,
}

/// Whose certificate an upstream is told of, and by whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer<'a> {
    pub(crate) spiffe_id: &'a SpiffeId,
    /// What it showed, its own certificate first.
    pub(crate) chain: &'a [CertificateDer<'a>],
    /// The identity that was shown to it.
    pub(crate) shown: &'a SpiffeId,
}

/// What this proxy says about a connection's peer, in headers that nobody else may write.
#[derive(Debug, Clone)]
pub(crate) struct IdentityHeaders {
    /// One element of `x-forwarded-client-cert`, where we write one.
    client_cert: Option<HeaderValue>,
    /// The peer's IP address.
    downstream: HeaderValue,
    /// `https` or `http`, by how the peer is connected.
    scheme: &'static str,
    hop: Hop,
}

/// Whether the peer is believed what it tells of those before it.
#[derive(Debug, Clone, Copy)]
enum Hop {
    Untrusted,
    Trusted { keeps_client_cert: bool },
}

/// What a trusted hop tells cannot be what it meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HopProblem {
    #[error("the x-forwarded-client-cert of a trusted hop is malformed")]
    ClientCert(#[source] Malformed),
    #[error("the x-forwarded-proto of a trusted hop is not once `http` or `https`")]
    Proto,
}

impl ForwardClientCert {
    /// Whether it forwards what a trusted hop sends.
    pub fn forwards(self) -> bool {
        match self {
            Self::ForwardOnly | Self::AppendForward | Self::AlwaysForwardOnly => true,
            Self::Sanitize | Self::SanitizeSet => false,
        }
    }

    /// Whether it writes what we say of the peer.
    pub fn writes(self) -> bool {
        match self {
            Self::AppendForward | Self::SanitizeSet => true,
            Self::Sanitize | Self::ForwardOnly | Self::AlwaysForwardOnly => false,
        }
    }
}

impl Default for ClientCertDetails {
    /// The SPIFFE ID.
    fn default() -> Self {
        Self {
            uri: true,
            ..Self::NONE
        }
    }
}

impl ClientCertDetails {
    /// `By` and `Hash` alone.
    pub const NONE: Self = Self {
        cert: false,
        chain: false,
        subject: false,
        uri: false,
        dns: false,
    };
}

impl Forwarding {
    fn trusts(&self, peer: &SpiffeId) -> bool {
        self.trusted_hops.iter().any(|hop| match hop.path() {
            "" => hop.trust_domain() == peer.trust_domain(),
            _ => hop == peer,
        })
    }
}

impl IdentityHeaders {
    /// Of a peer that is nobody in particular, there is only its address.
    ///
    /// # Errors
    /// When the peer's certificate has something that no header can hold.
    pub(crate) fn new(
        forwarding: &Forwarding,
        address: SocketAddr,
        scheme: &'static str,
        peer: Option<Peer<'_>>,
    ) -> Result<Self, PeerError> {
        let mode = forwarding.client_cert;
        let written = peer.filter(|_| mode.writes());
        let element = written.map(|peer| client_cert::element(forwarding.details, peer));
        Ok(Self {
            client_cert: element.transpose()?,
            downstream: HeaderValue::from_str(&address.ip().to_string())
                .map_err(|_| PeerError::Unparsable)?,
            scheme,
            hop: match peer.is_some_and(|peer| forwarding.trusts(peer.spiffe_id)) {
                true => Hop::Trusted {
                    keeps_client_cert: mode.forwards(),
                },
                false => Hop::Untrusted,
            },
        })
    }

    /// `https` or `http`, by how the peer is connected.
    pub(crate) fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// The id that a trusted hop has given a request.
    pub(crate) fn request_id<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let Hop::Trusted { .. } = self.hop else {
            return None;
        };
        let id = only(headers, &REQUEST_ID)?.to_str().ok()?;
        let is_usable = (1..=REQUEST_ID_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_graphic());
        is_usable.then_some(id)
    }

    /// Takes out what a client says about who it is and where it came from, and says it ourselves.
    /// What a trusted hop says is continued.
    pub(crate) fn write(
        &self,
        headers: &mut HeaderMap,
        request_id: &HeaderValue,
    ) -> Result<(), HopProblem> {
        let mut client_cert = self.client_cert.clone();
        let mut forwarded_for = self.downstream.clone();
        let mut proto = HeaderValue::from_static(self.scheme);
        if let Hop::Trusted { keeps_client_cert } = self.hop {
            if keeps_client_cert {
                for told in headers.get_all(XFCC) {
                    xfcc::check(told.as_bytes()).map_err(HopProblem::ClientCert)?;
                }
                client_cert = continued(headers, &XFCC, client_cert);
            }
            let own = forwarded_for.clone();
            forwarded_for =
                continued(headers, &X_FORWARDED_FOR, Some(own)).unwrap_or(forwarded_for);
            if headers.contains_key(X_FORWARDED_PROTO) {
                proto = only(headers, &X_FORWARDED_PROTO)
                    .filter(|told| *told == "http" || *told == "https")
                    .ok_or(HopProblem::Proto)?
                    .clone();
            }
        }
        self.strip(headers);
        if let Some(client_cert) = client_cert {
            headers.insert(XFCC, client_cert);
        }
        headers.insert(X_FORWARDED_FOR, forwarded_for);
        headers.insert(X_FORWARDED_PROTO, proto);
        headers.insert(REQUEST_ID, request_id.clone());
        Ok(())
    }

    fn strip(&self, headers: &mut HeaderMap) {
        strip(headers, |name| {
            tells_of_callers(name)
                && match self.hop {
                    Hop::Untrusted => true,
                    // Our own spelling alone is what a hop writes; what comes in another, it passed on.
                    Hop::Trusted { .. } => {
                        name.contains('_')
                            || [XFCC.as_str(), PARTIAL_BODY, ENVOY_INTERNAL].contains(&name)
                    }
                }
        });
    }
}

/// Removes the headers that go by their name.
pub(crate) fn strip(headers: &mut HeaderMap, goes: impl Fn(&str) -> bool) {
    let named = headers.keys().filter(|name| goes(name.as_str()));
    let named: Vec<_> = named.cloned().collect();
    for name in named {
        headers.remove(name);
    }
}

/// Whether a header says who calls, or where a request came from. Many servers take `_` for `-` in
/// names, so that spelling counts too.
pub(crate) fn tells_of_callers(name: &str) -> bool {
    let name = match name.contains('_') {
        false => Cow::Borrowed(name),
        true => Cow::Owned(name.replace('_', "-")),
    };
    name.starts_with("x-forwarded-")
        || *name == *FORWARDED.as_str()
        || *name == *REQUEST_ID.as_str()
        || *name == *PARTIAL_BODY
        || ENVOYS.contains(&&*name)
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value),
        _ => None,
    }
}

/// What a header says, in as many lines as it came, and then what we say: one value, with a comma
/// and no space between, as Envoy writes it.
fn continued(
    headers: &HeaderMap,
    name: &HeaderName,
    own: Option<HeaderValue>,
) -> Option<HeaderValue> {
    let told = headers.get_all(name).iter().chain(&own);
    let told: Vec<_> = told
        .map(HeaderValue::as_bytes)
        .filter(|value| !value.is_empty())
        .collect();
    // Values joined by a separator are a value.
    match told.is_empty() {
        true => None,
        false => HeaderValue::from_bytes(&told.join(&b","[..])).ok(),
    }
}

#[cfg(test)]
mod tests;
