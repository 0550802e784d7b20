//! What another configuration file changes while the instance runs.

mod load;

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sidegate_tests::{Sidegate, guest, until};

use super::reload::hang_up;
use super::unwell_running;
use crate::admin::Api;
use crate::support::{
    Client, Configuration, admin, body, counter, digest, folder, logged, patiently, write,
};

const RELOADED: &str = "the configuration is reloaded";

/// An HTTP/1.1 server that answers every request with its name.
async fn named(name: &'static str) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(move |_: Request<Incoming>| async move {
                let body = Full::new(bytes::Bytes::from_static(name.as_bytes()));
                Ok::<_, std::convert::Infallible>(Response::new(body))
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

/// The sections of an entry and a listener.
fn listener(name: &str, port: u16, rest: &str) -> String {
    format!(
        "[[identity.entry]]\nspiffe_id = \"spiffe://sidegate.local/{name}\"\n\
         selectors = [\"listener:name:{name}\"]\ndns_names = [\"localhost\"]\n\
         [[listener]]\nname = \"{name}\"\nlisten = \"127.0.0.1:{port}\"\n{rest}\n"
    )
}

fn configuration(listeners: &[String]) -> Configuration {
    Configuration::new().listener(&listeners.concat())
}

/// Writes another file, and waits until it counts.
fn change(sidegate: &Sidegate, folder: &Path, configuration: &Configuration) {
    configuration.write(folder);
    hang_up(sidegate, RELOADED);
}

/// The listeners that the instance tells of, by name, with their identities.
fn told(sidegate: &Sidegate) -> Vec<(String, String)> {
    let status = Api::of(sidegate).get("/v1/status").body;
    let listeners = status["listeners"].as_array().unwrap().iter();
    let text = |it: &Value, key: &str| it[key].as_str().unwrap().to_owned();
    listeners
        .map(|it| (text(it, "name"), text(it, "spiffe_id")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_come_and_go_and_one_that_does_not_change_is_not_touched() {
    let folder = folder();
    let (first, second) = (named("first").await, named("second").await);
    let port = free_port();
    let to = |address: SocketAddr| format!("upstream = \"http://{address}\"");
    let main = listener("main", 0, &to(first));
    let before =
        configuration(std::slice::from_ref(&main)).rest("[proxy]\ndrain_timeout = \"1s\"\n");
    let (sidegate, client) = before.start(folder.path());
    let ask = |path: &str| {
        Request::get(path)
            .header("host", "localhost")
            .body(body(""))
            .unwrap()
    };
    let mut kept = client.http1().await;
    let answer = patiently(kept.send_request(ask("/"))).await.unwrap();
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "first"
    );

    let other = listener("other", port, "component = \"probe\"");
    let other = other.replace(
        "listener:name:other",
        "component:name:probe\", \"component:digest:sha256:DIGEST",
    );
    let other = other.replace("DIGEST", &digest(&guest("probe")));
    let mut with_other = before.clone();
    with_other.listener += &other;
    change(&sidegate, folder.path(), &with_other);
    assert_eq!(told(&sidegate).len(), 2, "{:?}", told(&sidegate));
    let at_other = client.clone().at(&format!("127.0.0.1:{port}"));
    assert_eq!(at_other.get("/status/200").await.status, 200);
    let mut stream = at_other.http2().await;
    let endless = Request::get("https://localhost/stall")
        .body(body(""))
        .unwrap();
    let endless = patiently(stream.send_request(endless)).await.unwrap();
    assert_eq!(endless.status(), 200);

    // What goes says goodbye at once, and is cut after the drain timeout.
    change(&sidegate, folder.path(), &before);
    assert_eq!(told(&sidegate).len(), 1);
    assert!(
        TcpStream::connect(("127.0.0.1", port)).is_err(),
        "nobody listens"
    );
    patiently(async {
        while stream.ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let whole = patiently(endless.into_body().collect()).await;
    assert!(whole.is_err(), "it was cut, and did not end");
    logged(&sidegate, &["SG0306", "other"]);

    // The same place again, under another name and with another target.
    let again = listener("again", port, &to(second));
    let mut with_again = before.clone();
    with_again.listener += &again;
    change(&sidegate, folder.path(), &with_again);
    assert_eq!(at_other.get("/").await.body, "second");
    assert_eq!(
        told(&sidegate)[1],
        (
            "again".to_owned(),
            "spiffe://sidegate.local/again".to_owned()
        )
    );

    // The connection of the listener that was never touched.
    let answer = patiently(kept.send_request(ask("/"))).await.unwrap();
    assert!(!answer.headers().contains_key("connection"), "{answer:?}");
    assert!(!sidegate.process.stderr().contains("a listener changes"));
    assert_eq!(unwell_running(&sidegate), []);
    let successes = counter(
        &sidegate,
        "sidegate_config_reloads_total",
        &["result=\"success\""],
    );
    assert!((successes - 3.0).abs() < 0.5, "{successes}");
    assert_eq!(sidegate.stop().status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_whose_port_is_taken_changes_nothing_and_is_told_until_it_is_free() {
    let folder = folder();
    let (first, second) = (named("first").await, named("second").await);
    let to = |address: SocketAddr| format!("upstream = \"http://{address}\"");
    let (sidegate, client) = configuration(&[listener("main", 0, &to(first))]).start(folder.path());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let entries = |sidegate: &Sidegate| Api::of(sidegate).get("/v1/entries").body;
    let before = entries(&sidegate);
    let mut next = configuration(&[
        listener("main", 0, &to(second)),
        listener("other", port, &to(second)),
    ]);
    next = next.rest("[log]\nlevel = \"debug\"\n");
    next.write(folder.path());
    hang_up(&sidegate, "SG0072");
    logged(&sidegate, &["SG0301", "already in use"]);
    logged(&sidegate, &[&format!("listen = \"127.0.0.1:{port}\"")]);
    assert_eq!(client.get("/").await.body, "first");
    assert_eq!(told(&sidegate).len(), 1);
    assert_eq!(entries(&sidegate), before);
    assert!(!sidegate.process.stderr().contains("DEBUG"));
    let rows = unwell_running(&sidegate);
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!([&rows[0].0, &rows[0].2], ["reload", "SG0072"]);
    assert!(rows[0].3.contains("SG0301"), "{rows:?}");
    let (status, ready) = admin(&sidegate, "/readyz").unwrap();
    assert_eq!(status, 200);
    assert!(
        ready.contains("warning: the configuration file is refused"),
        "{ready}"
    );
    let refused = || counter(&sidegate, "sidegate_config_refused", &[]);
    assert!((refused() - 1.0).abs() < 0.5);

    drop(taken);
    hang_up(&sidegate, RELOADED);
    assert_eq!(client.get("/").await.body, "second");
    assert_eq!(told(&sidegate).len(), 2);
    assert!(refused() < 0.5);
    assert_eq!(admin(&sidegate, "/readyz").unwrap().1, "ok\n");
    assert_eq!(unwell_running(&sidegate), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_is_read_without_a_signal_and_settings_count_for_new_connections() {
    let folder = folder();
    let (first, second) = (named("first").await, named("second").await);
    let main = |address: SocketAddr, rest: &str| {
        let lines = format!("upstream = \"http://{address}\"\n{rest}");
        configuration(&[listener("main", 0, &lines)])
    };
    let (sidegate, client) = main(first, "").start(folder.path());
    let mut kept = client.http1().await;
    let ask = || {
        Request::get("/")
            .header("host", "localhost")
            .body(body(""))
            .unwrap()
    };
    let answer = patiently(kept.send_request(ask())).await.unwrap();
    assert!(!answer.headers().contains_key("connection"));
    drop(answer.into_body().collect().await);

    let short = "[[listener.route]]\npath_prefix = \"/a\"\nupstream = \"http://FIRST\"\n\
                 [listener.limits]\nmax_uri_bytes = \"100B\"\n";
    main(second, &short.replace("FIRST", &first.to_string())).write(folder.path());
    until("the other upstream", || {
        sidegate.process.stderr().contains(RELOADED).then_some(())
    });
    assert_eq!(client.get("/").await.body, "second");
    assert_eq!(client.get("/a").await.body, "first");
    assert_eq!(
        client.get(&format!("/{}", "a".repeat(200))).await.status,
        414
    );
    // It was asked to end in good order: its next request is answered as ever, and is its last.
    let answer = patiently(kept.send_request(ask())).await.unwrap();
    assert_eq!(answer.headers()["connection"], "close");
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "first"
    );

    // A file that is refused is no reason to stop looking.
    write(folder.path(), "sidegate.toml", "nonsense");
    logged(&sidegate, &["SG0072"]);
    main(first, "").write(folder.path());
    until("the first upstream again", || {
        (sidegate.process.stderr().matches(RELOADED).count() == 2).then_some(())
    });
    assert_eq!(client.get("/").await.body, "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_whose_file_changes_is_loaded_again_where_an_entry_knows_it() {
    let folder = folder();
    let app = folder.path().join("app.wasm");
    fs::copy(guest("probe"), &app).unwrap();
    let mut configuration = Configuration::new();
    let hello = format!(
        "[[identity.entry]]\nspiffe_id = \"spiffe://sidegate.local/probe\"\n\
         selectors = [\"component:digest:sha256:{}\"]\ndns_names = [\"localhost\"]\n",
        digest(&guest("hello"))
    );
    let text = |configuration: &Configuration| {
        let path = format!("path = \"{}\"", guest("probe").display());
        configuration.text().replace(&path, "path = \"app.wasm\"")
    };
    let config = write(folder.path(), "sidegate.toml", text(&configuration));
    let sidegate = Sidegate::run(&config);
    let demo = folder.path().join("demo");
    let file = |name: &str| -> PathBuf { demo.join(name) };
    let address = crate::support::address(&sidegate).to_owned();
    let client = Client::new(
        &address,
        &file("bundle.pem"),
        &file("svid.pem"),
        &file("key.pem"),
    );
    assert_eq!(client.get("/status/418").await.status, 418);

    let replace = |name: &str| {
        fs::copy(guest(name), folder.path().join("new.wasm")).unwrap();
        fs::rename(folder.path().join("new.wasm"), &app).unwrap();
    };
    replace("hello");
    logged(&sidegate, &["SG0072"]);
    logged(&sidegate, &["SG0042"]);
    assert_eq!(
        client.get("/status/418").await.status,
        418,
        "the old one serves"
    );
    configuration.entries += &hello;
    write(folder.path(), "sidegate.toml", text(&configuration));
    logged(&sidegate, &[RELOADED]);
    assert!(client.get("/status/418").await.body.starts_with("Hello"));
    assert_eq!(unwell_running(&sidegate), []);
    // Now only the file.
    replace("probe");
    until("the probe again", || {
        (sidegate.process.stderr().matches(RELOADED).count() == 2).then_some(())
    });
    assert_eq!(client.get("/status/418").await.status, 418);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_come_and_go_with_the_file_and_those_made_at_run_time_stay() {
    let folder = folder();
    let before = Configuration::new();
    let (sidegate, client) = before.start(folder.path());
    let api = Api::of(&sidegate);
    assert_eq!(
        api.create("mine", "spiffe://sidegate.local/mine", "unix:uid:4711")
            .status,
        201
    );
    let ids = || {
        let list = api.get("/v1/entries").body;
        let entries = list["entries"].as_array().unwrap().clone();
        let text = |it: &Value| it["entry"]["spiffe_id"].as_str().unwrap().to_owned();
        let path = |it: &Value| text(it).rsplit('/').next().unwrap().to_owned();
        entries.iter().map(path).collect::<Vec<_>>()
    };
    assert_eq!(ids(), ["probe", "demo", "mine"]);
    let entry = |name: &str, uid: u32| {
        format!(
            "[[identity.entry]]\nspiffe_id = \"spiffe://sidegate.local/{name}\"\n\
             selectors = [\"unix:uid:{uid}\"]\n"
        )
    };
    let mut next = before.clone();
    // One of them is the twin of the one that was made at run time, and stands in for it.
    next.entries += &(entry("extra", 4712) + &entry("mine", 4711));
    change(&sidegate, folder.path(), &next);
    assert_eq!(ids(), ["probe", "demo", "extra", "mine"]);
    logged(&sidegate, &["SG0118", "mine"]);
    let svids = || {
        Api::of(&sidegate).get("/v1/status").body["svids"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(svids(), 4);
    assert_eq!(api.delete("/v1/entries/mine").status, 404);

    // An entry that breaks a rule refuses the whole file.
    let mut wrong = before.clone();
    wrong.entries += &entry("wrong", 1).replace("unix:uid:1", "nonsense:1");
    wrong.write(folder.path());
    hang_up(&sidegate, "SG0072");
    assert_eq!(ids(), ["probe", "demo", "extra", "mine"]);

    change(&sidegate, folder.path(), &before);
    assert_eq!(ids(), ["probe", "demo", "mine"]);
    assert_eq!(svids(), 3);
    assert_eq!(api.delete("/v1/entries/mine").status, 200);
    assert_eq!(client.get("/status/200").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_goes_elsewhere_and_looks_otherwise_from_the_next_line_on() {
    let folder = folder();
    let before = Configuration::new();
    let (sidegate, client) = before.start(folder.path());
    let answer = client.get("/status/201").await;
    let id = answer.header("x-request-id").to_owned();
    until("its line", || {
        sidegate.process.stdout().contains(&id).then_some(())
    });
    let section = "[log]\naccess = \"file\"\naccess_path = \"PATH\"\naccess_format = \"text\"\n";
    let rest = |path: &str| before.clone().rest(&section.replace("PATH", path));
    rest("not-there/access.log").write(folder.path());
    hang_up(&sidegate, "SG0072");
    change(&sidegate, folder.path(), &rest("access.log"));
    let answer = client.get("/status/202").await;
    let id = answer.header("x-request-id").to_owned();
    let line = until("its line in the file", || {
        let text = fs::read_to_string(folder.path().join("access.log")).unwrap();
        text.lines()
            .find(|line| line.contains(&id))
            .map(ToOwned::to_owned)
    });
    assert!(
        line.starts_with("127.0.0.1 - spiffe://sidegate.local/demo ["),
        "{line}"
    );
    assert!(!sidegate.process.stdout().contains(&id));
    assert_eq!(sidegate.stop().status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_trust_domain_needs_a_restart_with_all_that_belongs_to_it() {
    let folder = folder();
    let before = Configuration::new();
    let (sidegate, client) = before.start(folder.path());
    let other = before.text().replace("sidegate.local", "other.local");
    write(folder.path(), "sidegate.toml", other);
    hang_up(&sidegate, RELOADED);
    let rows = unwell_running(&sidegate);
    let keys: Vec<_> = rows
        .iter()
        .map(|row| row.3.lines().next().unwrap())
        .collect();
    assert_eq!(
        keys,
        ["identity.trust_domain", "identity.entry", "svid_file"]
    );
    assert_eq!(client.get("/status/200").await.status, 200);
}
