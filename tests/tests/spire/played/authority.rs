//! The authorities of the played server, and what they sign.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _,
    SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::fault::Forgery;
use super::messages::{Bundle, JwtKey, JwtSvid, SpiffeId, X509Certificate, X509Svid};
use crate::spire::gate::TRUST_DOMAIN;
use crate::spire::server::{Kind, id};
use crate::support::{hexadecimal, now};

/// All authorities of both kinds, the active one last, and how often they have changed.
pub(super) struct Authorities {
    x509: Vec<X509>,
    jwt: Vec<Jwt>,
    sequence: u64,
}

#[derive(Clone)]
struct X509 {
    issuer: Arc<Issuer<'static, KeyPair>>,
    certificate: CertificateDer<'static>,
    expires: OffsetDateTime,
    tainted: bool,
}

struct Jwt {
    key: KeyPair,
    id: String,
    expires: OffsetDateTime,
    tainted: bool,
}

/// What a leaf is to say.
pub(super) struct Leaf<'a> {
    pub(super) spiffe_id: &'a str,
    pub(super) dns_names: &'a [String],
    pub(super) ttl: Duration,
}

impl Authorities {
    pub(super) fn new() -> Self {
        Self {
            x509: vec![X509::new()],
            jwt: vec![Jwt::new()],
            sequence: 1,
        }
    }

    /// Prepares and activates another one.
    pub(super) fn rotate(&mut self, kind: Kind) {
        match kind {
            Kind::X509 => self.x509.push(X509::new()),
            Kind::Jwt => self.jwt.push(Jwt::new()),
        }
        self.sequence += 1;
    }

    /// Taints the one that was active before.
    pub(super) fn taint(&mut self, kind: Kind) {
        match kind {
            Kind::X509 => self.x509.iter_mut().rev().nth(1).unwrap().tainted = true,
            Kind::Jwt => self.jwt.iter_mut().rev().nth(1).unwrap().tainted = true,
        }
        self.sequence += 1;
    }

    /// Drops the tainted ones.
    pub(super) fn revoke(&mut self, kind: Kind) {
        match kind {
            Kind::X509 => self.x509.retain(|authority| !authority.tainted),
            Kind::Jwt => self.jwt.retain(|authority| !authority.tainted),
        }
        self.sequence += 1;
    }

    pub(super) fn roots(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.x509.iter().map(|authority| &authority.certificate)
    }

    pub(super) fn bundle(&self) -> Bundle {
        let x509 = self.x509.iter().map(|authority| X509Certificate {
            asn1: authority.certificate.to_vec(),
            tainted: authority.tainted,
        });
        let jwt = self.jwt.iter().map(|authority| JwtKey {
            public_key: authority.key.subject_public_key_info(),
            key_id: authority.id.clone(),
            expires_at: authority.expires.unix_timestamp(),
            tainted: authority.tainted,
        });
        Bundle {
            trust_domain: TRUST_DOMAIN.to_owned(),
            x509_authorities: x509.collect(),
            jwt_authorities: jwt.collect(),
            refresh_hint: 60,
            sequence_number: self.sequence,
        }
    }

    /// The bundle in SPIFFE's own format.
    pub(super) fn json(&self) -> Value {
        let x509 = self.x509.iter().map(|authority| {
            let point = authority.issuer.key().public_key_raw();
            let mut jwk = curve_point(point);
            jwk["use"] = json!("x509-svid");
            jwk["x5c"] = json!([STANDARD.encode(&authority.certificate)]);
            jwk
        });
        let jwt = self.jwt.iter().map(|authority| {
            let mut jwk = curve_point(authority.key.public_key_raw());
            jwk["use"] = json!("jwt-svid");
            jwk["kid"] = json!(authority.id);
            jwk
        });
        let keys: Vec<_> = x509.chain(jwt).collect();
        json!({"keys": keys, "spiffe_sequence": self.sequence, "spiffe_refresh_hint": 60})
    }

    /// Signs for the key of a request, and says the serial number.
    pub(super) fn sign(
        &self,
        csr: &[u8],
        leaf: &Leaf<'_>,
        forgery: Option<Forgery>,
    ) -> Result<(X509Svid, String), rcgen::Error> {
        let mut request = CertificateSigningRequestParams::from_der(&csr.into())?;
        let mut authority = self.x509.last().unwrap().clone();
        let spiffe_id = match forgery {
            Some(Forgery::Id) => format!("{}-not", leaf.spiffe_id),
            _ => leaf.spiffe_id.to_owned(),
        };
        if forgery == Some(Forgery::Key) {
            let other = CertificateParams::default().serialize_request(&KeyPair::generate()?)?;
            request = CertificateSigningRequestParams::from_der(other.der())?;
        }
        if forgery == Some(Forgery::Authority) {
            authority = X509::new();
        }
        let (mut params, serial) = authority.leaf(&spiffe_id, leaf);
        match forgery {
            Some(Forgery::Early) => params.not_before = now() + leaf.ttl / 2,
            Some(Forgery::Late) => {
                params.not_before = now() - Duration::hours(2);
                params.not_after = now() - Duration::hours(1);
            }
            _ => {}
        }
        let expires = params.not_after;
        request.params = params;
        let der = request.signed_by(&authority.issuer)?.der().clone();
        let svid = X509Svid {
            cert_chain: vec![der.to_vec()],
            id: Some(SpiffeId::parse(leaf.spiffe_id)),
            expires_at: expires.unix_timestamp(),
            hint: String::new(),
        };
        Ok((svid, serial))
    }

    /// The server's own SVID.
    pub(super) fn server(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let authority = self.x509.last().unwrap();
        let leaf = Leaf {
            spiffe_id: &id("/spire/server"),
            dns_names: &[],
            ttl: Duration::hours(1),
        };
        let key = KeyPair::generate().expect("a key");
        let (params, _) = authority.leaf(leaf.spiffe_id, &leaf);
        let certificate = params.signed_by(&key, &authority.issuer).expect("signed");
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        (vec![certificate.der().clone()], key)
    }

    /// A JWT-SVID.
    pub(super) fn token(&self, spiffe_id: &str, audience: &[String], ttl: Duration) -> JwtSvid {
        let authority = self.jwt.last().unwrap();
        let issued = now();
        let expires = issued + ttl;
        let header = json!({"alg": "ES256", "kid": authority.id, "typ": "JWT"});
        let claims = json!({
            "aud": audience,
            "exp": expires.unix_timestamp(),
            "iat": issued.unix_timestamp(),
            "sub": spiffe_id,
        });
        let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = signed.join(".");
        let key = authority.key.serialize_der();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key).expect("a key");
        let signature = key.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(signature.expect("a signature"));
        JwtSvid {
            token: format!("{signed}.{signature}"),
            id: Some(SpiffeId::parse(spiffe_id)),
            expires_at: expires.unix_timestamp(),
            issued_at: issued.unix_timestamp(),
            hint: String::new(),
        }
    }
}

impl X509 {
    /// A root of its own, which signs leaves itself.
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = subject("SPIFFE");
        let number = hexadecimal(&random::<16>());
        params
            .distinguished_name
            .push(DnType::CustomDnType(vec![2, 5, 4, 5]), number);
        params.subject_alt_names = vec![uri(&format!("spiffe://{TRUST_DOMAIN}"))];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = now() - Duration::seconds(10);
        params.not_after = now() + Duration::days(1);
        let certificate = params.self_signed(&key).expect("it is signed");
        Self {
            certificate: certificate.der().clone(),
            expires: params.not_after,
            issuer: Arc::new(Issuer::new(params, key)),
            tainted: false,
        }
    }

    /// A leaf as SPIRE makes them, and its serial number.
    fn leaf(&self, spiffe_id: &str, leaf: &Leaf<'_>) -> (CertificateParams, String) {
        let mut number = random::<16>();
        number[0] &= 0x7f;
        number[0] |= 0x40;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject("SPIRE");
        params.serial_number = Some(SerialNumber::from_slice(&number));
        params.subject_alt_names = vec![uri(spiffe_id)];
        let names = leaf.dns_names.iter();
        let names = names.map(|name| SanType::DnsName(name.as_str().try_into().expect("ASCII")));
        params.subject_alt_names.extend(names);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::KeyAgreement,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_before = now() - Duration::seconds(10);
        params.not_after = (now() + leaf.ttl).min(self.expires);
        (params, hexadecimal(&number))
    }
}

impl Jwt {
    fn new() -> Self {
        Self {
            key: KeyPair::generate().expect("a key"),
            id: hexadecimal(&random::<16>()),
            expires: now() + Duration::days(1),
            tainted: false,
        }
    }
}

/// Random bytes.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has some");
    bytes
}

fn subject(organization: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CountryName, "US");
    name.push(DnType::OrganizationName, organization);
    name
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().expect("it is ASCII"))
}

/// A JWK of an uncompressed point on P-256.
fn curve_point(point: &[u8]) -> Value {
    let coordinate = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (x, y) = (coordinate(&point[1..33]), coordinate(&point[33..65]));
    json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})
}
