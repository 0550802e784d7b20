//! Policies from OPA bundles: from servers, directories and tarballs, signed or not.

mod archive;
mod refused;
mod server;
mod signed;

use bytes::Bytes;
use http::Request;
use sidegate_tests::{Output, Sidegate, until};
use tempfile::TempDir;

use crate::support::{Client, Configuration, body, finish, folder, logged, write};
pub(crate) use archive::tarball;
use archive::{DATA, POLICY, good};
pub(crate) use server::{BundleServer, Published};

/// A configuration with one bundle.
fn with_bundle(lines: &str) -> Configuration {
    Configuration::new().rest(&format!("[[policy.bundle]]\nname = \"authz\"\n{lines}\n"))
}

/// `sidegate` with a subcommand and a configuration, to its end.
fn run(subcommand: &str, folder: &TempDir, configuration: &Configuration) -> Output {
    let file = configuration.write(folder.path());
    finish(Sidegate::command(subcommand).arg("--config").arg(file))
}

/// What the policy decides on two paths.
async fn assert_decides(client: &Client) {
    for (path, status) in [("/headers", 200), ("/no", 403)] {
        let answer = client.send(Request::get(path), body("")).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_fetched_and_asked_for_again_by_its_etag() {
    let folder = folder();
    let server = BundleServer::start(Published::Archive("\"1\"", good()), None).await;
    let configuration = with_bundle(&format!(
        "url = \"{}/bundles/authz?tenant=a\"\nmin_poll = \"100ms\"\nmax_poll = \"100ms\"",
        server.url
    ));
    let (sidegate, client) = configuration.start(folder.path());
    assert_decides(&client).await;
    logged(&sidegate, &["authz", "r1", "is in use"]);
    // Nobody said that it is signed, or that the server is who it should be.
    logged(&sidegate, &["authz", "neither signed nor fetched over TLS"]);
    let asked = until("two requests for what is newer", || {
        let asked = server.asked();
        (asked.len() > 2).then_some(asked)
    });
    let header = |index: usize, name: &str| {
        let value = asked[index].get(name).map(|it| it.to_str().unwrap());
        value.unwrap_or_default().to_owned()
    };
    assert_eq!(header(0, "if-none-match"), "");
    for index in 1..asked.len() {
        assert_eq!(header(index, "if-none-match"), "\"1\"");
        assert_eq!(header(index, "prefer"), "modes=snapshot");
    }
    assert_eq!(header(0, "host"), server.url.trim_start_matches("http://"));
    sidegate.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_waits_is_asked_to_and_told_the_token() {
    let folder = folder();
    let server = BundleServer::start(Published::Archive("\"1\"", good()), Some("s3cret")).await;
    write(folder.path(), "token", "s3cret\n");
    let configuration = with_bundle(&format!(
        "url = \"{}\"\ntoken_file = \"token\"\nlong_poll = \"30s\"",
        server.url
    ));
    let (sidegate, client) = configuration.start(folder.path());
    assert_decides(&client).await;
    let asked = until("a request that waits", || {
        let asked = server.asked();
        let prefer = asked.last()?.get("prefer")?.to_str().ok()?;
        (prefer == "modes=snapshot;wait=30").then_some(asked)
    });
    assert_eq!(asked.len(), 2, "{asked:?}");
    let output = sidegate.stop();
    assert!(output.status.success());
    assert!(!output.stderr.contains("s3cret"), "{}", output.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_bundle_decides_while_the_server_is_down() {
    let folder = folder();
    let server = BundleServer::start(Published::Archive("\"1\"", good()), Some("token")).await;
    let token = write(folder.path(), "token", "token");
    let configuration = with_bundle(&format!(
        "url = \"{}\"\ntoken_file = \"token\"\npersist = true\nmin_poll = \"100ms\"\nmax_poll = \"100ms\"",
        server.url
    ));
    let (sidegate, _) = configuration.start(folder.path());
    sidegate.stop();
    let kept = folder.path().join("state/bundles/authz/bundle.tar.gz");
    assert_eq!(std::fs::read(&kept).unwrap(), good());

    // A server that lets nobody in, and one that has nothing to offer, are as good as none.
    std::fs::write(&token, "wrong").unwrap();
    let (sidegate, client) = configuration.start(folder.path());
    assert_decides(&client).await;
    logged(&sidegate, &["SG0230", "authz", "401"]);
    sidegate.stop();
    std::fs::write(&token, "token").unwrap();
    server.publish(Published::Archive(
        "\"2\"",
        Bytes::from_static(b"no bundle"),
    ));
    let (sidegate, client) = configuration.start(folder.path());
    assert_decides(&client).await;
    logged(&sidegate, &["SG0231", "authz"]);
    sidegate.stop();
    assert_eq!(std::fs::read(&kept).unwrap(), good());

    std::fs::remove_file(&kept).unwrap();
    let output = run("run", &folder, &configuration);
    assert_eq!(output.status.code(), Some(2), "{}", output.stderr);
    assert!(output.stderr.contains("SG0231"), "{}", output.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_who_its_certificate_says_or_is_not_asked() {
    let folder = folder();
    let server = BundleServer::start_tls(Published::Archive("\"1\"", good())).await;
    let other = BundleServer::start_tls(Published::Archive("\"1\"", good())).await;
    let configuration = with_bundle(&format!("url = \"{}\"\nca_file = \"ca.pem\"", server.url));
    let ca_file = write(folder.path(), "ca.pem", &server.certificate);
    let (sidegate, client) = configuration.start(folder.path());
    assert_decides(&client).await;
    let output = sidegate.stop();
    assert!(
        !output.stderr.contains("neither signed"),
        "{}",
        output.stderr
    );
    let asked = server.asked().len();
    for (content, code) in [(other.certificate.as_str(), "SG0230"), ("", "SG0249")] {
        std::fs::write(&ca_file, content).unwrap();
        let output = run("run", &folder, &configuration);
        assert_eq!(output.status.code(), Some(2), "{}", output.stderr);
        assert!(output.stderr.contains(code), "{}", output.stderr);
    }
    assert_eq!(server.asked().len(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_bundles_from_disk_and_server_decide_together() {
    let folder = folder();
    let roots = |roots: &str| format!(r#"{{"roots": [{roots}]}}"#);
    let policy = tarball(&[
        (".manifest", &roots("\"envoy/authz\"")),
        ("policy.rego", POLICY),
    ]);
    let server = BundleServer::start(Published::Archive("\"1\"", policy), None).await;
    write(folder.path(), "data/.manifest", roots("\"envoy/closed\""));
    write(folder.path(), "data/data.json", DATA);
    let rest = tarball(&[
        (
            "/.manifest",
            &roots("\"old\"").replace('}', ", \"rego_version\": 0}"),
        ),
        ("/old.rego", "package old\nallow { true }\n"),
    ]);
    write(folder.path(), "rest.tar.gz", rest);
    let configuration = with_bundle(&format!(
        "url = \"{}\"\n\
         [[policy.bundle]]\nname = \"data\"\npath = \"data\"\n\
         [[policy.bundle]]\nname = \"rest\"\npath = \"rest.tar.gz\"\n",
        server.url
    ));
    let (sidegate, client) = configuration.start(folder.path());
    assert_decides(&client).await;
    sidegate.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reads_the_bundles_and_keeps_nothing() {
    let folder = folder();
    let server = BundleServer::start(Published::Archive("\"1\"", good()), None).await;
    let lines = format!("url = \"{}\"\npersist = true", server.url);
    let configuration = with_bundle(&lines);
    let output = run("check", &folder, &configuration);
    assert!(output.stdout.contains("bundle authz"), "{}", output.stdout);
    assert!(
        output.status.success(),
        "{}{}",
        output.stdout,
        output.stderr
    );
    assert!(!folder.path().join("state").exists());
    server.publish(Published::Archive(
        "\"2\"",
        Bytes::from_static(b"no bundle"),
    ));
    let output = run("check", &folder, &configuration);
    assert!(output.stdout.contains("SG0231"), "{}", output.stdout);
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etag_that_is_too_long_is_as_none() {
    let folder = folder();
    let long: &'static str = format!("\"{}\"", "e".repeat(2000)).leak();
    let server = BundleServer::start(Published::Archive(long, good()), None).await;
    let configuration = with_bundle(&format!(
        "url = \"{}\"\nmin_poll = \"100ms\"\nmax_poll = \"100ms\"",
        server.url
    ));
    let (sidegate, client) = configuration.start(folder.path());
    assert_decides(&client).await;
    logged(&sidegate, &["authz", "ETag is too long", "bytes=2002"]);
    let asked = until("requests for what is newer", || {
        let asked = server.asked();
        (asked.len() > 2).then_some(asked)
    });
    assert!(asked.iter().all(|it| !it.contains_key("if-none-match")));
    let mut status = Sidegate::command("policy");
    let state = &sidegate.ready.state;
    let status = finish(status.args(["status", "--state"]).arg(state));
    assert!(
        status.stdout.contains("authz, revision r1, looked for"),
        "{status:?}"
    );
    // One that is not is used again.
    server.publish(Published::Archive("\"2\"", good()));
    until("a request by the new ETag", || {
        let asked = server.asked();
        (asked.last()?.get("if-none-match")? == "\"2\"").then_some(())
    });
}
