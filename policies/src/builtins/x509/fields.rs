//! The fields of `x509.Certificate` and `x509.CertificateRequest`.

use std::collections::BTreeMap;

use regorus::Value;
use x509_parser::asn1_rs::Oid;
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::X509Extension;
use x509_parser::num_bigint::{BigInt, Sign};
use x509_parser::public_key::PublicKey;
use x509_parser::signature_algorithm::SignatureAlgorithm;
use x509_parser::time::ASN1Time;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

use super::extensions::Extensions;
use super::name;
use crate::builtins::values::{array_or_null, base64, object};

/// Larger numbers are refused: RSA keys are no longer than this, in bits.
const NUMBER_BITS: u64 = 16_384;

/// The members of a document.
pub(super) type Members = BTreeMap<Value, Value>;

/// The document of one certificate.
pub(super) fn certificate(
    certificate: &X509Certificate<'_>,
    with_uri_strings: bool,
) -> Option<Value> {
    let tbs = &certificate.tbs_certificate;
    let mut members = Members::new();
    let mut set = |name: &str, value: Value| members.insert(name.into(), value);
    set("Raw", base64(certificate.as_raw()));
    set("RawTBSCertificate", base64(tbs.as_ref()));
    set("RawIssuer", base64(tbs.issuer().as_raw()));
    set("Issuer", name::document(tbs.issuer())?);
    set("SerialNumber", integer(tbs.raw_serial())?);
    let version = tbs.version().0.checked_add(1)?;
    set("Version", version.into());
    set("NotBefore", moment(tbs.validity().not_before)?);
    set("NotAfter", moment(tbs.validity().not_after)?);
    set(
        "Signature",
        base64(certificate.signature_value.data.as_ref()),
    );
    set(
        "SignatureAlgorithm",
        signature_algorithm(&certificate.signature_algorithm).into(),
    );
    subject(tbs.subject(), tbs.public_key(), &mut members)?;
    let extensions = Extensions::read(tbs.extensions())?;
    extensions.set_names(&mut members)?;
    if with_uri_strings {
        members.insert("URIStrings".into(), extensions.uri_strings());
    }
    extensions.set_all(tbs.extensions(), &mut members)?;
    Some(Value::from(members))
}

/// The document of a certificate request, without its raw attributes.
pub(super) fn request(request: &X509CertificationRequest<'_>) -> Option<Value> {
    let info = &request.certification_request_info;
    let mut members = Members::new();
    let mut set = |name: &str, value: Value| members.insert(name.into(), value);
    set("Raw", base64(request.as_raw()));
    set("RawTBSCertificateRequest", base64(info.raw));
    set("Version", info.version.0.into());
    set("Signature", base64(request.signature_value.data.as_ref()));
    set(
        "SignatureAlgorithm",
        signature_algorithm(&request.signature_algorithm).into(),
    );
    subject(&info.subject, &info.subject_pki, &mut members)?;
    let mut requested: Vec<X509Extension<'_>> = Vec::new();
    for attribute in info.attributes() {
        if let ParsedCriAttribute::ExtensionRequest(request) = attribute.parsed_attribute() {
            requested.extend(request.extensions.iter().cloned());
        }
    }
    Extensions::read(&requested)?.set_names(&mut members)?;
    members.insert("Extensions".into(), raw_extensions(&requested)?);
    members.insert("ExtraExtensions".into(), Value::Null);
    Some(Value::from(members))
}

/// What certificates and requests say of their subject.
fn subject(
    subject: &x509_parser::x509::X509Name<'_>,
    key: &SubjectPublicKeyInfo<'_>,
    members: &mut Members,
) -> Option<()> {
    members.insert("Subject".into(), name::document(subject)?);
    members.insert("RawSubject".into(), base64(subject.as_raw()));
    members.insert("RawSubjectPublicKeyInfo".into(), base64(key.raw));
    let (algorithm, key) = public_key(key)?;
    members.insert("PublicKeyAlgorithm".into(), algorithm.into());
    members.insert("PublicKey".into(), key);
    Some(())
}

/// The extensions as they are encoded.
pub(super) fn raw_extensions(extensions: &[X509Extension<'_>]) -> Option<Value> {
    let extensions = extensions.iter().map(|extension| {
        Some(object([
            ("Id", identifier(&extension.oid)?),
            ("Critical", extension.critical.into()),
            ("Value", base64(extension.value)),
        ]))
    });
    Some(array_or_null(extensions.collect::<Option<Vec<Value>>>()?))
}

/// An object identifier as the list of its numbers.
pub(super) fn identifier(identifier: &Oid<'_>) -> Option<Value> {
    let numbers = identifier.iter()?.map(Value::from);
    Some(Value::from(numbers.collect::<Vec<Value>>()))
}

/// An object identifier as it is written, if its numbers are of a sane size.
pub(crate) fn dotted(identifier: &Oid<'_>) -> Option<String> {
    let numbers = identifier.iter()?.map(|number| number.to_string());
    Some(numbers.collect::<Vec<String>>().join("."))
}

/// Go's numbers of `x509.PublicKeyAlgorithm`, and the key itself.
fn public_key(info: &SubjectPublicKeyInfo<'_>) -> Option<(u32, Value)> {
    Some(match info.parsed().ok()? {
        PublicKey::RSA(key) => {
            let modulus = BigInt::from_bytes_be(Sign::Plus, key.modulus);
            let exponent = BigInt::from_bytes_be(Sign::Plus, key.exponent);
            let key = object([("N", big(&modulus)?), ("E", big(&exponent)?)]);
            (1, key)
        }
        PublicKey::EC(point) => {
            // Only the uncompressed form; Go reads no other.
            let (form, coordinates) = point.data().split_first()?;
            let (x, y) = coordinates.split_at_checked(coordinates.len().div_euclid(2))?;
            if *form != 4 || x.len() != y.len() {
                return None;
            }
            let coordinate = |bytes| big(&BigInt::from_bytes_be(Sign::Plus, bytes));
            let key = object([
                ("Curve", Value::new_object()),
                ("X", coordinate(x)?),
                ("Y", coordinate(y)?),
            ]);
            (3, key)
        }
        PublicKey::Unknown(key) if dotted(&info.algorithm.algorithm)? == "1.3.101.112" => {
            (4, base64(key))
        }
        PublicKey::DSA(_) => (2, Value::Null),
        _ => (0, Value::Null),
    })
}

/// Go's numbers of `x509.SignatureAlgorithm`.
fn signature_algorithm(algorithm: &AlgorithmIdentifier<'_>) -> u32 {
    match dotted(&algorithm.algorithm).unwrap_or_default().as_str() {
        "1.2.840.113549.1.1.2" => 1,
        "1.2.840.113549.1.1.4" => 2,
        "1.2.840.113549.1.1.5" | "1.3.14.3.2.29" => 3,
        "1.2.840.113549.1.1.11" => 4,
        "1.2.840.113549.1.1.12" => 5,
        "1.2.840.113549.1.1.13" => 6,
        "1.2.840.10040.4.3" => 7,
        "2.16.840.1.101.3.4.3.2" => 8,
        "1.2.840.10045.4.1" => 9,
        "1.2.840.10045.4.3.2" => 10,
        "1.2.840.10045.4.3.3" => 11,
        "1.2.840.10045.4.3.4" => 12,
        "1.2.840.113549.1.1.10" => pss(algorithm).unwrap_or(0),
        "1.3.101.112" => 16,
        _ => 0,
    }
}

/// Go names RSA-PSS by its digest.
fn pss(algorithm: &AlgorithmIdentifier<'_>) -> Option<u32> {
    let SignatureAlgorithm::RSASSA_PSS(parameters) =
        SignatureAlgorithm::try_from(algorithm).ok()?
    else {
        return None;
    };
    match dotted(parameters.hash_algorithm_oid())?.as_str() {
        "2.16.840.1.101.3.4.2.1" => Some(13),
        "2.16.840.1.101.3.4.2.2" => Some(14),
        "2.16.840.1.101.3.4.2.3" => Some(15),
        _ => None,
    }
}

/// A signed number of any size. Go refuses negative serial numbers.
fn integer(bytes: &[u8]) -> Option<Value> {
    let number = BigInt::from_signed_bytes_be(bytes);
    (number.sign() != Sign::Minus).then(|| big(&number))?
}

fn big(number: &BigInt) -> Option<Value> {
    if number.bits() > NUMBER_BITS {
        return None;
    }
    Value::from_numeric_string(&number.to_string()).ok()
}

/// RFC 3339.
fn moment(time: ASN1Time) -> Option<Value> {
    let time = time.to_datetime();
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z").into())
}
