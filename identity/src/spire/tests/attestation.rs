//! How the agent becomes one.

use std::path::Path;

use rcgen::{CertificateParams, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize};
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::authority::Authority;
use super::world::Fault;
use super::*;
use crate::spiffe_bundle::SpiffeBundle;

/// Lets the node be recognized by a certificate.
fn with_certificate(stage: &mut Stage, key: &KeyPair) {
    let mut params = CertificateParams::default();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let certificate = params.self_signed(key).unwrap();
    let (certificates, private_key) = (stage.file("node.pem"), stage.file("node.key"));
    std::fs::write(&certificates, certificate.pem()).unwrap();
    std::fs::write(&private_key, key.serialize_pem()).unwrap();
    stage.config.attestation = NodeAttestation::X509Pop {
        certificates,
        private_key,
    };
}

#[tokio::test]
async fn a_join_token_serves_once_and_a_restart_needs_none() {
    let stage = Stage::new().await;
    stage.world().add("web", 1);
    let agent = stage.agent();
    assert_eq!(agent.status().phase, Phase::Starting);
    agent.step().await.unwrap();
    let id = format!("spiffe://{TRUST_DOMAIN}/spire/agent/join_token/token");
    assert_eq!(agent.status().agent_id.unwrap(), id);
    assert_eq!(agent.status().phase, Phase::Serving);
    assert_eq!(stage.kept(), 1);
    drop(agent);
    std::fs::remove_file(stage.file("token")).unwrap();
    let agent = stage.agent();
    agent.step().await.unwrap();
    assert_eq!(paths(&agent), ["/web"]);
    assert_eq!(stage.world().count("AttestAgent"), 1);
    assert_eq!(stage.kept(), 1);
}

#[tokio::test]
async fn the_request_says_neither_who_asks_nor_what_for() {
    let stage = Stage::new().await;
    stage.agent().step().await.unwrap();
    let world = stage.world();
    let [request] = world.requests.as_slice() else {
        panic!("one request")
    };
    let (_, request) = X509CertificationRequest::from_der(request).unwrap();
    request.verify_signature().unwrap();
    let info = &request.certification_request_info;
    assert_eq!(info.subject.to_string(), "C=US, O=SPIRE");
    assert!(request.requested_extensions().is_none());
    // ecdsa-with-SHA256
    let algorithm = request.signature_algorithm.algorithm.to_id_string();
    assert_eq!(algorithm, "1.2.840.10045.4.3.2");
}

#[tokio::test]
async fn a_token_that_has_been_used_is_not_shown_again_and_again() {
    let stage = Stage::new().await;
    stage.world().tokens.clear();
    let agent = stage.agent();
    assert!(matches!(
        agent.step().await,
        Err(SpireError::NotAttested(_))
    ));
    for _ in 0..2 {
        assert!(matches!(agent.step().await, Err(SpireError::TokenSpent(_))));
    }
    assert_eq!(stage.world().count("AttestAgent"), 1);
    assert!(agent.status().failing.unwrap().hint.is_some());
}

#[tokio::test]
async fn a_server_that_is_down_does_not_use_up_the_token() {
    let stage = Stage::new().await;
    stage.world().fault = Fault::Down;
    let agent = stage.agent();
    agent.step().await.unwrap_err();
    agent.step().await.unwrap_err();
    stage.world().fault = Fault::None;
    agent.step().await.unwrap();
}

#[tokio::test]
async fn the_key_of_a_certificate_proves_the_node() {
    let ecdsa = KeyPair::generate().unwrap();
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    for key in [ecdsa, rsa] {
        let mut stage = Stage::new().await;
        with_certificate(&mut stage, &key);
        let agent = stage.agent();
        agent.step().await.unwrap();
        let id = agent.status().agent_id.unwrap();
        assert!(id.contains("/spire/agent/x509pop/"), "{id}");
    }
}

#[tokio::test]
async fn a_key_that_does_not_belong_to_the_certificate_is_not_shown() {
    let mut stage = Stage::new().await;
    with_certificate(&mut stage, &KeyPair::generate().unwrap());
    let other = KeyPair::generate().unwrap();
    std::fs::write(stage.file("node.key"), other.serialize_pem()).unwrap();
    let refused = stage.agent().step().await.unwrap_err();
    assert!(matches!(refused, SpireError::Attestation(_)), "{refused}");
    assert_eq!(stage.world().count("AttestAgent"), 0);
}

#[tokio::test]
async fn an_agent_svid_that_does_not_fit_is_not_taken() {
    for fault in [
        Fault::OtherKey,
        Fault::OtherId,
        Fault::OtherAuthority,
        Fault::Expired,
        Fault::NoCertificate,
        Fault::Damaged,
    ] {
        let mut stage = Stage::new().await;
        with_certificate(&mut stage, &KeyPair::generate().unwrap());
        stage.world().fault = fault;
        // Reading its own leaf back, the server must not stumble over what is missing.
        if fault == Fault::NoCertificate {
            continue;
        }
        let agent = stage.agent();
        let refused = agent.step().await.unwrap_err();
        assert!(matches!(refused, SpireError::Refused { .. }), "{fault:?}");
        assert_eq!(agent.status().agent_id, None);
        assert!(!stage.file("spire_agent.json").exists(), "{fault:?}");
        stage.world().fault = Fault::None;
        agent.step().await.unwrap();
    }
}

#[tokio::test]
async fn the_server_is_verified_by_the_bootstrap_bundle() {
    let mut stage = Stage::new().await;
    let now = stage.clock.now();
    let bundle = SpiffeBundle {
        x509_authorities: vec![stage.world().signer().root.clone()],
        ..SpiffeBundle::default()
    };
    let other = Authority::new(TRUST_DOMAIN, now);
    let foreign = Authority::new("two.test", now);
    let pem = |authority: &Authority| encoding::certificates_pem([&authority.root]);
    let path = stage.file("bundle");
    for (document, is_connected, problem) in [
        (pem(&other), false, "UnknownIssuer"),
        (pem(&foreign), false, "UnknownIssuer"),
        (String::new(), false, "bootstrap"),
        ("{}".to_owned(), false, "bootstrap"),
        (r#"{"keys": []}"#.to_owned(), false, "bootstrap"),
        (
            KeyPair::generate().unwrap().serialize_pem(),
            false,
            "bootstrap",
        ),
        (bundle.to_json(), true, ""),
    ] {
        std::fs::write(&path, &document).unwrap();
        stage.config.bootstrap = Bootstrap::File(path.clone());
        let step = stage.agent().step().await;
        assert_eq!(step.is_ok(), is_connected, "{document}");
        if let Err(error) = step {
            assert!(error.to_string().contains(problem), "{error}: {document}");
        }
    }
}

struct Fetcher(Vec<u8>);

impl FetchBundle for Fetcher {
    fn fetch(&self) -> FetchedBundle<'_> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

#[tokio::test]
async fn the_bootstrap_bundle_may_come_from_a_url() {
    let mut stage = Stage::new().await;
    let pem = std::fs::read(stage.file("bootstrap.pem")).unwrap();
    let too_long = [pem.as_slice(), &vec![b'\n'; 1024 * 1024]].concat();
    for (document, is_right) in [
        (b"no bundle".to_vec(), false),
        (too_long, false),
        (pem, true),
    ] {
        stage.config.bootstrap = Bootstrap::Url {
            url: "https://bundles.test/".to_owned(),
            fetch: Arc::new(Fetcher(document)),
        };
        assert_eq!(stage.agent().step().await.is_ok(), is_right);
    }
}

#[tokio::test]
async fn only_the_trust_domains_server_is_the_server() {
    let mut stage = Stage::new().await;
    stage.config.trust_domain = TrustDomain::new("two.test").unwrap();
    for bootstrap in [
        Bootstrap::Insecure,
        Bootstrap::File(stage.file("bootstrap.pem")),
    ] {
        stage.config.bootstrap = bootstrap;
        assert!(stage.agent().step().await.is_err());
        assert!(stage.world().calls.is_empty());
    }
}

#[tokio::test]
async fn the_first_use_is_trusted_once() {
    let mut stage = Stage::new().await;
    stage.config.bootstrap = Bootstrap::Insecure;
    // The token is of no use, but the bundle is there.
    stage.world().tokens.clear();
    let refused = stage.agent().step().await.unwrap_err();
    assert!(matches!(refused, SpireError::NotAttested(_)), "{refused}");
    // Somebody else answers at the same address.
    let now = stage.clock.now();
    stage.world().authorities = vec![Authority::new(TRUST_DOMAIN, now)];
    let calls = stage.world().calls.len();
    let refused = stage.agent().step().await.unwrap_err();
    assert!(matches!(refused, SpireError::Untrusted { .. }), "{refused}");
    assert_eq!(stage.world().calls.len(), calls);
}

#[tokio::test]
async fn what_is_kept_and_damaged_is_refused_and_left_as_it_is() {
    let stage = Stage::new().await;
    stage.agent().step().await.unwrap();
    let path = stage.file("spire_agent.json");
    let whole = std::fs::read_to_string(&path).unwrap();
    let other_key = KeyPair::generate().unwrap().serialize_pem();
    let mut json: serde_json::Value = serde_json::from_str(&whole).unwrap();
    json["svids"][0]["key"] = other_key.into();
    for damaged in [
        "{".to_owned(),
        whole.replace("\"format\":1", "\"format\":2"),
        whole.replace(TRUST_DOMAIN, "two.test"),
        whole.replace("BEGIN PRIVATE KEY", "BEGIN PRIVATE CAT"),
        whole.replace("\"format\"", "\"new\":1,\"format\""),
        json.to_string(),
    ] {
        std::fs::write(&path, &damaged).unwrap();
        let refused = stage.try_agent().err().unwrap();
        assert!(matches!(refused, SpireError::Damaged { .. }), "{refused}");
        assert_eq!(refused.code(), "SG0138");
        assert!(refused.hint().is_some());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), damaged);
    }
    std::fs::write(&path, &whole).unwrap();
    stage.agent().step().await.unwrap();
    replaced_bundle_is_refused(&stage, &stage.file("spire_bundle.json")).await;
}

async fn replaced_bundle_is_refused(stage: &Stage, path: &Path) {
    for damaged in ["{", r#"{"keys": []}"#] {
        std::fs::write(path, damaged).unwrap();
        let refused = stage.agent().step().await.unwrap_err();
        assert!(matches!(refused, SpireError::Damaged { .. }), "{refused}");
    }
}
