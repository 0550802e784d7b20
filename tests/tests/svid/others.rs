//! Workload APIs that are not ours: several trust domains, profiles that are switched off, and
//! answers that cannot be used.

use std::fs;

use serde_json::{Value, json};
use sidegate_tests::Output;

use super::fake::{Fake, JwtBundles, Reply, Svid, SvidResponse, X509Bundles, by_id, root};
use super::watch::{event, events, watch};
use super::{certificates, is_refused, names, svid};
use crate::support::{finish, folder};

const SVID: &str = "FetchX509SVID";
const X509_BUNDLES: &str = "FetchX509Bundles";
const JWT_BUNDLES: &str = "FetchJWTBundles";

/// SPIRE's Workload API sends keys without `use`.
const JWKS: &str = r#"{"keys": [{"kty": "EC", "kid": "one", "crv": "P-256",
    "x": "ngLYQnlfF6GsojUwqtcEE3WgTNG2RUlsGhK73RNEl5k",
    "y": "tKbiDSUSsQ3F1P7wteeHNXIcU-cx6CgSbroeQrQHTLM"}]}"#;

/// Two trust domains, `one.test` the own one.
struct Two {
    fake: Fake,
    svid: Svid,
    roots: [Vec<u8>; 2],
}

impl Two {
    fn start(folder: &std::path::Path) -> Self {
        let fake = Fake::start(folder);
        let roots = [root(), root()];
        let [own, foreign] = roots.clone();
        let svid = Svid::new("one.test", &own);
        let bundles = by_id([("two.test", foreign), ("one.test", own)]);
        fake.set(X509_BUNDLES, Reply::of(&X509Bundles { bundles }));
        let bundles = by_id([("one.test", JWKS.into())]);
        fake.set(JWT_BUNDLES, Reply::of(&JwtBundles { bundles }));
        let two = Self { fake, svid, roots };
        two.federate(Some(&two.roots[1]));
        two
    }

    /// With this bundle of `two.test`.
    fn federate(&self, root: Option<&Vec<u8>>) {
        let bundles = root.map(|root| by_id([("two.test", root.clone())]));
        let response = SvidResponse {
            svids: vec![self.svid.clone()],
            federated_bundles: bundles.unwrap_or_default(),
        };
        self.fake.set(SVID, Reply::of(&response));
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        run(&self.fake, arguments).await
    }
}

/// Beside the fake, which must go on.
async fn run(fake: &Fake, arguments: &[&str]) -> Output {
    let mut command = svid(arguments);
    command.args(["--socket", &fake.socket]);
    tokio::task::spawn_blocking(move || finish(&mut command))
        .await
        .expect("it ends")
}

fn document(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_str(&output.stdout).expect("it is JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_federated_bundle_is_written_beside_the_own_one() {
    let folder = folder();
    let two = Two::start(folder.path());
    let out = folder.path().join("out");
    let path = out.to_str().expect("it is text");
    let fetched = document(
        &two.run(&["fetch", "x509", "-o", "json", "--write", path])
            .await,
    );
    let files = [
        "bundle.0.pem",
        "federated_bundle.0.0.pem",
        "svid.0.key",
        "svid.0.pem",
    ];
    assert_eq!(names(&out), files.map(ToOwned::to_owned).into());
    assert_eq!(certificates(&out.join(files[0])), [two.roots[0].clone()]);
    assert_eq!(certificates(&out.join(files[1])), [two.roots[1].clone()]);
    let federated = &fetched["svids"][0]["files"]["federated_bundles"];
    assert_eq!(*federated, json!({"two.test": out.join(files[1])}));
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_of_several_trust_domains_are_told_apart() {
    let folder = folder();
    let two = Two::start(folder.path());
    let pem = two.run(&["bundle"]).await.stdout;
    let (one, other) = pem.split_once("# two.test\n").expect("a heading");
    assert!(one.starts_with("# one.test\n"), "{pem}");
    for (text, root) in [(one, &two.roots[0]), (other, &two.roots[1])] {
        assert_eq!(pem::parse(text).expect("it is PEM").contents(), root);
    }

    let own = document(&two.run(&["bundle", "--format", "spiffe"]).await);
    let arguments = ["bundle", "--format", "spiffe", "--trust-domain", "two.test"];
    let foreign = document(&two.run(&arguments).await);
    let uses = |bundle: &Value| {
        let keys = bundle["keys"].as_array().expect("there are keys").iter();
        keys.map(|key| key["use"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(uses(&own), ["x509-svid", "jwt-svid"]);
    assert_eq!(uses(&foreign), ["x509-svid"]);
    let map = document(&two.run(&["bundle", "-o", "json"]).await);
    let both = json!({"trust_domains": {"one.test": own, "two.test": foreign}});
    assert_eq!(map, both);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verifier_without_an_identity_says_which_bundle_it_wants() {
    let folder = folder();
    let two = Two::start(folder.path());
    two.fake.set(SVID, Reply::Status(7, "no identity issued"));
    let refused = two.run(&["bundle", "--format", "spiffe"]).await;
    is_refused(&refused, "SG0050");
    assert!(refused.stderr.contains("--trust-domain"), "{refused:?}");
    for arguments in [
        &["bundle", "--format", "spiffe", "--trust-domain", "one.test"][..],
        &["bundle", "-o", "json"],
    ] {
        document(&two.run(arguments).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_is_switched_off_gives_no_bundles() {
    let folder = folder();
    let fake = Fake::start(folder.path());
    is_refused(&run(&fake, &["bundle"]).await, "SG0050");
    let bundles = by_id([("one.test", root())]);
    fake.set(X509_BUNDLES, Reply::of(&X509Bundles { bundles }));
    let bundle = document(&run(&fake, &["bundle", "--format", "spiffe"]).await);
    assert_eq!(bundle["keys"].as_array().map(Vec::len), Some(1));
    // Not now is another thing than not at all.
    fake.set(JWT_BUNDLES, Reply::Status(14, "later"));
    let refused = run(&fake, &["bundle"]).await;
    is_refused(&refused, "SG0050");
    assert!(refused.stderr.contains("later"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_tokens_that_cannot_be_used_refuse_all_bundles() {
    let folder = folder();
    let two = Two::start(folder.path());
    for jwks in [
        JWKS.replace("P-256", "P-384"),
        JWKS.replace("\"one\"", "\"\""),
        JWKS.replace("\"y\"", "\"z\""),
    ] {
        let bundles = by_id([("one.test", jwks.clone().into())]);
        two.fake
            .set(JWT_BUNDLES, Reply::of(&JwtBundles { bundles }));
        for arguments in [&["bundle"][..], &["bundle", "-o", "json"]] {
            is_refused(&two.run(arguments).await, "SG0192");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_that_ends_takes_its_file_away() {
    let folder = folder();
    let two = Two::start(folder.path());
    let out = folder.path().join("out");
    let path = out.to_str().expect("it is text").to_owned();
    tokio::task::block_in_place(|| {
        let mut watch = watch(&two.fake.socket, &["--write", &path]);
        let update = event(&mut watch, "update", 1);
        assert!(update["bundles"]["two.test"].is_string(), "{update}");
        let federated = out.join("federated_bundle.0.0.pem");
        assert_eq!(certificates(&federated), [two.roots[1].clone()]);

        // Everything of it revoked: a bundle that verifies nothing.
        two.federate(Some(&Vec::new()));
        let update = event(&mut watch, "update", 2);
        assert_eq!(update["bundles"]["two.test"], "");
        assert_eq!(fs::read_to_string(&federated).expect("it is there"), "");

        two.federate(None);
        let update = event(&mut watch, "update", 3);
        assert_eq!(update["bundles"].get("two.test"), None);
        assert!(!federated.exists());
        assert!(out.join("svid.0.key").exists());

        two.fake.set(SVID, Reply::Status(7, "no identity issued"));
        event(&mut watch, "withdrawn", 1);
        assert!(names(&out).is_empty());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_shown_and_asked_for_again() {
    let folder = folder();
    let two = Two::start(folder.path());
    let bad = SvidResponse {
        svids: vec![Svid {
            x509_svid: b"words".to_vec(),
            ..two.svid.clone()
        }],
        ..SvidResponse::default()
    };
    two.fake.set(SVID, Reply::of(&bad));
    let out = folder.path().join("out");
    let path = out.to_str().expect("it is text").to_owned();
    is_refused(
        &two.run(&["fetch", "x509", "--write", &path]).await,
        "SG0050",
    );
    assert!(!out.exists());
    tokio::task::block_in_place(|| {
        let mut watch = watch(&two.fake.socket, &["--write", &path]);
        event(&mut watch, "unavailable", 1);
        assert!(!out.exists());
        two.federate(None);
        event(&mut watch, "update", 1);
        assert!(out.join("svid.0.key").exists());
        two.fake.set(SVID, Reply::Status(14, "later"));
        let gone = event(&mut watch, "unavailable", 2);
        assert_eq!(gone["reason"], "later");
        assert!(out.join("svid.0.key").exists());
        assert!(watch.stderr().is_empty(), "{}", watch.stderr());
        assert_eq!(events(&watch).len(), 3);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_will_be_refused_again_ends_a_watch() {
    let folder = folder();
    let fake = Fake::start(folder.path());
    let refused = run(&fake, &["watch"]).await;
    is_refused(&refused, "SG0050");
    fake.set(SVID, Reply::Status(3, "security header missing"));
    let refused = run(&fake, &["watch"]).await;
    is_refused(&refused, "SG0050");
    assert!(refused.stderr.contains("security header"), "{refused:?}");
}
