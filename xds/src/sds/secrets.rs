//! Identities as Envoy's secrets.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::{DataSource, TypedExtensionConfig};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::spiffe_cert_validator_config::TrustDomain;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, SpiffeCertValidatorConfig, TlsCertificate,
};
use envoy_types::util::pack_any;
use sidegate_identity::SpiffeId;
use sidegate_identity::encoding::{certificates_pem, private_key_pem};
use sidegate_identity::selector::Selector;
use sidegate_identity::svid::{Identities, X509Svid};

/// The caller's first SVID.
const DEFAULT_SVID: &str = "default";
/// The bundle of the own trust domain.
const OWN_BUNDLE: &str = "ROOTCA";
/// The bundles of the own and all federated trust domains.
const ALL_BUNDLES: &str = "ALL";

/// The secret of one name, if the caller may have it.
pub(super) fn named(name: &str, identities: &Identities, selectors: &[Selector]) -> Option<Secret> {
    let mut entitled = identities.entitled(selectors).map(|issued| &issued.svid);
    let trusted = trusted(identities, selectors);
    match name {
        DEFAULT_SVID => Some(certificate(name, entitled.next()?)),
        OWN_BUNDLE => {
            let own = BTreeSet::from([&identities.trust_domain]);
            Some(bundles(name, identities, &own))
        }
        ALL_BUNDLES => Some(bundles(name, identities, &trusted)),
        _ => {
            if let Some(svid) = entitled.find(|svid| svid.id().to_string() == name) {
                return Some(certificate(name, svid));
            }
            let mut trusted = trusted.into_iter();
            let known = trusted.find(|known| known.id_string() == name)?;
            Some(bundles(name, identities, &BTreeSet::from([known])))
        }
    }
}

/// Everything that the caller may have: its SVIDs and the bundles, each under its SPIFFE ID.
pub(super) fn everything(identities: &Identities, selectors: &[Selector]) -> Vec<Secret> {
    let svids = identities
        .entitled(selectors)
        .map(|issued| issued.svid.id().to_string());
    let trusted = trusted(identities, selectors);
    let trust_domains = trusted.iter().map(|name| name.id_string());
    svids
        .chain(trust_domains)
        .filter_map(|name| named(&name, identities, selectors))
        .collect()
}

/// The trust domains whose bundles are there and belong to the caller's.
fn trusted<'a>(
    identities: &'a Identities,
    selectors: &'a [Selector],
) -> BTreeSet<&'a sidegate_identity::TrustDomain> {
    let mut trusted = identities.trusted_by(identities.entitled(selectors));
    trusted.retain(|trust_domain| identities.bundles.contains_key(*trust_domain));
    trusted
}

/// Whether a bundle's name is this: a trust domain's SPIFFE ID, which has no path.
pub(super) fn is_trust_domain(name: &str) -> bool {
    SpiffeId::new(name).is_ok_and(|id| id.path().is_empty())
}

/// A bundle that verifies nobody.
pub(super) fn empty_bundle(name: &str) -> Secret {
    validation_context(name, Vec::new())
}

fn certificate(name: &str, svid: &X509Svid) -> Secret {
    let chain = certificates_pem(svid.chain());
    let key = private_key_pem(svid.key());
    Secret {
        name: name.to_owned(),
        r#type: Some(Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(inline(chain.as_bytes())),
            private_key: Some(inline(key.as_bytes())),
            ..TlsCertificate::default()
        })),
    }
}

/// Bundles go to Envoy's SPIFFE validator, which chooses the bundle by the peer's trust domain.
/// Where none is left it gets an empty list, which refuses every peer: Envoy ignores removals.
fn bundles(
    name: &str,
    identities: &Identities,
    wanted: &BTreeSet<&sidegate_identity::TrustDomain>,
) -> Secret {
    let trust_domains = identities
        .bundles
        .iter()
        .filter(|(trust_domain, bundle)| {
            wanted.contains(trust_domain) && !bundle.roots().is_empty()
        })
        .map(|(trust_domain, bundle)| TrustDomain {
            name: trust_domain.to_string(),
            trust_bundle: Some(inline(certificates_pem(bundle.roots()).as_bytes())),
            ..TrustDomain::default()
        })
        .collect();
    validation_context(name, trust_domains)
}

fn validation_context(name: &str, trust_domains: Vec<TrustDomain>) -> Secret {
    let validator = SpiffeCertValidatorConfig {
        trust_domains,
        ..SpiffeCertValidatorConfig::default()
    };
    Secret {
        name: name.to_owned(),
        r#type: Some(Type::ValidationContext(CertificateValidationContext {
            custom_validator_config: Some(TypedExtensionConfig {
                name: "envoy.tls.cert_validator.spiffe".to_owned(),
                typed_config: Some(pack_any(validator)),
            }),
            ..CertificateValidationContext::default()
        })),
    }
}

fn inline(content: &[u8]) -> DataSource {
    DataSource {
        specifier: Some(Specifier::InlineBytes(content.to_vec())),
        ..DataSource::default()
    }
}
