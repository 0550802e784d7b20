//! What is told of the bundles of a running instance.

use bytes::Bytes;
use sidegate_tests::until;

use super::{ask, policy};
use crate::bundles::{BundleServer, Published, tarball};
use crate::support::{Configuration, counter, finish, folder, write};
use sidegate_tests::Sidegate;

fn bundle(revision: &str, rego: &str) -> Bytes {
    let manifest = format!(r#"{{"revision": "{revision}", "roots": ["envoy"]}}"#);
    tarball(&[("/.manifest", &manifest), ("/policy.rego", rego)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_bundle_decides_and_a_bad_one_keeps_it_and_both_are_told() {
    let folder = folder();
    let first = bundle("r1", super::ALLOWS);
    let server = BundleServer::start(Published::Archive("\"1\"", first), None).await;
    let rest = format!(
        "[[policy.bundle]]\nname = \"authz\"\nurl = \"{}\"\nmin_poll = \"100ms\"\nmax_poll = \"100ms\"\n",
        server.url
    );
    let (sidegate, client) = Configuration::new().rest(&rest).start(folder.path());
    assert_eq!(client.get("/status/200").await.status, 200);
    let facts = ask(&sidegate, "status", 0);
    let told = &facts["bundles"][0];
    assert_eq!(told["name"], "authz", "{facts}");
    assert_eq!(told["revision"], "r1", "{facts}");
    assert_eq!(told["etag"], "\"1\"", "{facts}");
    assert!(told["last_success"].as_u64() > Some(0), "{facts}");
    assert!(told["error"].is_null(), "{facts}");

    server.publish(Published::Archive("\"2\"", bundle("r2", super::DENIES)));
    until("another generation", || {
        (counter(&sidegate, "sidegate_policy_generation", &[]) > 1.5).then_some(())
    });
    assert_eq!(client.get("/status/200").await.status, 403);
    until("the bundle's new revision", || {
        let text = policy(&sidegate, &["status"]).stdout;
        text.contains("authz, revision r2, etag \"2\"")
            .then_some(())
    });

    let failing = format!("{}test_no if false\n", super::ALLOWS);
    for (etag, bad, code) in [
        ("\"3\"", bundle("r3", &failing), "SG0213"),
        ("\"4\"", Bytes::from_static(b"no bundle"), "SG0231"),
    ] {
        server.publish(Published::Archive(etag, bad));
        let facts = until("a failure", || {
            let output = policy(&sidegate, &["status", "-o", "json"]);
            let facts: serde_json::Value = serde_json::from_str(&output.stdout).ok()?;
            (facts["bundles"][0]["error"]["code"] == code).then_some((facts, output.status.code()))
        });
        assert_eq!(facts.1, Some(1), "{facts:?}");
        assert_eq!(facts.0["bundles"][0]["revision"], "r2", "{facts:?}");
        assert!(policy(&sidegate, &["status"]).stdout.contains(code));
        let mut check = Sidegate::command("check");
        let check = finish(check.arg("--state").arg(&sidegate.ready.state)).stdout;
        assert!(check.contains("‼ bundle is up to date"), "{check}");
        assert_eq!(client.get("/status/200").await.status, 403);
    }
    let labels = ["bundle=\"authz\""];
    let failing = || counter(&sidegate, "sidegate_policy_bundle_failing", &labels) > 0.5;
    assert!(failing());
    let last = "sidegate_policy_bundle_last_success_timestamp_seconds";
    assert!(counter(&sidegate, last, &labels) > 1.0e9);

    // The server takes them back.
    server.publish(Published::Archive("\"2\"", bundle("r2", super::DENIES)));
    until("no failure", || (!failing()).then_some(()));
    let facts = ask(&sidegate, "status", 0);
    assert_eq!(facts["generation"], 2, "{facts}");
    assert_eq!(facts.get("refused"), None, "{facts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_in_a_directory_is_followed() {
    let folder = folder();
    write(folder.path(), "bundle/.manifest", r#"{"revision": "r1"}"#);
    write(folder.path(), "bundle/policy.rego", super::ALLOWS);
    let (sidegate, client) = Configuration::new()
        .rest("[[policy.bundle]]\nname = \"authz\"\npath = \"bundle\"\n")
        .start(folder.path());
    assert_eq!(client.get("/status/200").await.status, 200);
    write(folder.path(), "bundle/policy.rego", super::DENIES);
    until("another generation", || {
        (counter(&sidegate, "sidegate_policy_generation", &[]) > 1.5).then_some(())
    });
    assert_eq!(client.get("/status/200").await.status, 403);
    write(folder.path(), "bundle/.manifest", r#"{"revision": "r2"}"#);
    until("the bundle's new revision", || {
        let facts = policy(&sidegate, &["status", "-o", "json"]).stdout;
        let facts: serde_json::Value = serde_json::from_str(&facts).ok()?;
        (facts["bundles"][0]["revision"] == "r2").then_some(())
    });
}
