//! The leaf of a peer's X.509-SVID, read by the rules of X509-SVID.md sections 4 and 5.

use rustls::pki_types::CertificateDer;
use spiffe::{SpiffeId, TrustDomain};
use x509_parser::extensions::KeyUsage;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::clock::moment_of;
use crate::svid::Validity;

/// Who a peer is, once its chain has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its SPIFFE ID.
    pub spiffe_id: SpiffeId,
    /// When its SVID counts.
    pub validity: Validity,
}

/// The rule that a peer's certificate breaks.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PeerError {
    /// It is not even a certificate.
    #[error("the certificate cannot be parsed")]
    Unparsable,
    /// There is no URI among the subject alternative names.
    #[error("the certificate has no URI SAN, so it is no X.509-SVID")]
    NoUriSan,
    /// Which of several would count is anybody's guess.
    #[error("the certificate has {0} URI SANs; an X.509-SVID has exactly one")]
    SeveralUriSans(usize),
    /// The URI is no SPIFFE ID.
    #[error("the URI SAN `{uri}` is not a SPIFFE ID")]
    NotASpiffeId {
        /// The URI.
        uri: String,
        /// What is wrong with it.
        #[source]
        source: spiffe::SpiffeIdError,
    },
    /// The trust domain's own ID, which no workload may have.
    #[error("`{0}` has no path: it names a trust domain, not a workload")]
    NoPath(SpiffeId),
    /// A signing certificate must not be used to authenticate.
    #[error("the leaf is a signing certificate")]
    LeafIsAuthority,
    /// Key usage is missing or not critical.
    #[error("the leaf's key usage is missing or not marked critical")]
    KeyUsageMissing,
    /// Key usage says the wrong things.
    #[error("the leaf's key usage must have digitalSignature and neither keyCertSign nor cRLSign")]
    KeyUsageWrong,
    /// There is an extended key usage, and it lacks what SVIDs are for.
    #[error("the leaf's extended key usage lacks serverAuth or clientAuth")]
    ExtendedKeyUsageWrong,
    /// A certificate above the leaf may not sign.
    #[error("a certificate above the leaf is not a signing certificate")]
    SignerMayNotSign,
    /// A certificate above the leaf is somebody's whom its SPIFFE ID does not allow to sign.
    #[error("a signing certificate names `{0}`, which is not the leaf's trust domain")]
    SignerOfAnotherTrustDomain(String),
    /// There is no bundle for the trust domain.
    #[error("there is no bundle for the trust domain of `{0}`")]
    NoBundle(SpiffeId),
}

impl PeerError {
    /// The stable diagnostic code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unparsable => "SG0150",
            Self::NoUriSan => "SG0151",
            Self::SeveralUriSans(_) => "SG0152",
            Self::NotASpiffeId { .. } => "SG0153",
            Self::NoPath(_) => "SG0154",
            Self::LeafIsAuthority => "SG0155",
            Self::KeyUsageMissing => "SG0156",
            Self::KeyUsageWrong => "SG0157",
            Self::ExtendedKeyUsageWrong => "SG0158",
            Self::SignerMayNotSign => "SG0159",
            Self::SignerOfAnotherTrustDomain(_) => "SG0160",
            Self::NoBundle(_) => "SG0161",
        }
    }
}

impl PeerIdentity {
    /// Reads a leaf. That its chain leads to a trusted root is for the verifier to find out.
    ///
    /// # Errors
    /// The first rule that the leaf breaks.
    pub fn from_leaf(leaf: &CertificateDer<'_>) -> Result<Self, PeerError> {
        let certificate = parse(leaf)?;
        let spiffe_id = workload_id(&certificate)?;
        if certificate.is_ca() {
            return Err(PeerError::LeafIsAuthority);
        }
        let usage = certificate
            .extensions()
            .iter()
            .find(|extension| extension.oid == x509_parser::oid_registry::OID_X509_EXT_KEY_USAGE)
            .filter(|extension| extension.critical);
        if usage.is_none() {
            return Err(PeerError::KeyUsageMissing);
        }
        let usage = key_usage(&certificate)?;
        if !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
            return Err(PeerError::KeyUsageWrong);
        }
        let extended = certificate
            .extended_key_usage()
            .map_err(|_| PeerError::Unparsable)?;
        if extended.is_some_and(|usage| !usage.value.server_auth || !usage.value.client_auth) {
            return Err(PeerError::ExtendedKeyUsageWrong);
        }
        let validity = Validity {
            not_before: moment_of(certificate.validity().not_before),
            not_after: moment_of(certificate.validity().not_after),
        };
        Ok(Self {
            spiffe_id,
            validity,
        })
    }
}

/// Checks a certificate above a leaf: it may sign, and if it names a SPIFFE ID, then it is the one
/// of the leaf's own trust domain.
pub(crate) fn check_signer(
    signer: &CertificateDer<'_>,
    trust_domain: &TrustDomain,
) -> Result<(), PeerError> {
    let certificate = parse(signer)?;
    if !certificate.is_ca() || !key_usage(&certificate)?.key_cert_sign() {
        return Err(PeerError::SignerMayNotSign);
    }
    let own = trust_domain.id_string();
    match uris(&certificate)?.as_slice() {
        [] => Ok(()),
        [uri] if *uri == own => Ok(()),
        [uri, ..] => Err(PeerError::SignerOfAnotherTrustDomain((*uri).to_owned())),
    }
}

/// Checks a root that the trust domain's own server vouches for. It may be that of an organization,
/// which knows nothing of SPIFFE and says less about itself: that it may sign must not be denied.
pub(crate) fn check_anchor(root: &CertificateDer<'_>) -> Result<(), PeerError> {
    let certificate = parse(root)?;
    let may_sign = match key_usage(&certificate) {
        Err(PeerError::KeyUsageMissing) => true,
        usage => usage?.key_cert_sign(),
    };
    match certificate.is_ca() && may_sign {
        true => Ok(()),
        false => Err(PeerError::SignerMayNotSign),
    }
}

fn workload_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, PeerError> {
    let uri = match uris(certificate)?.as_slice() {
        [] => return Err(PeerError::NoUriSan),
        [uri] => *uri,
        several => return Err(PeerError::SeveralUriSans(several.len())),
    };
    let id = SpiffeId::new(uri).map_err(|source| PeerError::NotASpiffeId {
        uri: uri.to_owned(),
        source,
    })?;
    if id.path().is_empty() {
        return Err(PeerError::NoPath(id));
    }
    Ok(id)
}

fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, PeerError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| PeerError::Unparsable)?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    Ok(uris.collect())
}

fn key_usage(certificate: &X509Certificate<'_>) -> Result<KeyUsage, PeerError> {
    let usage = certificate.key_usage().map_err(|_| PeerError::Unparsable)?;
    usage
        .map(|usage| *usage.value)
        .ok_or(PeerError::KeyUsageMissing)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PeerError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(PeerError::Unparsable),
    }
}
