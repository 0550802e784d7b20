use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::IF_NONE_MATCH;
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, Full};
use sidegate_policy::bundle::{Fetch, FetchBody, Fetching, Polling, kept};
use sidegate_policy::{Policy, PolicyOptions};

use super::super::source::BundleOrigin;
use super::super::status::BundleStatus;
use super::*;

const ALLOW: &str = "package envoy.authz\nallow := true\n";

const POLLING: Polling = Polling {
    min: Duration::from_millis(1),
    max: Duration::from_millis(2),
    long_poll: None,
};

/// A bundle server. Without a bundle it is down.
#[derive(Default)]
struct Server {
    bundle: Mutex<Option<(String, Vec<u8>)>>,
    /// What was asked for that is not newer than this.
    asked: Mutex<Vec<Option<String>>>,
}

impl Server {
    fn publish(&self, etag: &str, archive: &[u8]) {
        *self.bundle.lock().unwrap() = Some((etag.to_owned(), archive.to_vec()));
    }

    fn go_down(&self) {
        *self.bundle.lock().unwrap() = None;
    }

    fn last_asked(&self) -> Option<String> {
        self.asked.lock().unwrap().last().cloned().flatten()
    }
}

impl Fetch for Server {
    fn fetch(&self, headers: HeaderMap, _: Duration) -> Fetching<'_> {
        let known = headers.get(IF_NONE_MATCH);
        let known = known.map(|etag| etag.to_str().unwrap().to_owned());
        let bundle = self.bundle.lock().unwrap().clone();
        self.asked.lock().unwrap().push(known.clone());
        Box::pin(async move {
            let (etag, archive) = bundle.ok_or_else(|| Cause::from("down"))?;
            let body = |content: Vec<u8>| -> FetchBody {
                Full::from(content)
                    .map_err(|never| match never {})
                    .boxed_unsync()
            };
            let answer = Response::builder().header("etag", &etag);
            Ok(match known == Some(etag) {
                true => answer.status(304).body(body(Vec::new()))?,
                false => answer.body(body(archive))?,
            })
        })
    }
}

fn server_config(name: &str, server: &Arc<Server>, keep: Option<&Path>) -> BundleConfig {
    BundleConfig {
        name: name.to_owned(),
        origin: BundleOrigin::Server {
            fetch: Arc::<Server>::clone(server),
            polling: POLLING,
            keep: keep.map(Path::to_owned),
        },
        verification: None,
    }
}

fn tarball(files: &[(&str, &str)]) -> Vec<u8> {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let mut builder = tar::Builder::new(encoder);
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

fn bundle(revision: &str, roots: &str, policy: &str) -> Vec<u8> {
    let manifest = format!(r#"{{"revision": "{revision}", "roots": {roots}}}"#);
    tarball(&[(".manifest", &manifest), ("policy.rego", policy)])
}

fn authz(revision: &str) -> Vec<u8> {
    bundle(revision, r#"["envoy"]"#, ALLOW)
}

fn load(sources: PolicySources) -> Result<Vec<String>, PolicyError> {
    let revisions = sources.bundles().iter().map(|it| it.revision.clone());
    let revisions = revisions.collect();
    Policy::load(sources, &PolicyOptions::default()).map(|_| revisions)
}

async fn start(configs: Vec<BundleConfig>) -> Result<(BundleSources, Vec<String>), BundleError> {
    let clock: Clock = Arc::new(|| SystemTime::UNIX_EPOCH + Duration::from_secs(7));
    BundleSources::start(configs, Limits::default(), clock, load).await
}

/// Waits for what the tasks do meanwhile.
async fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    for _ in 0..10_000 {
        if let Some(answer) = ask() {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("waited in vain");
}

fn failure(status: &BundleStatus) -> Option<&str> {
    status.error.as_ref().map(|error| error.code.as_str())
}

#[tokio::test]
async fn what_is_accepted_is_kept_and_not_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("bundles/authz/bundle.tar.gz");
    let server = Arc::new(Server::default());
    server.publish("\"1\"", &authz("one"));
    let configs = || vec![server_config("authz", &server, Some(&kept))];
    let (mut bundles, loaded) = start(configs()).await.unwrap();
    assert_eq!(loaded, ["one"]);
    assert_eq!(std::fs::read(&kept).unwrap(), authz("one"));
    let handle = bundles.handle();
    let expected = BundleStatus {
        name: "authz".to_owned(),
        revision: "one".to_owned(),
        etag: Some("\"1\"".to_owned()),
        kept: false,
        last_success: Some(7),
        last_activation: Some(7),
        error: None,
    };
    assert_eq!(handle.status(), [expected]);
    until(|| (server.last_asked()? == "\"1\"").then_some(())).await;

    server.publish("\"2\"", &authz("two"));
    let update = bundles.next().await.unwrap();
    assert_eq!(load(update.sources).unwrap(), ["two"]);
    // Not yet.
    assert_eq!(handle.status()[0].revision, "one");
    assert_eq!(std::fs::read(&kept).unwrap(), authz("one"));
    update.acceptance.accept();
    until(|| (server.last_asked()? == "\"2\"").then_some(())).await;
    assert_eq!(handle.status()[0].revision, "two");
    assert_eq!(std::fs::read(&kept).unwrap(), authz("two"));

    drop(bundles);
    server.go_down();
    let (bundles, loaded) = start(configs()).await.unwrap();
    assert_eq!(loaded, ["two"]);
    let status = bundles.handle().status();
    assert!(status[0].kept, "{status:?}");
    assert_eq!(status[0].last_success, None);
    assert_eq!(failure(&status[0]), Some("SG0230"));
    // It comes back: the same bundle is no update, and all is well again.
    server.publish("\"2\"", &authz("two"));
    until(|| (!bundles.handle().status()[0].kept).then_some(())).await;
    let status = bundles.handle().status();
    assert_eq!(failure(&status[0]), None);
    assert_eq!(status[0].etag.as_deref(), Some("\"2\""));
}

#[tokio::test]
async fn what_is_refused_changes_nothing_and_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("bundle.tar.gz");
    let server = Arc::new(Server::default());
    server.publish("\"1\"", &authz("one"));
    let config = server_config("authz", &server, Some(&kept));
    let (mut bundles, _) = start(vec![config]).await.unwrap();
    let handle = bundles.handle();

    server.publish("\"bad\"", b"no bundle");
    until(|| (failure(&handle.status()[0])? == "SG0231").then_some(())).await;
    server.publish("\"2\"", &authz("two"));
    let update = bundles.next().await.unwrap();
    update.acceptance.refuse("SG0213", "its tests fail");
    until(|| (failure(&handle.status()[0])? == "SG0213").then_some(())).await;
    assert_eq!(handle.status()[0].revision, "one");
    // Nor is it accepted by being forgotten.
    drop(bundles.next().await.unwrap());
    until(|| (failure(&handle.status()[0])? == "SG0230").then_some(())).await;
    assert_eq!(server.last_asked().as_deref(), Some("\"1\""));
    assert_eq!(std::fs::read(&kept).unwrap(), authz("one"));
    bundles.next().await.unwrap().acceptance.accept();
    until(|| (server.last_asked()? == "\"2\"").then_some(())).await;
    assert_eq!(failure(&handle.status()[0]), None);
}

#[tokio::test]
async fn a_first_bundle_that_is_refused_is_replaced_by_the_kept_one() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("bundle.tar.gz");
    let server = Arc::new(Server::default());
    let config = || vec![server_config("authz", &server, Some(&kept))];
    // There is nothing to fall back on yet.
    let failing = "package envoy.authz\nallow := true\ntest_it if false\n";
    let failing = bundle("two", r#"["envoy"]"#, failing);
    server.publish("\"2\"", &failing);
    assert_eq!(start(config()).await.err().unwrap().code(), "SG0213");
    assert!(!kept.exists());
    let down = Arc::new(Server::default());
    let error = start(vec![server_config("authz", &down, None)]).await;
    let error = error.err().unwrap();
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        ("SG0230", "bundle `authz`")
    );

    kept::write(&kept, &authz("one")).unwrap();
    for (published, code) in [(failing, "SG0213"), (b"damaged".to_vec(), "SG0231")] {
        server.publish("\"2\"", &published);
        let (bundles, loaded) = start(config()).await.unwrap();
        assert_eq!(loaded, ["one"]);
        let status = bundles.handle().status();
        assert_eq!(failure(&status[0]), Some(code));
        assert_eq!(std::fs::read(&kept).unwrap(), authz("one"));
    }
    std::fs::write(&kept, "damaged").unwrap();
    assert_eq!(start(config()).await.err().unwrap().code(), "SG0231");
}

#[tokio::test]
async fn several_bundles_are_renewed_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("data");
    let write = |name: &str, content: &str| {
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(name), content).unwrap();
    };
    write(".manifest", r#"{"roots": ["bindings"], "revision": "a"}"#);
    write("data.json", r#"{"bindings": {}}"#);
    let server = Arc::new(Server::default());
    server.publish("\"1\"", &authz("one"));
    let path = BundleConfig {
        name: "data".to_owned(),
        origin: BundleOrigin::Path(directory.clone()),
        verification: None,
    };
    let configs = vec![path, server_config("authz", &server, None)];
    let (mut bundles, loaded) = start(configs).await.unwrap();
    assert_eq!(loaded, ["a", "one"]);
    let handle = bundles.handle();

    // A directory is read again when it changes.
    write(".manifest", r#"{"roots": ["bindings"], "revision": "b"}"#);
    let update = bundles.next().await.unwrap();
    assert_eq!(load(update.sources).unwrap(), ["b", "one"]);
    update.acceptance.accept();

    // What does not go together with the others is never shown.
    server.publish("\"2\"", &bundle("two", r#"["envoy", "bindings/x"]"#, ALLOW));
    let overlaps = async {
        until(|| (failure(&handle.status()[1])? == "SG0239").then_some(())).await;
    };
    tokio::select! {
        _ = bundles.next() => panic!("an update with overlapping roots"),
        () = overlaps => {}
    }
    server.publish("\"3\"", &authz("three"));
    let update = bundles.next().await.unwrap();
    assert_eq!(load(update.sources).unwrap(), ["b", "three"]);
    update.acceptance.accept();

    write(".manifest", "{");
    until(|| (failure(&handle.status()[0])? == "SG0237").then_some(())).await;
    assert_eq!(handle.status()[0].revision, "b");
}

#[tokio::test]
async fn to_examine_bundles_keeps_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("bundle.tar.gz");
    let server = Arc::new(Server::default());
    server.publish("\"1\"", &authz("one"));
    let configs = vec![server_config("authz", &server, Some(&kept))];
    let loaded = BundleSources::examine(configs, Limits::default(), load).await;
    assert_eq!(loaded.unwrap(), ["one"]);
    assert!(!kept.exists());
    assert_eq!(server.asked.lock().unwrap().len(), 1);
}
