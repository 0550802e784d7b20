//! A real Envoy beside us, which says the same of the same certificate, and one in front of us, which
//! is trusted.

use std::net::IpAddr;
use std::path::Path;

use http::Request;
use rcgen::{CertificateParams, DnType, DnValue, SanType};
use sidegate_tests::{Sidegate, Tool, skip, tool};

use super::{DEMO, SHOP, XFCC};
use crate::envoy::{Bootstrap, Envoy};
use crate::support::{
    Authority, Client, Configuration, Upstream, access_line, address, body, folder, leaf, own_uid,
    write,
};

/// A listener of an Envoy with the files of a folder, which sends all requests to one cluster.
const LISTENER: &str = r#"
    - name: NAME
      address:
        socket_address: { address: 127.0.0.1, port_value: 0 }
      filter_chains:
        - transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              require_client_certificate: true
              common_tls_context:
                alpn_protocols: [h2, http/1.1]
                tls_certificates:
                  - certificate_chain: { filename: "FOLDER/svid.pem" }
                    private_key: { filename: "FOLDER/key.pem" }
                validation_context:
                  trusted_ca: { filename: "FOLDER/bundle.pem" }
          filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: NAME
                use_remote_address: true
                preserve_external_request_id: true
                forward_client_cert_details: MODE
                set_current_client_cert_details: { DETAILS }
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes:
                        - match: { prefix: "/" }
                          route: { cluster: behind }
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"#;

/// What follows the listeners: the cluster, of a server on the loopback interface.
const CLUSTER: &str = r#"
  clusters:
    - name: behind
      connect_timeout: 5s
      load_assignment:
        cluster_name: behind
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address:
                    socket_address: { address: 127.0.0.1, port_value: PORT }
"#;

/// What makes it reach a server by mutual TLS, with the files of a folder.
const MUTUAL_TLS: &str = r#"
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
          common_tls_context:
            tls_params: { tls_maximum_protocol_version: TLSv1_3 }
            tls_certificates:
              - certificate_chain: { filename: "FOLDER/svid.pem" }
                private_key: { filename: "FOLDER/key.pem" }
            validation_context:
              trusted_ca: { filename: "FOLDER/bundle.pem" }
"#;

const ADMIN: &str = r#"
admin:
  address:
    socket_address: { address: 127.0.0.1, port_value: 0 }
static_resources:
  listeners:
"#;

/// What is told of a certificate, by our names.
const DETAILS: [&[&str]; 9] = [
    &[],
    &["uri"],
    &["dns"],
    &["subject"],
    &["cert"],
    &["chain"],
    &["dns", "uri"],
    &["uri", "subject", "dns"],
    &["uri", "subject", "dns", "chain", "cert"],
];

fn listener(name: &str, files: &Path, mode: &str, details: &[&str]) -> String {
    let details: Vec<_> = details
        .iter()
        .map(|detail| format!("{detail}: true"))
        .collect();
    LISTENER
        .replace("NAME", name)
        .replace("FOLDER", files.to_str().unwrap())
        .replace("MODE", mode)
        .replace("DETAILS", &details.join(", "))
}

fn cluster(address: &str) -> String {
    let (_, port) = address.rsplit_once(':').unwrap();
    CLUSTER.replace("PORT", port)
}

/// Names of a listener of ours and of Envoy's for what is told.
fn name(index: usize) -> String {
    match index {
        0 => "application".to_owned(),
        index => format!("details-{index}"),
    }
}

/// Leaves with names of all kinds.
fn leaves() -> Vec<CertificateParams> {
    let id = "spiffe://sidegate.local/a-client";
    let bare = leaf(&[id]);
    let mut usual = leaf(&[id]);
    let name = &mut usual.distinguished_name;
    name.push(
        DnType::CountryName,
        DnValue::PrintableString("US".try_into().unwrap()),
    );
    name.push(DnType::OrganizationName, "SPIRE");
    name.push(DnType::CommonName, "client.test");
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    usual
        .subject_alt_names
        .extend([dns("client.test"), dns("*.client.test")]);
    let mut odd = leaf(&[id]);
    let name = &mut odd.distinguished_name;
    name.push(DnType::OrganizationName, "a \"b\", c+d;e<f>g\\h=i/j");
    name.push(DnType::OrganizationalUnitName, "#J\u{fc}rgen \u{20ac} ");
    name.push(
        DnType::CommonName,
        DnValue::BmpString("\u{fc}\u{20ac}".try_into().unwrap()),
    );
    name.push(
        DnType::LocalityName,
        DnValue::TeletexString("a b".try_into().unwrap()),
    );
    name.push(DnType::CustomDnType(vec![2, 5, 4, 5]), " \u{1}\u{7f} ");
    for last in [
        4, 9, 12, 13, 15, 16, 17, 18, 20, 41, 42, 43, 44, 45, 46, 51, 65, 72,
    ] {
        name.push(DnType::CustomDnType(vec![2, 5, 4, last]), "x");
    }
    for last in [1, 3, 25] {
        name.push(
            DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, last]),
            "x",
        );
    }
    for last in [1, 2, 8] {
        name.push(
            DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, last]),
            "x",
        );
    }
    name.push(DnType::CustomDnType(vec![1, 3, 9999, 1]), "nobody knows it");
    vec![bare, usual, odd]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_say_the_same_of_a_certificate_as_envoy_byte_by_byte() {
    let Some(binary) = tool(Tool::Envoy) else {
        return skip("we_say_the_same_of_a_certificate_as_envoy", Tool::Envoy);
    };
    let folder = folder();
    let upstream = Upstream::start().await;
    let (gate, client) = start(folder.path(), &upstream);
    let files = folder.path().join("shop");
    let listeners = DETAILS.iter().enumerate();
    let listeners: String = listeners
        .map(|(index, details)| listener(&name(index), &files, "SANITIZE_SET", details))
        .collect();
    let bootstrap = Bootstrap::new(format!("{ADMIN}{listeners}{}", cluster(&upstream.url)));
    let envoy = tokio::task::block_in_place(|| Envoy::start(&binary, &bootstrap));

    let authority = Authority::of(&folder.path().join("state"));
    for leaf in leaves() {
        let client = client.with(authority.issue(&leaf));
        for (index, details) in DETAILS.iter().enumerate() {
            let name = name(index);
            let theirs = tokio::task::block_in_place(|| envoy.listener(&name));
            let ours = gate.ready.listeners.iter().find(|ours| ours.name == name);
            let ours = &ours.unwrap().address;
            let mut told = Vec::new();
            for address in [&theirs, ours] {
                let answer = client.clone().at(address).get("/").await;
                assert_eq!(answer.status, 200, "{details:?}: {}", envoy.log());
                let head = upstream.heads().pop().unwrap();
                let values: Vec<_> = head.headers.get_all(XFCC).iter().cloned().collect();
                let [value] = values.as_slice() else {
                    panic!("one header: {values:?}");
                };
                told.push(value.to_str().unwrap().to_owned());
            }
            assert_eq!(told[0], told[1], "{details:?}");
            let begin = format!("By={SHOP};Hash={}", client.identity.hash());
            assert!(told[0].starts_with(&begin), "{told:?}");
            // Each detail is there.
            let has = |key: &str| told[0].contains(&format!(";{key}="));
            assert_eq!(has("Subject"), details.contains(&"subject"), "{told:?}");
            assert_eq!(has("Cert"), details.contains(&"cert"), "{told:?}");
            assert_eq!(has("Chain"), details.contains(&"chain"), "{told:?}");
            assert_eq!(has("URI"), details.contains(&"uri"), "{told:?}");
        }
    }
}

/// A listener for each kind of details; the files of its identity are in `shop`.
fn start(folder: &Path, upstream: &Upstream) -> (Sidegate, Client) {
    let mut sections = format!(
        r#"
[[svid_file]]
spiffe_id = "{SHOP}"
directory = "shop"

[[identity.entry]]
spiffe_id = "{SHOP}"
selectors = ["{}", "unix:path:/no/program"]
dns_names = ["localhost"]
"#,
        own_uid()
    );
    for (index, details) in DETAILS.iter().enumerate() {
        let name = name(index);
        sections.push_str(&format!(
            r#"
[[identity.entry]]
spiffe_id = "{SHOP}"
selectors = ["listener:name:{name}"]
dns_names = ["localhost"]

[[listener]]
name = "{name}"
listen = "127.0.0.1:0"
upstream = "{}"
[listener.forward_client_cert]
details = {details:?}
"#,
            upstream.url
        ));
    }
    let policy = "package envoy.authz\nallow := true\n";
    write(folder, "policy/policy.rego", policy);
    let configuration = Configuration::new()
        .listener(&sections)
        .rest("[policy]\npath = \"policy\"\n");
    let gate = Sidegate::run(&configuration.write(folder));
    let demo = folder.join("demo");
    let [bundle, svid, key] = ["bundle.pem", "svid.pem", "key.pem"].map(|name| demo.join(name));
    let client = Client::new("", &bundle, &svid, &key);
    (gate, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_in_front_is_believed_whom_it_speaks_for() {
    let Some(binary) = tool(Tool::Envoy) else {
        return skip("an_envoy_in_front_is_believed", Tool::Envoy);
    };
    let folder = folder();
    let upstream = Upstream::start().await;
    let policy = format!(
        "package envoy.authz\nimport rego.v1\nallow if input.attributes.source.principal == {DEMO:?}\n"
    );
    write(folder.path(), "policy/policy.rego", policy);
    let mut configuration = Configuration::new();
    // The Envoy is the demo client, and is asked for by a host name.
    let demo = format!("selectors = [\"{}\"]\n", own_uid());
    let with_name = format!("{demo}dns_names = [\"localhost\"]\n");
    configuration.entries = configuration.entries.replace(&demo, &with_name);
    let (gate, client) = configuration
        .listener(&format!(
            r#"
[[identity.entry]]
spiffe_id = "{SHOP}"
selectors = ["listener:name:main"]
dns_names = ["localhost"]

[policy]
path = "policy"

[[listener]]
name = "main"
listen = "127.0.0.1:0"
upstream = "{}"
trusted_hops = ["{DEMO}"]
[listener.forward_client_cert]
mode = "append_forward"
details = ["subject", "uri"]
"#,
            upstream.url
        ))
        .start(folder.path());
    let files = folder.path().join("demo");
    let edge = listener(
        "application",
        &files,
        "SANITIZE_SET",
        &["uri", "subject", "dns"],
    );
    let tls = MUTUAL_TLS.replace("FOLDER", files.to_str().unwrap());
    let cluster = cluster(address(&gate));
    let bootstrap = Bootstrap::new(format!("{ADMIN}{edge}{cluster}{tls}"));
    let envoy = tokio::task::block_in_place(|| Envoy::start(&binary, &bootstrap));

    let authority = Authority::of(&folder.path().join("state"));
    for leaf in leaves() {
        let caller = client.with(authority.issue(&leaf)).at(envoy.application());
        let request = Request::get("/")
            .header(XFCC, "URI=spiffe://sidegate.local/king")
            .header("x-forwarded-proto", "gopher")
            .header("x-request-id", "6d1b5b4e-0000-4000-8000-000000000001");
        let answer = caller.send(request, body("")).await;
        assert_eq!(answer.status, 200, "{}", envoy.log());
        let head = upstream.heads().pop().unwrap();
        let told = |name: &str| {
            let values: Vec<_> = head.headers.get_all(name).iter().collect();
            let [value] = values.as_slice() else {
                panic!("one {name}: {values:?}");
            };
            value.to_str().unwrap().to_owned()
        };
        let chain = told(XFCC);
        let begin = format!("By={DEMO};Hash={};Subject=\"", caller.identity.hash());
        assert!(chain.starts_with(&begin), "{chain}");
        assert!(
            chain.contains(";URI=spiffe://sidegate.local/a-client"),
            "{chain}"
        );
        let end = format!(",By={SHOP};Hash={};Subject=\"", client.identity.hash());
        let (_, ours) = chain.split_once(&end).unwrap();
        assert!(ours.ends_with(&format!("\";URI={DEMO}")), "{chain}");
        assert!(!chain.contains("king"), "{chain}");
        // Of a caller on its own machine, Envoy tells the machine's address.
        let forwarded_for = told("x-forwarded-for");
        let (caller_address, envoys) = forwarded_for.split_once(',').unwrap();
        assert!(caller_address.parse::<IpAddr>().is_ok(), "{forwarded_for}");
        assert_eq!(envoys, "127.0.0.1");
        assert_eq!(told("x-forwarded-proto"), "https");
        let id = "6d1b5b4e-0000-4000-8000-000000000001";
        assert_eq!(told("x-request-id"), id);
        assert_eq!(access_line(&gate, id)["peer"], DEMO);
    }

    // Without the Envoy, the same caller is who it is.
    let caller = client.with(authority.issue(&leaf(&["spiffe://sidegate.local/a-client"])));
    let request = Request::get("/").header(XFCC, format!("URI={DEMO}"));
    let answer = caller.send(request, body("")).await;
    assert_eq!(answer.status, 403);
}
