//! `crypto.x509.parse_and_verify_certificates`: a chain from a root, which
//! comes first, to a leaf, which comes last.

use std::time::Duration;

use regorus::Value;
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage,
    RequiredEkuNotFoundContext, anchor_from_trusted_cert,
};
use x509_parser::asn1_rs::Oid;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::OID_X509_EXT_EXTENDED_KEY_USAGE;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

use super::{certificate, certificates_der};
use crate::builtins::clock;
use crate::builtins::values::{members, text};

/// Names of extended key usages and their object identifiers.
const KEY_USAGES: &[(&str, &[usize])] = &[
    ("KeyUsageServerAuth", &[1, 3, 6, 1, 5, 5, 7, 3, 1]),
    ("KeyUsageClientAuth", &[1, 3, 6, 1, 5, 5, 7, 3, 2]),
    ("KeyUsageCodeSigning", &[1, 3, 6, 1, 5, 5, 7, 3, 3]),
    ("KeyUsageEmailProtection", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("KeyUsageIPSECEndSystem", &[1, 3, 6, 1, 5, 5, 7, 3, 5]),
    ("KeyUsageIPSECTunnel", &[1, 3, 6, 1, 5, 5, 7, 3, 6]),
    ("KeyUsageIPSECUser", &[1, 3, 6, 1, 5, 5, 7, 3, 7]),
    ("KeyUsageTimeStamping", &[1, 3, 6, 1, 5, 5, 7, 3, 8]),
    ("KeyUsageOCSPSigning", &[1, 3, 6, 1, 5, 5, 7, 3, 9]),
    (
        "KeyUsageMicrosoftServerGatedCrypto",
        &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3],
    ),
    (
        "KeyUsageNetscapeServerGatedCrypto",
        &[2, 16, 840, 1, 113730, 4, 1],
    ),
    (
        "KeyUsageMicrosoftCommercialCodeSigning",
        &[1, 3, 6, 1, 4, 1, 311, 2, 1, 22],
    ),
    (
        "KeyUsageMicrosoftKernelCodeSigning",
        &[1, 3, 6, 1, 4, 1, 311, 61, 1, 1],
    ),
];
const ANY_KEY_USAGE: &str = "KeyUsageAny";
const ANY_KEY_USAGE_ID: &[usize] = &[2, 5, 29, 37, 0];
const SERVER: &[usize] = &[1, 3, 6, 1, 5, 5, 7, 3, 1];

/// What a chain must be besides.
struct Options<'a> {
    name: &'a str,
    time: Duration,
    usages: Usages,
}

/// Usages of which every certificate of a chain must have one, unless it
/// names none at all. `None` is any.
#[derive(Clone)]
struct Usages(Option<Vec<&'static [usize]>>);

impl ExtendedKeyUsageValidator for Usages {
    fn validate(&self, usages: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let Some(wanted) = &self.0 else { return Ok(()) };
        let mut present = Vec::new();
        for usage in usages {
            let usage = usage?.to_decoded_oid();
            if usage == ANY_KEY_USAGE_ID || wanted.contains(&usage.as_slice()) {
                return Ok(());
            }
            present.push(usage);
        }
        if present.is_empty() {
            return Ok(());
        }
        Err(webpki::Error::RequiredEkuNotFoundContext(
            RequiredEkuNotFoundContext {
                required: KeyUsage::server_auth(),
                present,
            },
        ))
    }
}

/// `crypto.x509.parse_and_verify_certificates(certificates)`: whether the last
/// certificate is valid now for a server, and the chain from it to the root.
pub(crate) fn parse_and_verify(arguments: &[Value]) -> Option<Value> {
    let [certificates] = arguments else {
        return None;
    };
    let options = Options {
        name: "",
        time: clock::now(),
        usages: Usages(Some(vec![SERVER])),
    };
    answer(text(certificates)?, &options, true)
}

/// `crypto.x509.parse_and_verify_certificates_with_options(certificates,
/// options)`: with another time (`CurrentTime`, nanoseconds since 1970), for a
/// host (`DNSName`), or for other uses (`KeyUsages`).
pub(crate) fn parse_and_verify_with_options(arguments: &[Value]) -> Option<Value> {
    let [certificates, options] = arguments else {
        return None;
    };
    let options = Options::parse(options)?;
    answer(text(certificates)?, &options, false)
}

impl<'a> Options<'a> {
    /// An unknown option is an error.
    fn parse(options: &'a Value) -> Option<Self> {
        let Value::Object(options) = options else {
            return None;
        };
        let mut parsed = Self {
            name: "",
            time: clock::now(),
            usages: Usages(Some(vec![SERVER])),
        };
        for (name, value) in options.iter() {
            match text(name)? {
                "DNSName" => parsed.name = text(value)?.trim_matches('"'),
                "CurrentTime" => {
                    let nanoseconds = value.as_i64().ok()?;
                    // Go takes the moment zero for no moment, which is now.
                    parsed.time = Duration::from_nanos(u64::try_from(nanoseconds).ok()?);
                }
                // The bound of the verifier here is its own.
                "MaxConstraintComparisons" => {
                    value.as_i64().ok()?;
                }
                "KeyUsages" => {
                    let names = members(value)?.into_iter().map(text);
                    let names = names.collect::<Option<Vec<&str>>>()?;
                    parsed.usages = Usages::named(&names)?;
                }
                _ => return None,
            }
        }
        Some(parsed)
    }
}

impl Usages {
    /// Whether a root names no usages, or one that is wanted.
    fn allow(&self, root: &X509Certificate<'_>) -> bool {
        let Some(wanted) = &self.0 else { return true };
        let mut extensions = root.extensions().iter();
        let Some(usages) =
            extensions.find(|extension| extension.oid == OID_X509_EXT_EXTENDED_KEY_USAGE)
        else {
            return true;
        };
        let Ok((_, usages)) = Vec::<Oid<'_>>::from_der(usages.value) else {
            return false;
        };
        usages.iter().filter_map(Oid::iter).any(|numbers| {
            let numbers = numbers.map(usize::try_from);
            numbers
                .collect::<Result<Vec<usize>, _>>()
                .is_ok_and(|usage| usage == ANY_KEY_USAGE_ID || wanted.contains(&usage.as_slice()))
        })
    }

    fn named(names: &[&str]) -> Option<Self> {
        let mut usages = Vec::new();
        let mut any = false;
        for name in names {
            let name = name.trim_matches('"');
            if name == ANY_KEY_USAGE {
                any = true;
                continue;
            }
            let (_, usage) = KEY_USAGES.iter().find(|(known, _)| *known == name)?;
            usages.push(*usage);
        }
        if usages.is_empty() && !any {
            usages.push(SERVER);
        }
        Some(Self((!any).then_some(usages)))
    }
}

fn answer(certificates: &str, options: &Options<'_>, with_uri_strings: bool) -> Option<Value> {
    let chain =
        certificates_der(certificates).and_then(|certificates| chain(&certificates, options));
    let Some(chain) = chain else {
        return Some(Value::from(vec![false.into(), Value::new_array()]));
    };
    let documents = chain.iter().map(|der| certificate(der, with_uri_strings));
    let documents = documents.collect::<Option<Vec<Value>>>()?;
    Some(Value::from(vec![true.into(), Value::from(documents)]))
}

/// The certificates from the leaf to the root, if the leaf is valid.
fn chain(certificates: &[Vec<u8>], options: &Options<'_>) -> Option<Vec<Vec<u8>>> {
    let (root, others) = certificates.split_first()?;
    let (leaf, intermediates) = others.split_last()?;
    let root_der = CertificateDer::from(root.as_slice());
    let anchors: [TrustAnchor<'_>; 1] = [anchor_from_trusted_cert(&root_der).ok()?];
    let leaf_der = CertificateDer::from(leaf.as_slice());
    let intermediates: Vec<CertificateDer<'_>> = intermediates
        .iter()
        .map(|der| CertificateDer::from(der.as_slice()))
        .collect();
    let end = EndEntityCert::try_from(&leaf_der).ok()?;
    let path = end
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &intermediates,
            UnixTime::since_unix_epoch(options.time),
            options.usages.clone(),
            None,
            None,
        )
        .ok()?;
    if !options.name.is_empty() {
        let name = ServerName::try_from(options.name).ok()?;
        end.verify_is_valid_for_subject_name(&name).ok()?;
    }
    let middle = path.intermediate_certificates();
    let middle: Vec<Vec<u8>> = middle
        .map(|certificate| certificate.der().to_vec())
        .collect();
    if !is_root(root, middle.len(), options) || !middle.iter().all(|der| signs_certificates(der)) {
        return None;
    }
    Some(
        std::iter::once(leaf.clone())
            .chain(middle)
            .chain([root.clone()])
            .collect(),
    )
}

/// What Go asks of a root, but the verifier does not: to it, a trust anchor is
/// a name and a key.
fn is_root(der: &[u8], intermediates: usize, options: &Options<'_>) -> bool {
    let Ok((_, root)) = x509_parser::parse_x509_certificate(der) else {
        return false;
    };
    let validity = root.validity();
    let current = i64::try_from(options.time.as_secs()).is_ok_and(|now| {
        (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
    });
    let authority = match root.basic_constraints() {
        Ok(Some(constraints)) => {
            let longest = constraints.value.path_len_constraint;
            constraints.value.ca
                && longest.is_none_or(|longest| {
                    usize::try_from(longest).is_ok_and(|longest| intermediates <= longest)
                })
        }
        Ok(None) => root.version() != X509Version::V3,
        Err(_) => false,
    };
    current && authority && options.usages.allow(&root) && signs_certificates(der)
}

/// Whether a certificate's key usage, if it names one, is to sign certificates.
fn signs_certificates(der: &[u8]) -> bool {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(der) else {
        return false;
    };
    certificate
        .key_usage()
        .is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()))
}
