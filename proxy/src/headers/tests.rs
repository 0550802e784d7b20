use std::net::{IpAddr, Ipv4Addr};

use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType};

use super::*;

impl IdentityHeaders {
    /// What is said of `spiffe://one.test/a`, who is no trusted hop.
    pub(crate) fn for_test() -> Self {
        Self {
            client_cert: Some(HeaderValue::from_static("URI=spiffe://one.test/a")),
            downstream: HeaderValue::from_static("192.0.2.1"),
            scheme: "https",
            hop: Hop::Untrusted,
        }
    }
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::new(text).unwrap()
}

fn certificate(params: &CertificateParams) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().clone()
}

/// What is said of `spiffe://one.test/edge`.
fn headers(forwarding: &Forwarding, leaf: CertificateDer<'static>) -> IdentityHeaders {
    let peer = Peer {
        spiffe_id: &id("spiffe://one.test/edge"),
        chain: &[leaf],
        shown: &id("spiffe://one.test/shop"),
    };
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1);
    IdentityHeaders::new(forwarding, address, "https", Some(peer)).unwrap()
}

fn element(params: &CertificateParams, details: ClientCertDetails) -> String {
    let forwarding = Forwarding {
        details,
        ..Forwarding::default()
    };
    let element = headers(&forwarding, certificate(params)).client_cert;
    element.unwrap().to_str().unwrap().to_owned()
}

/// The headers of a request, sent by the edge as a trusted hop or not.
fn written(
    client_cert: ForwardClientCert,
    trusted_hops: &[&str],
    told: &[(&'static str, &'static str)],
) -> Result<HeaderMap, HopProblem> {
    let forwarding = Forwarding {
        client_cert,
        details: ClientCertDetails::NONE,
        trusted_hops: trusted_hops.iter().map(|hop| id(hop)).collect(),
    };
    let identity = headers(&forwarding, CertificateDer::from_slice(b"leaf"));
    let mut headers = HeaderMap::new();
    for (name, value) in told {
        headers.append(*name, HeaderValue::from_static(value));
    }
    identity.write(&mut headers, &HeaderValue::from_static("id"))?;
    Ok(headers)
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter();
    values
        .map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

const EDGE: &[&str] = &["spiffe://one.test/edge"];

#[test]
fn each_mode_forwards_and_writes_what_envoy_does() {
    let told = [
        ("x-forwarded-client-cert", "Hash=1"),
        ("x-forwarded-client-cert", "Hash=2;URI="),
    ];
    let ours = values(
        &written(ForwardClientCert::SanitizeSet, &[], &[]).unwrap(),
        "x-forwarded-client-cert",
    );
    let [ours] = ours.as_slice() else {
        panic!("{ours:?}")
    };
    assert!(
        ours.starts_with("By=spiffe://one.test/shop;Hash="),
        "{ours}"
    );
    let continued = format!("Hash=1,Hash=2;URI=,{ours}");
    for (mode, from_hop, from_others, without) in [
        (ForwardClientCert::Sanitize, None, None, None),
        (
            ForwardClientCert::ForwardOnly,
            Some("Hash=1,Hash=2;URI="),
            None,
            None,
        ),
        (
            ForwardClientCert::AlwaysForwardOnly,
            Some("Hash=1,Hash=2;URI="),
            None,
            None,
        ),
        (
            ForwardClientCert::AppendForward,
            Some(&*continued),
            Some(&**ours),
            Some(&**ours),
        ),
        (
            ForwardClientCert::SanitizeSet,
            Some(&**ours),
            Some(&**ours),
            Some(&**ours),
        ),
    ] {
        let found = |hops: &[&str], told: &[(&'static str, &'static str)]| {
            let headers = written(mode, hops, told).unwrap();
            values(&headers, "x-forwarded-client-cert")
        };
        assert_eq!(found(EDGE, &told), Vec::from_iter(from_hop), "{mode:?}");
        assert_eq!(
            found(&["spiffe://one.test"], &told),
            Vec::from_iter(from_hop),
            "{mode:?}"
        );
        assert_eq!(found(&[], &told), Vec::from_iter(from_others), "{mode:?}");
        assert_eq!(found(EDGE, &[]), Vec::from_iter(without), "{mode:?}");
        for others in [
            "spiffe://one.test/other",
            "spiffe://one.test/edge/a",
            "spiffe://two.test",
        ] {
            assert_eq!(
                found(&[others], &told),
                Vec::from_iter(from_others),
                "{others}"
            );
        }
    }
}

#[test]
fn what_a_trusted_hop_tells_is_continued_and_what_it_passed_on_is_not() {
    let told = [
        ("x-forwarded-for", "198.51.100.1, 10.0.0.1"),
        ("x-forwarded-for", "10.0.0.2"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "shop.test"),
        ("forwarded", "for=198.51.100.1"),
        ("x-envoy-external-address", "198.51.100.1"),
        ("x-envoy-internal", "true"),
        ("x-envoy-auth-partial-body", "true"),
        ("x_forwarded_for", "203.0.113.1"),
        ("x-forwarded_client-cert", "URI=spiffe://one.test/king"),
        ("x-request-id", "mine"),
    ];
    let headers = written(ForwardClientCert::SanitizeSet, EDGE, &told).unwrap();
    for (name, expected) in [
        (
            "x-forwarded-for",
            Some("198.51.100.1, 10.0.0.1,10.0.0.2,192.0.2.1"),
        ),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some("shop.test")),
        ("forwarded", Some("for=198.51.100.1")),
        ("x-envoy-external-address", Some("198.51.100.1")),
        ("x-envoy-internal", None),
        ("x-envoy-auth-partial-body", None),
        ("x_forwarded_for", None),
        ("x-forwarded_client-cert", None),
        // The caller asks for it first.
        ("x-request-id", Some("id")),
    ] {
        assert_eq!(values(&headers, name), Vec::from_iter(expected), "{name}");
    }

    let headers = written(ForwardClientCert::SanitizeSet, &[], &told).unwrap();
    assert_eq!(values(&headers, "x-forwarded-for"), ["192.0.2.1"]);
    assert_eq!(values(&headers, "x-forwarded-proto"), ["https"]);
    assert_eq!(headers.len(), 4, "{headers:?}");
}

#[test]
fn what_a_trusted_hop_cannot_mean_is_refused() {
    let refused = |mode, hops, name, value| written(mode, hops, &[(name, value)]).err();
    let xfcc = ("x-forwarded-client-cert", "URI=a;b");
    for mode in [
        ForwardClientCert::ForwardOnly,
        ForwardClientCert::AppendForward,
        ForwardClientCert::AlwaysForwardOnly,
    ] {
        let malformed = Some(HopProblem::ClientCert(Malformed::Key));
        assert_eq!(refused(mode, EDGE, xfcc.0, xfcc.1), malformed);
        assert_eq!(refused(mode, &[], xfcc.0, xfcc.1), None);
    }
    let mode = ForwardClientCert::SanitizeSet;
    assert_eq!(refused(mode, EDGE, xfcc.0, xfcc.1), None, "it goes anyway");
    for proto in ["", "ftp", "HTTP", "http,https"] {
        let found = refused(mode, EDGE, "x-forwarded-proto", proto);
        assert_eq!(found, Some(HopProblem::Proto), "{proto}");
        assert_eq!(refused(mode, &[], "x-forwarded-proto", proto), None);
    }
}

#[test]
fn the_id_of_a_request_is_a_trusted_hops_if_it_can_be_one() {
    let of = |hops: &[&str], ids: &[&str]| {
        let forwarding = Forwarding {
            client_cert: ForwardClientCert::Sanitize,
            trusted_hops: hops.iter().map(|hop| id(hop)).collect(),
            ..Forwarding::default()
        };
        let identity = headers(&forwarding, CertificateDer::from_slice(b"leaf"));
        let mut headers = HeaderMap::new();
        for id in ids {
            headers.append("x-request-id", id.parse().unwrap());
        }
        identity.request_id(&headers).map(ToOwned::to_owned)
    };
    let long = "x".repeat(REQUEST_ID_MAX + 1);
    assert_eq!(of(EDGE, &["0-1"]).as_deref(), Some("0-1"));
    assert_eq!(of(&[], &["0-1"]), None);
    for unusable in [&[][..], &[""], &["a b"], &["a", "a"], &[&long]] {
        assert_eq!(of(EDGE, unusable), None, "{unusable:?}");
    }
}

#[test]
fn a_name_that_could_be_taken_for_several_stands_in_quotes() {
    // No authority should sign such a name, but rcgen refuses none that is ASCII.
    let mut params = CertificateParams::default();
    params.subject_alt_names = ["a.test", "b.test;URI=spiffe://one.test/king", "c\",d\\"]
        .map(|name| SanType::DnsName(name.try_into().unwrap()))
        .to_vec();
    let details = ClientCertDetails {
        dns: true,
        ..ClientCertDetails::NONE
    };
    let element = element(&params, details);
    let (_, names) = element.split_once(";DNS=").unwrap();
    assert_eq!(
        names,
        r#"a.test;DNS="b.test;URI=spiffe://one.test/king";DNS="c\",d\\""#
    );
    assert_eq!(xfcc::check(element.as_bytes()), Ok(()));
}

#[test]
fn a_subject_is_written_as_rfc_2253_has_it() {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    let printable = |text: &str| DnValue::PrintableString(text.try_into().unwrap());
    name.push(DnType::CountryName, printable("US"));
    name.push(DnType::OrganizationName, "a \"b\", c+d;e<f>g\\h=i");
    name.push(DnType::OrganizationalUnitName, "#J\u{fc}rgen ");
    name.push(
        DnType::CommonName,
        DnValue::BmpString("\u{fc}\u{20ac}".try_into().unwrap()),
    );
    name.push(DnType::CustomDnType(vec![2, 5, 4, 5]), " \u{1} ");
    name.push(DnType::CustomDnType(vec![1, 3, 9999]), "x");
    params.distinguished_name = name;

    let details = ClientCertDetails {
        subject: true,
        ..ClientCertDetails::NONE
    };
    let written = element(&params, details);
    let (_, subject) = written.split_once(";Subject=").unwrap();
    assert_eq!(
        subject,
        concat!(
            "\"1.3.9999=#0C0178,serialNumber=\\ \\01\\ ,CN=\\C3\\BC\\E2\\82\\AC,",
            r#"OU=\#J\C3\BCrgen\ ,O=a \"b\"\, c\+d\;e\<f\>g\\h=i,C=US""#
        )
    );
    assert_eq!(xfcc::check(written.as_bytes()), Ok(()));
    params.distinguished_name = DistinguishedName::new();
    let empty = element(&params, details);
    assert!(empty.ends_with(";Subject=\"\""), "{empty}");
}
