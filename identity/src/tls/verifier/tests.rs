use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use spiffe::TrustDomain;

use super::*;
use crate::authority::{EmbeddedAuthority, Lifetimes};
use crate::entry::{Entry, EntryRequest};
use crate::svid::Issued;
use crate::svid::X509Bundle;

const NOW: u64 = 1_800_000_000;

struct Authority {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

fn at(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.checked_add_signed(seconds).unwrap())
}

fn authority_params(trust_domain: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = at(-100).into();
    params.not_after = at(100).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))];
    params
}

fn authority(trust_domain: &str) -> Authority {
    let key = KeyPair::generate().unwrap();
    let certificate = authority_params(trust_domain)
        .self_signed(&key)
        .unwrap()
        .into();
    Authority { certificate, key }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn leaf() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = at(-10).into();
    params.not_after = at(10).into();
    params.subject_alt_names = vec![uri("spiffe://one.test/web")];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

impl Authority {
    fn sign(&self, params: &CertificateParams) -> CertificateDer<'static> {
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key).unwrap();
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, &issuer).unwrap().into()
    }
}

fn verifier(bundles: &[(&str, &Authority)]) -> SpiffeVerifier {
    let bundles: BTreeMap<_, _> = bundles
        .iter()
        .map(|(name, authority)| {
            let bundle = X509Bundle::new(vec![authority.certificate.clone()]).unwrap();
            (TrustDomain::new(name).unwrap(), Arc::new(bundle))
        })
        .collect();
    let own = TrustDomain::new("one.test").unwrap();
    let (presented, issued) = server();
    let identities = Identities::new(1, own, vec![issued], bundles, BTreeMap::new());
    let (_, receiver) = watch::channel(Arc::new(identities));
    SpiffeVerifier::new(
        presented,
        receiver,
        true,
        Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
    )
}

/// What the client wants to talk to; its entry federates with `two.test`.
fn server() -> (Presented, Issued) {
    let request = EntryRequest {
        spiffe_id: "spiffe://one.test/server".to_owned(),
        selectors: vec!["listener:name:main".to_owned()],
        federates_with: vec!["two.test".to_owned()],
        ..EntryRequest::default()
    };
    let own = TrustDomain::new("one.test").unwrap();
    let entry = Entry::new(request, &own).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let lifetimes = Lifetimes {
        root: Duration::from_secs(3600),
        svid: Duration::from_secs(60),
    };
    let path = directory.path().join("authority.pem");
    let authority = EmbeddedAuthority::open(path, own, lifetimes, at(0)).unwrap();
    let presented = Presented {
        spiffe_id: entry.spiffe_id().clone(),
        selectors: entry.selectors().into(),
    };
    let svid = Arc::new(authority.mint(&entry, at(0)).unwrap());
    let entry = Arc::new(entry);
    (presented, Issued { entry, svid })
}

fn verify(
    verifier: &SpiffeVerifier,
    leaf: &CertificateDer<'static>,
    intermediates: &[CertificateDer<'static>],
) -> Result<(), String> {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
    match verifier.verify_client_cert(leaf, intermediates, now) {
        Ok(_) => Ok(()),
        Err(Error::InvalidCertificate(CertificateError::Other(other))) => Err(other
            .0
            .downcast_ref::<PeerError>()
            .unwrap()
            .code()
            .to_owned()),
        Err(Error::InvalidCertificate(error)) => Err(format!("{error:?}")),
        Err(error) => panic!("{error:?}"),
    }
}

/// A leaf with one thing changed, and the code under which it is refused.
#[test]
fn each_malformed_svid_is_refused_under_its_own_code() {
    type Change = fn(&mut CertificateParams);
    let cases: [(&str, Change); 17] = [
        ("SG0151", |leaf| leaf.subject_alt_names.clear()),
        ("SG0151", |leaf| {
            leaf.subject_alt_names = vec![SanType::DnsName("one.test".try_into().unwrap())];
        }),
        ("SG0152", |leaf| {
            leaf.subject_alt_names.push(uri("spiffe://one.test/admin"))
        }),
        ("SG0152", |leaf| {
            leaf.subject_alt_names.push(uri("https://one.test/"))
        }),
        ("SG0153", |leaf| {
            leaf.subject_alt_names = vec![uri("https://one.test/web")]
        }),
        ("SG0153", |leaf| {
            leaf.subject_alt_names = vec![uri("spiffe://one.test/a//b")]
        }),
        ("SG0153", |leaf| {
            leaf.subject_alt_names = vec![uri("spiffe://one.test/web?x")]
        }),
        ("SG0153", |leaf| {
            leaf.subject_alt_names = vec![uri("spiffe://user@one.test/web")]
        }),
        ("SG0154", |leaf| {
            leaf.subject_alt_names = vec![uri("spiffe://one.test")]
        }),
        ("SG0155", |leaf| {
            leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)
        }),
        ("SG0156", |leaf| leaf.key_usages.clear()),
        ("SG0156", |leaf| {
            leaf.key_usages.clear();
            let not_critical =
                CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![3, 2, 7, 128]);
            leaf.custom_extensions.push(not_critical);
        }),
        ("SG0157", |leaf| {
            leaf.key_usages = vec![KeyUsagePurpose::KeyAgreement]
        }),
        ("SG0157", |leaf| {
            leaf.key_usages.push(KeyUsagePurpose::KeyCertSign)
        }),
        ("SG0157", |leaf| {
            leaf.key_usages.push(KeyUsagePurpose::CrlSign)
        }),
        ("SG0158", |leaf| {
            leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]
        }),
        ("SG0158", |leaf| {
            leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]
        }),
    ];
    let one = authority("one.test");
    let verifier = verifier(&[("one.test", &one)]);
    assert_eq!(verify(&verifier, &one.sign(&leaf()), &[]), Ok(()));
    for (index, (code, change)) in cases.into_iter().enumerate() {
        let mut params = leaf();
        change(&mut params);
        let found = verify(&verifier, &one.sign(&params), &[]);
        assert_eq!(found, Err(code.to_owned()), "case {index}");
    }
    let garbage = CertificateDer::from(vec![0x30, 0x00]);
    assert_eq!(verify(&verifier, &garbage, &[]), Err("SG0150".to_owned()));
}

#[test]
fn a_leaf_without_extended_key_usage_is_an_svid() {
    let one = authority("one.test");
    let mut params = leaf();
    params.extended_key_usages.clear();
    assert_eq!(
        verify(&verifier(&[("one.test", &one)]), &one.sign(&params), &[]),
        Ok(())
    );
}

#[test]
fn a_trust_domain_cannot_vouch_for_another() {
    let (one, two) = (authority("one.test"), authority("two.test"));
    let both = verifier(&[("one.test", &one), ("two.test", &two)]);
    assert_eq!(verify(&both, &one.sign(&leaf()), &[]), Ok(()));
    // The leaf says one.test, but two.test signed it.
    let forged = verify(&both, &two.sign(&leaf()), &[]).unwrap_err();
    assert!(
        ["UnknownIssuer", "BadSignature"].contains(&forged.as_str()),
        "{forged}"
    );
    let only_two = verifier(&[("two.test", &two)]);
    assert_eq!(
        verify(&only_two, &one.sign(&leaf()), &[]),
        Err("SG0161".to_owned())
    );
}

#[test]
fn a_foreign_trust_domain_counts_where_the_entry_federates_with_it() {
    let [two, three] = ["two.test", "three.test"].map(authority);
    let verifier = verifier(&[("two.test", &two), ("three.test", &three)]);
    let mut foreign = leaf();
    foreign.subject_alt_names = vec![uri("spiffe://two.test/web")];
    assert_eq!(verify(&verifier, &two.sign(&foreign), &[]), Ok(()));
    foreign.subject_alt_names = vec![uri("spiffe://three.test/web")];
    let refused = verify(&verifier, &three.sign(&foreign), &[]);
    assert_eq!(refused, Err("SG0161".to_owned()));
}

#[test]
fn a_certificate_above_the_leaf_must_be_allowed_to_sign_for_the_trust_domain() {
    let root = authority("one.test");
    let verifier = verifier(&[("one.test", &root)]);
    let intermediate = |change: fn(&mut CertificateParams)| {
        let key = KeyPair::generate().unwrap();
        let mut params = authority_params("one.test");
        change(&mut params);
        let issuer = Issuer::from_ca_cert_der(&root.certificate, &root.key).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap().into();
        Authority { certificate, key }
    };
    type Change = fn(&mut CertificateParams);
    let cases: [(Result<(), &str>, Change); 5] = [
        (Ok(()), |_| {}),
        (Ok(()), |signer| signer.subject_alt_names.clear()),
        (Err("SG0159"), |signer| {
            signer.key_usages = vec![KeyUsagePurpose::CrlSign]
        }),
        (Err("SG0160"), |signer| {
            signer.subject_alt_names = vec![uri("spiffe://two.test")]
        }),
        (Err("SG0160"), |signer| {
            signer.subject_alt_names = vec![uri("spiffe://one.test/ca")]
        }),
    ];
    for (index, (expected, change)) in cases.into_iter().enumerate() {
        let signer = intermediate(change);
        let found = verify(
            &verifier,
            &signer.sign(&leaf()),
            std::slice::from_ref(&signer.certificate),
        );
        assert_eq!(found, expected.map_err(ToOwned::to_owned), "case {index}");
    }
    // An ordinary workload's certificate signs another one.
    let workload = intermediate(|signer| {
        *signer = leaf();
    });
    let key = Issuer::new(authority_params("one.test"), &workload.key);
    let forged = leaf()
        .signed_by(&KeyPair::generate().unwrap(), &key)
        .unwrap()
        .into();
    let found = verify(
        &verifier,
        &forged,
        std::slice::from_ref(&workload.certificate),
    );
    assert_eq!(found, Err("SG0159".to_owned()));
}

#[test]
fn an_svid_counts_only_in_its_time_and_not_after_its_trust_domain_is_withdrawn() {
    let one = authority("one.test");
    let mut expired = leaf();
    expired.not_after = at(-1).into();
    let mut early = leaf();
    early.not_before = at(1).into();
    let trusting = verifier(&[("one.test", &one)]);
    for params in [expired, early] {
        let found = verify(&trusting, &one.sign(&params), &[]).unwrap_err();
        assert!(
            found.contains("Expired") || found.contains("NotValidYet"),
            "{found}"
        );
    }
    let own = TrustDomain::new("one.test").unwrap();
    let empty = Arc::new(X509Bundle::new(Vec::new()).unwrap());
    let bundles = BTreeMap::from([(own.clone(), empty)]);
    let (presented, issued) = server();
    let identities = Identities::new(2, own, vec![issued], bundles, BTreeMap::new());
    let (_, receiver) = watch::channel(Arc::new(identities));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let withdrawn = SpiffeVerifier::new(presented, receiver, true, provider);
    assert_eq!(
        verify(&withdrawn, &one.sign(&leaf()), &[]),
        Err("SG0161".to_owned())
    );
}
