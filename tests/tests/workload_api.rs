//! The SPIFFE Workload API, by clients that others wrote, by bare gRPC calls, and by processes of
//! other users.

mod certificate;
pub(crate) mod many_users;
pub(crate) mod raw;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::unistd::geteuid;
use sidegate_tests::{Output, Sidegate, Tool, skip, tool};
use spiffe::{TrustDomain, WorkloadApiClient, X509Svid};
use time::OffsetDateTime;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic::Code;

use crate::support::{finish, folder};
pub(crate) use certificate::{belongs, serial, spiffe_id, validity};
use many_users::{Entry, ManyUsers, copy_of_sidegate, open_folder, spiffe_ids};
use raw::{DiscoveryRequest, DiscoveryResponse, Secret, first_response, stream_secrets};

const NO_ARGUMENTS: [&str; 0] = [];
const SECRET_TYPE: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

#[tokio::test]
async fn the_demo_client_fetches_its_svid_and_openssl_verifies_it_with_the_bundle() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let client = client(&gate).await;
    let context = client.fetch_x509_context().await.expect("a context");

    let svid = context.default_svid().expect("there is an SVID");
    assert_eq!(svid.spiffe_id().to_string(), "spiffe://sidegate.local/demo");
    assert_eq!(context.svids().len(), 1);
    assert_eq!(svid.cert_chain().len(), 2, "leaf and intermediate");
    assert!(belongs(&key(svid), svid.leaf().as_bytes()));

    let domain = TrustDomain::new("sidegate.local").expect("a trust domain");
    assert_eq!(context.bundle_set().len(), 1);
    let bundle = context.bundle_set().get(&domain).expect("its bundle");
    let Some(openssl) = tool(Tool::Openssl) else {
        return skip("openssl_verifies_it_with_the_bundle", Tool::Openssl);
    };
    for purpose in ["sslclient", "sslserver"] {
        let folder = state.path().join(purpose);
        fs::create_dir(&folder).expect("a folder");
        let roots = write_pem(&folder, "roots", bundle.authorities());
        let (leaf, intermediates) = svid.cert_chain().split_at(1);
        let leaf = write_pem(&folder, "leaf", leaf);
        let intermediates = write_pem(&folder, "intermediates", intermediates);
        let mut verify = Command::new(&openssl);
        verify
            .args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"])
            .arg(&roots)
            .arg("-untrusted")
            .arg(&intermediates)
            .arg(&leaf);
        let output = finish(&mut verify);
        assert!(output.status.success(), "{purpose}: {}", output.stderr);
    }
}

#[tokio::test]
async fn new_svids_are_streamed_before_the_old_ones_expire() {
    let state = folder();
    let gate = Sidegate::up(state.path(), ["--svid-ttl", "10s"]);
    let mut stream = client(&gate)
        .await
        .stream_x509_contexts()
        .await
        .expect("a stream");

    let mut serials = BTreeSet::new();
    let mut expires = None;
    while serials.len() < 3 {
        let context = timeout(Duration::from_secs(30), stream.next())
            .await
            .expect("an update comes within the lifetime")
            .expect("the stream goes on")
            .expect("each update is valid");
        let svid = context.default_svid().expect("there is an SVID");
        let now = OffsetDateTime::now_utc();
        let [begins, ends] = validity(svid.leaf().as_bytes());
        assert!(begins <= now && now < ends, "{begins} {now} {ends}");
        assert!(ends - now <= time::Duration::seconds(10), "{now} {ends}");
        if let Some(old) = expires.replace(ends) {
            assert!(
                now < old,
                "the old one was good until {old}, now it is {now}"
            );
        }
        assert!(belongs(&key(svid), svid.leaf().as_bytes()));
        assert_eq!(svid.spiffe_id().to_string(), "spiffe://sidegate.local/demo");
        serials.insert(serial(svid.leaf().as_bytes()));
    }
}

#[tokio::test]
async fn a_call_without_the_security_header_is_an_invalid_argument() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    for method in ["FetchX509SVID", "FetchX509Bundles", "FetchJWTBundles"] {
        for header in [None, Some("false"), Some("")] {
            let status = first_response(&gate.ready.workload_socket, method, header)
                .await
                .expect_err("it is refused");
            let what = format!("{method} {header:?}: {status}");
            assert_eq!(status.code(), Code::InvalidArgument, "{what}");
        }
        first_response(&gate.ready.workload_socket, method, Some("true"))
            .await
            .expect("it is answered with the header");
    }
}

#[tokio::test]
async fn the_profiles_that_we_do_not_serve_are_unimplemented() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    for method in ["FetchWITSVID", "FetchWITBundles"] {
        let status = first_response(&gate.ready.workload_socket, method, Some("true"))
            .await
            .expect_err("it is refused");
        assert_eq!(status.code(), Code::Unimplemented, "{method}: {status}");
    }
}

#[tokio::test]
async fn a_caller_that_no_entry_matches_is_denied() {
    let entry = Entry {
        path: "/somebody",
        selectors: vec![format!("unix:uid:{}", geteuid().as_raw() + 1)],
    };
    let users = ManyUsers::start(open_folder(), &[entry]);
    for method in ["FetchX509SVID", "FetchX509Bundles"] {
        let status = first_response(&users.gate.ready.workload_socket, method, Some("true"))
            .await
            .expect_err("it is refused");
        assert_eq!(status.code(), Code::PermissionDenied, "{method}: {status}");
        // Clients know this text from SPIRE.
        assert_eq!(status.message(), "no identity issued", "{method}");
    }
}

#[tokio::test]
async fn an_unknown_name_does_not_end_a_stream_of_secrets() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let (sender, requests) = raw::requests();
    let ask = |names: &[&str], last: Option<&DiscoveryResponse>| {
        let last = last.cloned().unwrap_or_default();
        DiscoveryRequest {
            version_info: last.version_info,
            resource_names: names.iter().map(|&name| name.to_owned()).collect(),
            type_url: SECRET_TYPE.to_owned(),
            response_nonce: last.nonce,
        }
    };
    let first = ask(&["default", "file-root:system"], None);
    sender.send(first).await.expect("the stream is open");
    let mut responses = stream_secrets(&gate.ready.workload_socket, requests)
        .await
        .expect("a stream");

    let response = next(&mut responses).await;
    assert_eq!(secrets(&response), ["default"]);
    let more = ask(&["default", "file-root:system", "ROOTCA"], Some(&response));
    sender.send(more).await.expect("the stream is open");
    let response = next(&mut responses).await;
    assert!(secrets(&response).contains(&"ROOTCA".to_owned()));
}

#[test]
fn svid_fetch_prints_the_svid_and_never_its_key() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    for format in ["text", "json"] {
        let output = fetch(&["-o", format, "--socket", &gate.ready.workload_socket]);
        assert!(output.status.success(), "{format}: {}", output.stderr);
        assert!(!format!("{output:?}").contains("PRIVATE KEY"), "{format}");
        assert!(output.stdout.contains("spiffe://sidegate.local/demo"));
        let certificates = output.stdout.matches("BEGIN CERTIFICATE").count();
        assert_eq!(certificates, 2, "{format}: {}", output.stdout);
        if format == "json" {
            let expected = BTreeSet::from(["spiffe://sidegate.local/demo".to_owned()]);
            assert_eq!(spiffe_ids(&output), expected);
        }
    }
}

#[test]
fn svid_fetch_finds_the_socket_by_the_standard_variable() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let mut command = Sidegate::command("svid");
    command
        .args(["fetch", "x509", "-o", "json"])
        .env("SPIFFE_ENDPOINT_SOCKET", &gate.ready.workload_socket);
    let output = finish(&mut command);
    assert!(output.status.success(), "{}", output.stderr);
    assert_eq!(spiffe_ids(&output).len(), 1);
}

#[test]
fn svid_fetch_from_a_socket_that_does_not_answer_exits_2_with_a_code() {
    let folder = folder();
    let missing = folder.path().join("missing.sock");
    let file = folder.path().join("file");
    fs::write(&file, "not a socket").expect("a file");
    for socket in [missing, file] {
        let socket = socket.to_str().expect("it is UTF-8");
        let output = fetch(&["--socket", socket]);
        assert_eq!(output.status.code(), Some(2), "{socket}: {output:?}");
        assert!(output.stdout.is_empty(), "{socket}: {output:?}");
        assert!(output.stderr.contains("SG00"), "{socket}: {output:?}");
        assert!(output.stderr.contains(socket), "{socket}: {output:?}");
    }
}

#[test]
fn another_user_gets_its_own_svid_only_and_none_without_an_entry() {
    let Some(setpriv) = setpriv("another_user_gets_its_own_svid_only") else {
        return;
    };
    let folder = open_folder();
    let binary = copy_of_sidegate(folder.path(), "sidegate");
    let entries = [("/nobody", 65534), ("/somebody", 65533), ("/root", 0)];
    let entries = entries.map(|(path, uid)| Entry {
        path,
        selectors: vec![format!("unix:uid:{uid}")],
    });
    let users = ManyUsers::start(folder, &entries);

    for (uid, expected) in [(65534, "/nobody"), (65533, "/somebody"), (0, "/root")] {
        let output = users.fetch(&setpriv, uid, &binary, "json");
        assert!(output.status.success(), "{uid}: {}", output.stderr);
        let expected = BTreeSet::from([format!("spiffe://sidegate.local{expected}")]);
        assert_eq!(spiffe_ids(&output), expected, "{uid}");
    }
    for format in ["text", "json"] {
        let output = users.fetch(&setpriv, 65532, &binary, format);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        assert!(output.stderr.contains("no identity issued"), "{output:?}");
        assert!(output.stderr.contains("SG00"), "{output:?}");
        assert!(!output.stderr.contains("BEGIN"), "{output:?}");
    }
}

#[test]
fn an_entry_matches_only_when_all_of_its_selectors_do() {
    let Some(setpriv) = setpriv("an_entry_matches_only_when_all_of_its_selectors_do") else {
        return;
    };
    let folder = open_folder();
    let binary = copy_of_sidegate(folder.path(), "sidegate");
    let other = copy_of_sidegate(folder.path(), "other");
    let path = format!("unix:path:{}", binary.display());
    let entry = |name, selectors: &[&str]| Entry {
        path: name,
        selectors: selectors.iter().map(|&text| text.to_owned()).collect(),
    };
    let entries = [
        entry("/user", &["unix:uid:65534"]),
        entry("/user-and-group", &["unix:uid:65534", "unix:gid:65534"]),
        entry("/user-not-group", &["unix:uid:65534", "unix:gid:65533"]),
        entry("/user-and-program", &["unix:uid:65534", &path]),
        entry("/program", &[&path]),
        entry("/second-user-and-program", &[&path, "unix:uid:65533"]),
    ];
    let users = ManyUsers::start(folder, &entries);

    let cases: [(u32, &Path, &[&str]); 4] = [
        (
            65534,
            &binary,
            &["/user", "/user-and-group", "/user-and-program", "/program"],
        ),
        (65534, &other, &["/user", "/user-and-group"]),
        (65533, &binary, &["/program", "/second-user-and-program"]),
        (65532, &binary, &["/program"]),
    ];
    for (uid, binary, expected) in cases {
        let output = users.fetch(&setpriv, uid, binary, "json");
        assert!(output.status.success(), "{uid}: {}", output.stderr);
        let expected: BTreeSet<_> = expected
            .iter()
            .map(|path| format!("spiffe://sidegate.local{path}"))
            .collect();
        assert_eq!(spiffe_ids(&output), expected, "{uid} {}", binary.display());
    }
    let output = users.fetch(&setpriv, 65533, &other, "json");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

async fn client(gate: &Sidegate) -> WorkloadApiClient {
    WorkloadApiClient::connect_to(&gate.ready.workload_socket)
        .await
        .expect("the Workload API answers")
}

fn key(svid: &X509Svid) -> rcgen::KeyPair {
    rcgen::KeyPair::try_from(svid.private_key().as_bytes()).expect("a PKCS #8 key")
}

/// `sidegate svid fetch x509` without the variable that the machine may have set.
fn fetch(arguments: &[&str]) -> Output {
    let mut command = Sidegate::command("svid");
    command
        .args(["fetch", "x509"])
        .args(arguments)
        .env_remove("SPIFFE_ENDPOINT_SOCKET");
    finish(&mut command)
}

fn write_pem(folder: &Path, name: &str, certificates: &[spiffe::Certificate]) -> PathBuf {
    let file = folder.join(name).with_extension("pem");
    let text: String = certificates
        .iter()
        .map(|certificate| pem::encode(&pem::Pem::new("CERTIFICATE", certificate.as_bytes())))
        .collect();
    fs::write(&file, text).expect("the file is written");
    file
}

async fn next(responses: &mut tonic::Streaming<DiscoveryResponse>) -> DiscoveryResponse {
    timeout(Duration::from_secs(30), responses.message())
        .await
        .expect("a response comes")
        .expect("the stream goes on")
        .expect("it does not end")
}

/// The names of the secrets in a response, in order.
fn secrets(response: &DiscoveryResponse) -> Vec<String> {
    let mut names: Vec<_> = response
        .resources
        .iter()
        .map(|resource| {
            assert_eq!(resource.type_url, SECRET_TYPE);
            let secret: Secret = prost::Message::decode(&*resource.value).expect("a secret");
            secret.name
        })
        .collect();
    names.sort();
    names
}

/// setpriv, where it can do what it is for: as root.
pub(crate) fn setpriv(test: &str) -> Option<PathBuf> {
    let found = tool(Tool::Setpriv).filter(|_| geteuid().is_root());
    if found.is_none() {
        skip(test, Tool::Setpriv);
    }
    found
}
