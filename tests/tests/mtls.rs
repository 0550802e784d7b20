//! Mutual TLS: who gets in, who does not, and at which layer.

mod handshake;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use sidegate_tests::{Sidegate, until};
use time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    Authority, Client, Identity, counter, folder, leaf, logged, now, patiently, up,
};

const DEMO: &str = "spiffe://sidegate.local/demo";
const GET: &[u8] = b"GET /status/200 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// An SVID of the authority, with something changed.
fn changed(authority: &Authority, change: impl FnOnce(&mut CertificateParams)) -> Identity {
    let mut params = leaf(&[DEMO]);
    change(&mut params);
    authority.issue(&params)
}

/// What is wrong with a certificate, the certificate, and the code that is logged for it.
fn hostile(ours: &Authority) -> Vec<(&'static str, Identity, &'static str)> {
    let named = |uris: &[&str]| ours.issue(&leaf(uris));
    let mut without_intermediate = ours.issue(&leaf(&[DEMO]));
    without_intermediate.chain.truncate(1);
    let foreign = |domain| Authority::foreign(domain);
    vec![
        (
            "another authority with the name of our trust domain",
            foreign("sidegate.local").issue(&leaf(&[DEMO])),
            "SG0174",
        ),
        (
            "another trust domain and its authority",
            foreign("other.example").issue(&leaf(&["spiffe://other.example/demo"])),
            "SG0161",
        ),
        (
            "another trust domain, signed by ours",
            named(&["spiffe://other.example/demo"]),
            "SG0160",
        ),
        ("without its intermediate", without_intermediate, "SG0174"),
        (
            "expired",
            changed(ours, |leaf| {
                leaf.not_after = now() - Duration::seconds(30);
            }),
            "SG0173",
        ),
        (
            "not valid yet",
            changed(ours, |leaf| {
                leaf.not_before = now() + Duration::minutes(30);
            }),
            "SG0175",
        ),
        (
            "two SPIFFE IDs",
            named(&[DEMO, "spiffe://sidegate.local/other"]),
            "SG0152",
        ),
        (
            "a SPIFFE ID and another URI",
            named(&[DEMO, "https://sidegate.local/demo"]),
            "SG0152",
        ),
        ("no URI", named(&[]), "SG0151"),
        (
            "a URI that is no SPIFFE ID",
            named(&["https://sidegate.local/demo"]),
            "SG0153",
        ),
        (
            "the trust domain's own ID",
            named(&["spiffe://sidegate.local"]),
            "SG0154",
        ),
        (
            "a path of nothing but a slash",
            named(&["spiffe://sidegate.local/"]),
            "SG0153",
        ),
        (
            "a dot segment in the path",
            named(&["spiffe://sidegate.local/a/../demo"]),
            "SG0153",
        ),
        (
            "a query behind the path",
            named(&["spiffe://sidegate.local/demo?admin"]),
            "SG0153",
        ),
        (
            "CA:true",
            changed(ours, |leaf| {
                leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }),
            "SG0155",
        ),
        ("the authority's own certificate", ours.as_leaf(), "SG0154"),
        (
            "no key usage",
            changed(ours, |leaf| leaf.key_usages.clear()),
            "SG0156",
        ),
        (
            "no digital signature",
            changed(ours, |leaf| {
                leaf.key_usages = vec![KeyUsagePurpose::KeyAgreement];
            }),
            "SG0157",
        ),
        (
            "may sign certificates",
            changed(ours, |leaf| {
                leaf.key_usages.push(KeyUsagePurpose::KeyCertSign);
            }),
            "SG0157",
        ),
        (
            "may sign revocation lists",
            changed(ours, |leaf| leaf.key_usages.push(KeyUsagePurpose::CrlSign)),
            "SG0157",
        ),
        (
            "for servers only",
            changed(ours, |leaf| {
                leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
            "SG0158",
        ),
    ]
}

/// How a connection with this configuration fails; panics where anything but an alert comes back.
pub(crate) async fn refusal(client: &Client, config: ClientConfig) -> String {
    let error = match client.connect(config).await {
        Err(error) => error,
        Ok(mut stream) => {
            // In TLS 1.3 a client is done before the server has judged its certificate.
            let _ = stream.write_all(GET).await;
            let mut answer = Vec::new();
            let read = patiently(stream.read_to_end(&mut answer)).await;
            assert_eq!(String::from_utf8_lossy(&answer), "", "no HTTP is spoken");
            read.expect_err("an alert, no clean end")
        }
    };
    error.to_string()
}

/// How many handshakes ended with a result.
fn handshakes(sidegate: &Sidegate, label: &str) -> f64 {
    counter(sidegate, "sidegate_tls_handshakes_total", &[label])
}

/// Waits for a handshake with this result; none succeeded and no request came of any.
fn counted(sidegate: &Sidegate, result: &str) {
    let label = format!("result=\"{result}\"");
    until(&format!("a handshake with {label}"), || {
        (handshakes(sidegate, &label) > 0.0).then_some(())
    });
    assert!(handshakes(sidegate, "result=\"success\"") < 0.5);
    assert!(counter(sidegate, "http_server_request_duration_seconds_count", &[]) < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_no_svid_of_the_trust_domain_is_refused_in_the_handshake() {
    let folder = folder();
    let sidegate = up(&folder, &[]);
    let client = Client::demo(&sidegate);
    let ours = Authority::of(&sidegate.ready.state);

    let mut wrong = Vec::new();
    for (what, identity, code) in hostile(&ours) {
        let before = sidegate.process.stderr().len();
        let config = client.with(identity).tls(aws_lc_rs::default_provider());
        let alert = refusal(&client, config).await;
        let line = until(&format!("what is logged for: {what}"), || {
            let stderr = sidegate.process.stderr();
            let mut lines = stderr.get(before..)?.lines();
            lines
                .find(|line| line.contains("code=\"SG"))
                .map(ToOwned::to_owned)
        });
        if !alert.contains("alert") || !line.contains(&format!("code=\"{code}\"")) {
            wrong.push(format!("{what}: {alert}: {line}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(handshakes(&sidegate, "result=\"success\"") < 0.5);
    assert!(handshakes(&sidegate, "result=") > 20.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_the_authority_signed_by_the_standard_is_accepted() {
    let folder = folder();
    let sidegate = up(&folder, &[]);
    let client = Client::demo(&sidegate);
    let ours = Authority::of(&sidegate.ready.state);

    let cases = [
        ("as the standard has it", ours.issue(&leaf(&[DEMO]))),
        (
            "signed by the root itself",
            ours.issue_from_root(&leaf(&[DEMO])),
        ),
        (
            "without extended key usages",
            changed(&ours, |leaf| leaf.extended_key_usages.clear()),
        ),
        (
            "without basic constraints",
            changed(&ours, |leaf| leaf.is_ca = IsCa::NoCa),
        ),
        (
            "with a DNS name besides",
            changed(&ours, |leaf| {
                let name = "demo.example".try_into().unwrap();
                leaf.subject_alt_names.push(rcgen::SanType::DnsName(name));
            }),
        ),
    ];
    for (what, identity) in cases {
        let answer = client.with(identity).get("/status/200").await;
        assert_eq!(answer.status, 200, "{what}");
        let line = crate::support::access_line(&sidegate, answer.header("x-request-id"));
        assert_eq!(line["peer"], DEMO, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_certificate_is_refused_in_the_handshake() {
    let folder = folder();
    let sidegate = up(&folder, &[]);
    let client = Client::demo(&sidegate);

    let alert = refusal(&client, client.anonymous()).await;
    assert!(alert.contains("CertificateRequired"), "{alert}");
    logged(&sidegate, &["code=\"SG0172\""]);
    counted(&sidegate, "no_certificate");
}
