//! Open streams learn of entries at once, and of no one else's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::timeout;
use tonic::Code;

use super::start;
use super::stream::{JwtBundles, Stream, Svids, X509Bundles};
use crate::jwt::raw::fetch;
use crate::support::{Operator, folder, own_entry, own_uid, program, spiffe_id};
use crate::workload_api::raw::{
    DiscoveryRequest, DiscoveryResponse, Secret, requests, stream_secrets,
};

const SECRET_TYPE: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

#[tokio::test]
async fn a_stream_gets_each_svid_as_its_entry_comes_and_goes_and_keeps_the_others() {
    let folder = folder();
    let gate = start(folder.path(), &own_entry("/base"));
    let operator = Operator::of(&gate);
    let mut stream = Stream::svids(&gate.ready.workload_socket).await;
    let first = stream.serials().await;
    assert_eq!(ids(&first), BTreeSet::from([spiffe_id("/base")]));

    let mine = operator.create("/mine", &program(&ourselves()), &[]);
    let second = stream.serials().await;
    let both = BTreeSet::from([spiffe_id("/base"), spiffe_id("/mine")]);
    assert_eq!(ids(&second), both);
    assert_eq!(second[&spiffe_id("/base")], first[&spiffe_id("/base")]);

    // What does not concern this workload is not told: the next that comes is its own again.
    let others = [
        operator.create("/other", "unix:path:/nowhere", &[]),
        operator.create("/other", "unix:uid:4000000000", &[]),
    ];
    for other in others {
        operator.delete(&other);
    }
    operator.create("/more", &own_uid(), &[]);
    let third = stream.serials().await;
    let all = BTreeSet::from(["/base", "/mine", "/more"].map(spiffe_id));
    assert_eq!(ids(&third), all);
    assert_eq!(third[&spiffe_id("/mine")], second[&spiffe_id("/mine")]);

    operator.delete(&mine);
    let fourth = stream.serials().await;
    assert_eq!(
        ids(&fourth),
        BTreeSet::from([spiffe_id("/base"), spiffe_id("/more")])
    );
    assert_eq!(fourth[&spiffe_id("/base")], first[&spiffe_id("/base")]);
}

#[tokio::test]
async fn with_the_last_entry_all_streams_of_a_workload_end_and_with_a_new_one_they_begin() {
    let folder = folder();
    let gate = start(folder.path(), "");
    let operator = Operator::of(&gate);
    let socket = &gate.ready.workload_socket;
    for round in 0..2 {
        let one = operator.create("/one", &own_uid(), &["--audience", "demo"]);
        let two = operator.create("/two", &program(&ourselves()), &["--audience", "demo"]);
        let mut svids = Stream::svids(socket).await;
        assert_eq!(svids.serials().await.len(), 2, "{round}");
        let x509 = Stream::<X509Bundles>::open(socket, "FetchX509Bundles").await;
        let mut x509 = x509.expect("a stream");
        assert_eq!(x509.next().await.expect("bundles").bundles.len(), 1);
        let jwt = Stream::<JwtBundles>::open(socket, "FetchJWTBundles").await;
        let mut jwt = jwt.expect("a stream");
        assert_eq!(jwt.next().await.expect("bundles").bundles.len(), 1);
        assert_eq!(fetch(socket, &["demo"], "").await.unwrap().len(), 2);

        operator.delete(&one);
        let left = svids.serials().await;
        assert_eq!(ids(&left), BTreeSet::from([spiffe_id("/two")]));
        assert_eq!(fetch(socket, &["demo"], "").await.unwrap().len(), 1);

        operator.delete(&two);
        let mut ends = vec![svids.next().await.expect_err("it ends")];
        ends.push(x509.next().await.expect_err("it ends"));
        ends.push(jwt.next().await.expect_err("it ends"));
        ends.push(fetch(socket, &["demo"], "").await.expect_err("no more"));
        let again = Stream::<Svids>::open(socket, "FetchX509SVID").await;
        ends.push(match again {
            Ok(mut stream) => stream.next().await.expect_err("no more"),
            Err(status) => status,
        });
        for status in ends {
            assert_eq!(status.code(), Code::PermissionDenied, "{round}: {status}");
            assert_eq!(status.message(), "no identity issued", "{round}");
        }
    }
}

#[tokio::test]
async fn a_stream_of_secrets_is_silent_without_an_entry_and_goes_on_with_the_next() {
    let folder = folder();
    let gate = start(folder.path(), "");
    let operator = Operator::of(&gate);
    let entry = operator.create("/one", &own_uid(), &[]);
    let mut secrets = Secrets::open(&gate.ready.workload_socket).await;
    assert_eq!(secrets.next().await, ["/one"]);

    let second = operator.create("/two", &own_uid(), &[]);
    operator.delete(&entry);
    // Either both changes are told, or what they came to.
    if secrets.next().await == ["/one"] {
        assert_eq!(secrets.next().await, ["/two"]);
    }
    // The withdrawal is not: what Envoy has cannot be taken away from it.
    operator.delete(&second);
    operator.create("/three", &own_uid(), &[]);
    assert_eq!(secrets.next().await, ["/three"]);
}

#[tokio::test]
async fn a_change_of_entries_ends_no_stream_of_anybody_else() {
    let folder = folder();
    let gate = start(folder.path(), &own_entry("/base"));
    let operator = Operator::of(&gate);
    let socket = &gate.ready.workload_socket;
    let mut svids = Stream::svids(socket).await;
    let before = svids.update().await;
    let bundles = Stream::<X509Bundles>::open(socket, "FetchX509Bundles").await;
    let mut bundles = bundles.expect("a stream");
    let first = bundles.next().await.expect("bundles");
    for number in 0..20 {
        let entry = operator.create("/other", &format!("unix:uid:400000{number}"), &[]);
        operator.delete(&entry);
    }
    // The bundle has not changed with any of them: the next is that of a new root.
    operator.ask(&["rotate", "x509", "--prepare-only"]);
    let next = bundles.next().await.expect("bundles");
    assert_ne!(next.bundles, first.bundles);
    let after = svids.update().await;
    assert_eq!(after.serials(), before.serials());
    assert!(before.roots().is_subset(&after.roots()));
    assert_eq!(after.roots().len(), 2);
}

fn ids(serials: &BTreeMap<String, String>) -> BTreeSet<String> {
    serials.keys().cloned().collect()
}

/// A stream of the secrets `default` and `ROOTCA`.
struct Secrets {
    sender: tokio::sync::mpsc::Sender<DiscoveryRequest>,
    responses: tonic::Streaming<DiscoveryResponse>,
}

impl Secrets {
    async fn open(socket: &str) -> Self {
        let (sender, requests) = requests();
        let first = ask(&DiscoveryResponse::default());
        sender.send(first).await.expect("there is room");
        let responses = stream_secrets(socket, requests).await;
        Self {
            sender,
            responses: responses.expect("a stream"),
        }
    }

    /// The path of the SPIFFE ID in the next response, which is accepted.
    async fn next(&mut self) -> [&'static str; 1] {
        let next = timeout(Duration::from_secs(30), self.responses.message()).await;
        let response = next.expect("it comes").expect("the stream goes on");
        let response = response.expect("it does not end");
        let accept = ask(&response);
        self.sender.send(accept).await.expect("the stream is open");
        let default = response.resources.iter().find(|resource| {
            let secret: Secret = prost::Message::decode(&*resource.value).expect("a secret");
            secret.name == "default"
        });
        let value = &default.expect("it is there").value;
        // The SPIFFE ID is plain in the certificate, but that is PEM here.
        let start = b"-----BEGIN CERTIFICATE-----";
        let at = value.windows(start.len()).position(|part| part == start);
        let text = String::from_utf8_lossy(&value[at.expect("it has a certificate")..]);
        let leaf = pem::parse(text.as_bytes()).expect("it is PEM");
        let id = crate::workload_api::spiffe_id(leaf.contents());
        let known = ["/one", "/two", "/three"];
        let path = known.into_iter().find(|path| spiffe_id(path) == id);
        [path.expect("it is one of ours")]
    }
}

fn ask(last: &DiscoveryResponse) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: last.version_info.clone(),
        resource_names: vec!["default".to_owned(), "ROOTCA".to_owned()],
        type_url: SECRET_TYPE.to_owned(),
        response_nonce: last.nonce.clone(),
    }
}

/// The program that the tests run in.
fn ourselves() -> PathBuf {
    std::env::current_exe().expect("its path is known")
}
