//! An agent that says what it should not: nothing of a message that is refused is taken.

use prost::Message;
use sidegate_tests::{Sidegate, until};

use super::issuer::{Issuer, Set, good};
use super::{DEMO, GREETER, configuration, is_down, is_up, shown};
use crate::support::{Client, address, folder, write};
use crate::svid::fake::{Fake, JwtBundles, Reply, Svid, SvidResponse, by_id, root};
use crate::workload_api::serial;

const SVID: &str = "FetchX509SVID";
const JWT_BUNDLES: &str = "FetchJWTBundles";

const JWKS: &str = r#"{"keys": [{"kty": "EC", "kid": "one", "crv": "P-256",
    "x": "ngLYQnlfF6GsojUwqtcEE3WgTNG2RUlsGhK73RNEl5k",
    "y": "tKbiDSUSsQ3F1P7wteeHNXIcU-cx6CgSbroeQrQHTLM"}]}"#;

/// A message with these sets, each with the ID that it has in the message.
fn message(sets: &[(&str, &Set)]) -> SvidResponse {
    let svids = sets.iter().map(|(id, set)| Svid {
        spiffe_id: (*id).to_owned(),
        x509_svid: der(&set.svid),
        x509_svid_key: der(&set.key),
        bundle: der(&set.bundle),
    });
    SvidResponse {
        svids: svids.collect(),
        ..SvidResponse::default()
    }
}

fn der(text: &str) -> Vec<u8> {
    pem::parse(text).expect("it is PEM").into_contents()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_not_in_order_replaces_nothing() {
    let folder = folder();
    let fake = Fake::start(folder.path());
    let issuer = Issuer::new();
    let first = issuer.set(GREETER);
    let jwks = JwtBundles {
        bundles: by_id([("sidegate.local", JWKS.into())]),
    };
    fake.set(SVID, Reply::of(&message(&[(GREETER, &first)])));
    fake.set(JWT_BUNDLES, Reply::of(&jwks));
    let socket = &fake.socket;
    let section =
        format!("source = \"workload-api\"\n[identity.workload_api]\nsocket = {socket:?}\n");
    let gate =
        tokio::task::block_in_place(|| Sidegate::run(&configuration(folder.path(), &section)));
    let Set { svid, key, bundle } = issuer.set(DEMO);
    let [svid, key, bundle] = [("svid", svid), ("key", key), ("bundle", bundle)]
        .map(|(name, text)| write(folder.path(), &format!("client/{name}.pem"), text));
    let client = Client::new(address(&gate), &bundle, &svid, &key);
    let serial_of = |set: &Set| Some(serial(&der(&set.svid)));
    assert_eq!(shown(&client).await, serial_of(&first));

    let next = issuer.set(GREETER);
    let mut late = good(GREETER);
    late.not_after = crate::support::now() - time::Duration::seconds(30);
    let foreign = "spiffe://other.example/greeter";
    let with = |change: &dyn Fn(&mut SvidResponse)| {
        let mut message = message(&[(GREETER, &next)]);
        change(&mut message);
        message
    };
    let cases = [
        ("no SVIDs", SvidResponse::default(), "SG0168"),
        (
            "half a key",
            with(&|it| it.svids[0].x509_svid_key.truncate(20)),
            "SG0168",
        ),
        (
            "no bundle",
            with(&|it| it.svids[0].bundle.clear()),
            "SG0168",
        ),
        (
            "half a bundle",
            with(&|it| it.svids[0].bundle.truncate(99)),
            "SG0168",
        ),
        (
            "a bundle of others",
            with(&|it| it.svids[0].bundle = root()),
            "SG0166",
        ),
        (
            "the key of another",
            with(&|it| it.svids[0].x509_svid_key = der(&first.key)),
            "SG0166",
        ),
        (
            "a second SVID that has expired",
            message(&[(GREETER, &next), (GREETER, &issuer.set_of(&late))]),
            "SG0166",
        ),
        (
            "a second SVID of another trust domain",
            message(&[(GREETER, &next), (foreign, &issuer.set(foreign))]),
            "SG0166",
        ),
        (
            "a foreign bundle that is none",
            with(&|it| it.federated_bundles = by_id([("other.example", vec![1, 2, 3])])),
            "SG0168",
        ),
    ];
    for (what, bad, code) in cases {
        let before = shown(&client).await;
        fake.set(SVID, Reply::of(&bad));
        tokio::task::block_in_place(|| is_down(&gate, code));
        assert_eq!(shown(&client).await, before, "{what}");
        let good = issuer.set(GREETER);
        fake.set(SVID, Reply::of(&message(&[(GREETER, &good)])));
        tokio::task::block_in_place(|| is_up(&gate));
        assert_eq!(shown(&client).await, serial_of(&good), "{what}");
    }
    // Bytes that are no message, and a JWK Set that is none.
    fake.set(SVID, Reply::Message(vec![0xff; 9]));
    tokio::task::block_in_place(|| is_down(&gate, "SG0167"));
    fake.set(SVID, Reply::of(&message(&[(GREETER, &next)])));
    tokio::task::block_in_place(|| is_up(&gate));
    let bad = JwtBundles {
        bundles: by_id([("sidegate.local", b"{".to_vec())]),
    };
    fake.set(JWT_BUNDLES, Reply::Message(bad.encode_to_vec()));
    tokio::task::block_in_place(|| is_down(&gate, "SG0168"));
    assert_eq!(shown(&client).await, serial_of(&next));
    // Without the profile there are none, and nothing is wrong.
    fake.set(JWT_BUNDLES, Reply::Status(12, "unimplemented"));
    tokio::task::block_in_place(|| is_up(&gate));
    // An agent that is busy is no agent that takes back.
    fake.set(SVID, Reply::Status(14, "workload attestation failed"));
    tokio::task::block_in_place(|| is_down(&gate, "SG0167"));
    assert_eq!(client.get("/hello").await.status, 200);
    fake.set(SVID, Reply::Status(7, "no identity issued"));
    until("that everything was taken back", || {
        let (status, _) = crate::support::admin(&gate, "/readyz").expect("it is served");
        (status == 503).then_some(())
    });
    assert_eq!(shown(&client).await, None);
}
