//! The keys of a bundle: JWKs (RFC 7517, RFC 7518 section 6) with the `use` values of SPIFFE.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED,
    EcdsaVerificationAlgorithm, ParsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::Value;
use x509_parser::oid_registry::{OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521, Oid};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey as CertificateKey;

use super::{SpiffeBundleError, object, unique};

const X509_SVID: &str = "x509-svid";
const JWT_SVID: &str = "jwt-svid";

/// The public key of a JWT-SVID authority. Holds nothing but public members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtKey {
    id: String,
    algorithm: Option<String>,
    key: PublicKey,
}

/// A key of a bundle that is understood here.
pub(super) enum Authority {
    X509(CertificateDer<'static>),
    Jwt(JwtKey),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PublicKey {
    Ec {
        curve: Curve,
        x: Vec<u8>,
        y: Vec<u8>,
    },
    /// Big-endian, without leading zeros.
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

/// What says whether a key is to be ignored.
#[derive(Deserialize)]
struct Kind {
    kty: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
}

/// The members that count of a key that is not ignored.
#[derive(Deserialize)]
struct Members {
    kid: Option<String>,
    alg: Option<String>,
    x5c: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl JwtKey {
    /// Reads one JWK of a JWK Set that holds keys of JWT-SVIDs only, as the Workload API sends it:
    /// it need not say so by `use`. `None` where its type or use is not understood.
    ///
    /// # Errors
    /// When it is not a JWK with a key id and a whole public key.
    pub fn parse(json: &[u8]) -> Result<Option<Self>, SpiffeBundleError> {
        let value = unique::parse(json).map_err(SpiffeBundleError::Json)?;
        let read = || {
            let kind = Kind::deserialize(&value).map_err(|error| error.to_string())?;
            match kind.purpose.as_deref() {
                None | Some(JWT_SVID | "sig") => Self::from_members(&kind.kty, &value),
                Some(_) => Ok(None),
            }
        };
        read().map_err(|problem| SpiffeBundleError::Key {
            key: "a key".to_owned(),
            problem,
        })
    }

    /// The key id (`kid`), not empty.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The JWK, JSON.
    pub fn to_json(&self) -> String {
        self.to_value().to_string()
    }

    pub(super) fn to_value(&self) -> Value {
        let mut value = self.key.to_value(JWT_SVID);
        if let Value::Object(members) = &mut value {
            members.insert("kid".to_owned(), self.id.as_str().into());
            if let Some(algorithm) = &self.algorithm {
                members.insert("alg".to_owned(), algorithm.as_str().into());
            }
        }
        value
    }

    fn from_members(kind: &str, value: &Value) -> Result<Option<Self>, String> {
        let Some(members) = Members::of(kind, value)? else {
            return Ok(None);
        };
        let Some(key) = PublicKey::from_members(kind, &members)? else {
            return Ok(None);
        };
        let id = members.kid.filter(|id| !id.is_empty());
        Ok(Some(Self {
            id: id.ok_or("it has no `kid`")?,
            algorithm: members.alg,
            key,
        }))
    }
}

impl Authority {
    /// Reads one JWK of a SPIFFE bundle; `None` where it is to be ignored.
    pub(super) fn parse(value: Value) -> Result<Option<Self>, String> {
        let kind = Kind::deserialize(&value).map_err(|error| error.to_string())?;
        match kind.purpose.as_deref() {
            Some(X509_SVID) => Ok(certificate(&kind.kty, &value)?.map(Self::X509)),
            Some(JWT_SVID) => Ok(JwtKey::from_members(&kind.kty, &value)?.map(Self::Jwt)),
            _ => Ok(None),
        }
    }
}

impl Members {
    /// `None` for a key type that is not understood: its members may be of any shape.
    fn of(kind: &str, value: &Value) -> Result<Option<Self>, String> {
        if !matches!(kind, "EC" | "RSA") {
            return Ok(None);
        }
        let members = Self::deserialize(value).map_err(|error| error.to_string())?;
        Ok(Some(members))
    }
}

impl PublicKey {
    /// `None` for a type or curve that is not understood here (RFC 7517 section 5).
    fn from_members(kind: &str, members: &Members) -> Result<Option<Self>, String> {
        match kind {
            "EC" => {
                let Some(curve) = Curve::named(required("crv", members.crv.as_deref())?) else {
                    return Ok(None);
                };
                let [x, y] = [("x", &members.x), ("y", &members.y)].map(|(name, text)| {
                    let bytes = decode(name, text.as_deref())?;
                    match bytes.len() == curve.coordinate() {
                        true => Ok(bytes),
                        false => Err(format!("`{name}` has the wrong length for `crv`")),
                    }
                });
                let (x, y) = (x?, y?);
                // Uncompressed: 4, then x and y (SEC 1 section 2.3.3).
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                // Clients refuse a whole JWK Set for one key that is no point.
                ParsedPublicKey::new(curve.algorithm(), point)
                    .map_err(|_| "`x` and `y` are no point on `crv`".to_owned())?;
                Ok(Some(Self::Ec { curve, x, y }))
            }
            "RSA" => {
                let [modulus, exponent] =
                    [("n", &members.n), ("e", &members.e)].map(|(name, text)| {
                        let bytes = without_leading_zeros(&decode(name, text.as_deref())?);
                        match bytes.is_empty() {
                            true => Err(format!("`{name}` is zero")),
                            false => Ok(bytes),
                        }
                    });
                let (modulus, exponent) = (modulus?, exponent?);
                Ok(Some(Self::Rsa { modulus, exponent }))
            }
            _ => Ok(None),
        }
    }

    /// The public key of a certificate; `None` for one that no JWK is made of here.
    fn of(certificate: &X509Certificate<'_>) -> Option<Self> {
        let key = certificate.public_key();
        match key.parsed().ok()? {
            CertificateKey::EC(point) => {
                let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
                let curve = Curve::with_oid(&curve)?;
                let length = curve.coordinate();
                // Uncompressed: 4, then x and y (SEC 1 section 2.3.3).
                let (x, y) = point.data().strip_prefix(&[4])?.split_at_checked(length)?;
                (y.len() == length).then(|| Self::Ec {
                    curve,
                    x: x.to_vec(),
                    y: y.to_vec(),
                })
            }
            CertificateKey::RSA(key) => Some(Self::Rsa {
                modulus: without_leading_zeros(key.modulus),
                exponent: without_leading_zeros(key.exponent),
            }),
            _ => None,
        }
    }

    fn to_value(&self, purpose: &str) -> Value {
        let encode = |bytes: &[u8]| Value::from(URL_SAFE_NO_PAD.encode(bytes));
        match self {
            Self::Ec { curve, x, y } => object([
                ("kty", "EC".into()),
                ("use", purpose.into()),
                ("crv", curve.name().into()),
                ("x", encode(x)),
                ("y", encode(y)),
            ]),
            Self::Rsa { modulus, exponent } => object([
                ("kty", "RSA".into()),
                ("use", purpose.into()),
                ("n", encode(modulus)),
                ("e", encode(exponent)),
            ]),
        }
    }
}

impl Curve {
    fn named(name: &str) -> Option<Self> {
        [Self::P256, Self::P384, Self::P521]
            .into_iter()
            .find(|curve| curve.name() == name)
    }

    fn with_oid(oid: &Oid<'_>) -> Option<Self> {
        [
            (OID_EC_P256, Self::P256),
            (OID_NIST_EC_P384, Self::P384),
            (OID_NIST_EC_P521, Self::P521),
        ]
        .into_iter()
        .find_map(|(known, curve)| (known == *oid).then_some(curve))
    }

    fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    fn algorithm(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::P384 => &ECDSA_P384_SHA384_FIXED,
            Self::P521 => &ECDSA_P521_SHA512_FIXED,
        }
    }

    /// The length of a coordinate in bytes.
    fn coordinate(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

/// The JWK of an X.509-SVID authority (X509-SVID.md section 6.1): one `x5c`, no `kid`.
pub(super) fn of_certificate(der: &CertificateDer<'static>) -> Option<Value> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut value = PublicKey::of(&certificate)?.to_value(X509_SVID);
    value
        .as_object_mut()?
        .insert("x5c".to_owned(), [STANDARD.encode(der)].as_slice().into());
    Some(value)
}

/// The first certificate of `x5c` (X509-SVID.md section 6.2); `None` where there is none.
fn certificate(kind: &str, value: &Value) -> Result<Option<CertificateDer<'static>>, String> {
    let Some(members) = Members::of(kind, value)? else {
        return Ok(None);
    };
    let Some(text) = members.x5c.iter().flatten().next() else {
        return Ok(None);
    };
    let Some(key) = PublicKey::from_members(kind, &members)? else {
        return Ok(None);
    };
    let der = STANDARD.decode(text);
    let der = der.map_err(|_| "`x5c` is not base64".to_owned())?;
    match X509Certificate::from_der(&der) {
        Ok(([], certificate)) if PublicKey::of(&certificate).as_ref() == Some(&key) => {}
        // RFC 7517 section 4.7.
        Ok(([], _)) => return Err("its certificate is of another public key".to_owned()),
        _ => return Err("`x5c` is not a certificate".to_owned()),
    }
    Ok(Some(der.into()))
}

fn required<'a>(name: &str, text: Option<&'a str>) -> Result<&'a str, String> {
    text.ok_or_else(|| format!("it has no `{name}`"))
}

fn decode(name: &str, text: Option<&str>) -> Result<Vec<u8>, String> {
    let bytes = URL_SAFE_NO_PAD.decode(required(name, text)?);
    bytes.map_err(|_| format!("`{name}` is not base64url"))
}

fn without_leading_zeros(bytes: &[u8]) -> Vec<u8> {
    let digits = bytes.iter().copied();
    digits.skip_while(|&byte| byte == 0).collect()
}
