//! `admin.clients`: health and metrics over mutual TLS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use http::Request;
use hyper::client::conn::http1::SendRequest;
use rustls::crypto::aws_lc_rs;
use sidegate_tests::{Output, Sidegate, Tool, skip, tool, until};
use time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::authorities::svids::renewed_in;
use crate::entries::state::refused;
use crate::federation::Foreign;
use crate::mtls::refusal;
use crate::support::{
    Authority, Body, Client, Operator, body, finish, folder, identity_only, leaf, logged, now,
    own_entry, patiently, read, spiffe_id,
};
use crate::workload_api::spiffe_id as id_of;

const PAGES: [&str; 3] = ["/livez", "/readyz", "/metrics"];
/// The host's own identity, and another that it has as well.
const HOST: &str = r#"
[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/host"
selectors = ["host:self"]
dns_names = ["localhost"]

[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/second-host"
selectors = ["host:self"]
"#;

/// curl, and where it asks.
struct Curl {
    binary: PathBuf,
    port: String,
    folder: PathBuf,
}

#[test]
fn a_named_client_gets_the_pages_by_curl_and_nobody_else_gets_any() {
    let folder = folder();
    let gate = start(folder.path(), "", &["/scraper"]);
    let Some(binary) = tool(Tool::Curl) else {
        return skip("a_named_client_gets_the_pages_by_curl", Tool::Curl);
    };
    let curl = Curl {
        binary,
        port: address(&gate)
            .rsplit_once(':')
            .expect("a port")
            .1
            .to_owned(),
        folder: folder.path().to_owned(),
    };
    for page in PAGES {
        for (name, protocol) in [("--http1.1", "1.1"), ("--http2", "")] {
            let output = curl.ask("scraper", &[name], page);
            assert_eq!(output.status.code(), Some(0), "{page}: {output:?}");
            let (text, code) = output.stdout.rsplit_once('\n').expect("a last line");
            let expected = match page {
                "/metrics" => text.contains("sidegate_svid_expiry_timestamp_seconds"),
                _ => true,
            };
            assert!(expected, "{page}: {text}");
            assert_eq!(code, "200", "{page} {protocol}: {text}");
        }
        for (who, code) in [("other", "SG0038"), ("", "SG0172")] {
            let before = gate.process.stderr().len();
            let output = curl.ask(who, &[], page);
            assert_ne!(output.status.code(), Some(0), "{page} {who}: {output:?}");
            assert!(!output.stdout.contains("200"), "{page} {who}: {output:?}");
            let line = until("why it is turned away", || {
                let stderr = gate.process.stderr();
                let mut lines = stderr.get(before..)?.lines();
                lines
                    .find(|line| line.contains(code))
                    .map(ToOwned::to_owned)
            });
            let name = spiffe_id("/other");
            assert_eq!(line.contains(&name), who == "other", "{line}");
        }
        let url = format!("http://localhost:{}{page}", curl.port);
        let output = finish(Command::new(&curl.binary).args(["-sS", &url]));
        assert_ne!(output.status.code(), Some(0), "{page}: {output:?}");
        assert!(!output.stdout.contains("sidegate"), "{page}: {output:?}");
    }
    // Nothing else is there, even for the named one.
    for page in ["/", "/v1/entries", "/v1/bundles", "/v1/status"] {
        let output = curl.ask("scraper", &[], page);
        assert!(output.stdout.ends_with("\n404"), "{page}: {output:?}");
    }
}

#[test]
fn an_instance_without_listeners_is_ready() {
    let folder = folder();
    let gate = Sidegate::run(&identity_only(folder.path(), ""));
    let answer = crate::support::admin(&gate, "/readyz").expect("it answers");
    assert_eq!(answer.0, 200, "{answer:?}");
}

#[test]
fn the_address_that_is_printed_says_how_it_is_reached() {
    let folder = folder();
    let gate = start(folder.path(), "", &["/scraper"]);
    assert!(gate.ready.admin.starts_with("https://"), "{:?}", gate.ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_the_first_identity_of_the_host_and_believes_no_other_authority() {
    let (folder, foreign) = (folder(), Foreign::start("other.example"));
    let gate = start(folder.path(), "", &["/scraper"]);
    let client = client(&gate, folder.path(), "scraper");
    let stream = client.raw().await;
    let chain = stream
        .get_ref()
        .1
        .peer_certificates()
        .expect("it shows one");
    assert_eq!(id_of(&chain[0]), spiffe_id("/host"));
    assert_eq!(client.get("/livez").await.status, 200);

    let ours = Authority::of(&gate.ready.state);
    let named = spiffe_id("/scraper");
    let good = client.with(ours.issue(&leaf(&[&named])));
    assert_eq!(good.get("/livez").await.status, 200);
    let mut expired = leaf(&[&named]);
    expired.not_after = now() - Duration::seconds(30);
    for identity in [
        foreign.authority().issue(&leaf(&[&named])),
        Authority::foreign("sidegate.local").issue(&leaf(&[&named])),
        foreign.identity(),
        ours.issue(&leaf(&[&spiffe_id("/scraper/below")])),
        ours.issue(&leaf(&[&named, &spiffe_id("/other")])),
        ours.issue(&expired),
    ] {
        let client = client.with(identity);
        refusal(&client, client.tls(aws_lc_rs::default_provider())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_client_is_let_in_where_it_is_named_and_the_hosts_entry_federates() {
    let (folder, foreign) = (folder(), Foreign::start("other.example"));
    let config = config(folder.path(), "", &["/scraper"]);
    let text = fs::read_to_string(&config).expect("it is there");
    let own = format!("clients = [\"{}\"]", spiffe_id("/scraper"));
    let named = format!("clients = [\"{}\"]", foreign.id());
    let host = "selectors = [\"host:self\"]\ndns_names = [\"localhost\"]\n";
    let federating = format!("{host}federates_with = [\"other.example\"]\n");
    let text = text.replace(&own, &named).replace(host, &federating);
    fs::write(&config, text).expect("it is written");
    let gate = Sidegate::run(&config);
    let theirs = foreign.client(address(&gate), &folder.path().join("other/bundle.pem"));
    refusal(&theirs, theirs.tls(aws_lc_rs::default_provider())).await;
    foreign.is_known_to(&Operator::of(&gate));
    assert_eq!(theirs.get("/livez").await.status, 200);
    let other = foreign.authority();
    let other = theirs.with(other.issue(&leaf(&["spiffe://other.example/other"])));
    refusal(&other, other.tls(aws_lc_rs::default_provider())).await;
    logged(&gate, &["SG0038", "spiffe://other.example/other"]);
    foreign.is_forgotten_by(&Operator::of(&gate));
    refusal(&theirs, theirs.tls(aws_lc_rs::default_provider())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_lets_nobody_in() {
    let folder = folder();
    let gate = start(folder.path(), "", &[]);
    for name in ["scraper", "other"] {
        let client = client(&gate, folder.path(), name);
        refusal(&client, client.tls(aws_lc_rs::default_provider())).await;
        logged(&gate, &["SG0038", &spiffe_id(&format!("/{name}"))]);
    }
}

#[test]
fn without_an_identity_of_the_host_a_start_is_refused() {
    let folder = folder();
    for clients in [&["/scraper"][..], &[]] {
        let config = config(folder.path(), "", clients);
        let text = fs::read_to_string(&config).expect("it is there");
        fs::write(&config, text.replace(HOST, "")).expect("it is written");
        let output = refused(&config);
        assert!(output.stderr.contains("error[SG0042]"), "{output:?}");
        assert!(output.stderr.contains("host:self"), "{output:?}");
        let mut command = Sidegate::command("check");
        let output = finish(command.args(["-o", "json", "--config"]).arg(&config));
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.contains("\"host-identity\""), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_good_for_one_request() {
    let folder = folder();
    let gate = start(folder.path(), "", &["/scraper"]);
    let client = client(&gate, folder.path(), "scraper");
    let mut connection = client.http1().await;
    assert_eq!(get(&mut connection).await, Some(200));
    assert_eq!(get(&mut connection).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_under_way_ends_with_its_revoked_root() {
    let folder = folder();
    let gate = start(folder.path(), "", &["/scraper"]);
    let operator = Operator::of(&gate);
    let first = operator.authority("x509", "active");
    let client = client(&gate, folder.path(), "scraper");
    let mut half = client.raw().await;
    let head = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n";
    half.write_all(head).await.expect("it is sent");
    operator.ask(&["rotate", "x509"]);
    operator.ask(&["taint", "x509"]);
    let new = renewed_in(&folder.path().join("scraper"), &client, &first);
    operator.ask(&["revoke", "x509"]);
    let _ = half.write_all(b"connection: close\r\n\r\n").await;
    let mut answer = Vec::new();
    let _ = patiently(half.read_to_end(&mut answer)).await;
    assert_eq!(String::from_utf8_lossy(&answer), "");
    assert_eq!(get(&mut new.http1().await).await, Some(200));
    let kept = new.with(client.identity);
    refusal(&kept, kept.tls(aws_lc_rs::default_provider())).await;
    logged(&gate, &["SG0174"]);
}

impl Curl {
    /// The body of a page and, on a line of its own, the status; as the identity whose files are in
    /// a folder of that name, if there is one.
    fn ask(&self, who: &str, options: &[&str], page: &str) -> Output {
        let files = self
            .folder
            .join(if who.is_empty() { "scraper" } else { who });
        let mut command = Command::new(&self.binary);
        command
            .args(["-sS", "--max-time", "20", "-w", "\n%{http_code}"])
            .args(options)
            .arg("--cacert")
            .arg(files.join("bundle.pem"));
        if !who.is_empty() {
            command.arg("--cert").arg(files.join("svid.pem"));
            command.arg("--key").arg(files.join("key.pem"));
        }
        finish(command.arg(format!("https://localhost:{}{page}", self.port)))
    }
}

/// The status of `/livez` on a kept connection, while it lasts.
async fn get(connection: &mut SendRequest<Body>) -> Option<u16> {
    let request = Request::get("/livez").header("host", "localhost");
    connection.ready().await.ok()?;
    let response = connection.send_request(request.body(body("")).expect("a request"));
    let response = patiently(response).await.ok()?;
    Some(read(response).await.status.as_u16())
}

/// `host:port` of the admin server, however its address is printed.
fn address(gate: &Sidegate) -> &str {
    let (_, address) = gate.ready.admin.split_once("://").expect("an address");
    address
}

/// A client of the admin server with the files of an identity.
fn client(gate: &Sidegate, folder: &Path, name: &str) -> Client {
    let file = |file: &str| folder.join(name).join(file);
    Client::new(
        address(gate),
        &file("bundle.pem"),
        &file("svid.pem"),
        &file("key.pem"),
    )
}

fn start(folder: &Path, identity: &str, clients: &[&str]) -> Sidegate {
    Sidegate::run(&config(folder, identity, clients))
}

/// Two identities in files, a listener, and the host's own; these may ask the admin server.
fn config(folder: &Path, identity: &str, clients: &[&str]) -> PathBuf {
    let files = ["scraper", "other"].map(|name| {
        let path = format!("/{name}");
        format!(
            "{}\n[[svid_file]]\nspiffe_id = \"{}\"\ndirectory = \"{name}\"\n",
            own_entry(&path),
            spiffe_id(&path)
        )
    });
    let front = "\n[[identity.entry]]\nspiffe_id = \"spiffe://sidegate.local/front\"\n\
         selectors = [\"listener:name:main\"]\n\n[[listener]]\nname = \"main\"\n\
         listen = \"127.0.0.1:0\"\nupstream = \"http://127.0.0.1:9\"\n";
    let config = identity_only(folder, &[identity, HOST, &files.concat(), front].concat());
    let clients: Vec<_> = clients.iter().map(|path| spiffe_id(path)).collect();
    let text = fs::read_to_string(&config).expect("it is there");
    let admin = format!("[admin]\nclients = {clients:?}\n");
    assert!(text.contains("[admin]\n"));
    fs::write(&config, text.replace("[admin]\n", &admin)).expect("it is written");
    config
}
