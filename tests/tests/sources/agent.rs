//! Another Sidegate as the agent behind `workload-api`: its rotations, its absence, another one in its
//! place, and what it takes back.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use sidegate_tests::{Sidegate, until};
use spiffe::transport::{GrpcStatusCode, TransportError};
use spiffe::{JwtBundleSet, WorkloadApiClient, WorkloadApiError};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{DEMO, GREETER, configuration, is_down, is_up, shown, until_it_is_so};
use crate::federation::Foreign;
use crate::rotation::client::Client as Rotating;
use crate::rotation::load::Target;
use crate::support::{
    Client, Operator, address, admin, folder, identity_only, logged, own_entry, own_uid,
};
use crate::workload_api::serial;

/// An agent that gives whoever runs the tests both IDs, and files of the client's.
pub(super) struct Agent {
    folder: TempDir,
    config: PathBuf,
    pub(super) gate: Option<Sidegate>,
}

impl Agent {
    /// With SVIDs that live for this long.
    pub(super) fn start(ttl: &str) -> Self {
        Self::with(ttl, "")
    }

    /// The same with lines of the greeter's entry.
    fn with(ttl: &str, lines: &str) -> Self {
        let folder = folder();
        let demo = own_entry("/demo");
        let greeter = own_entry("/greeter") + "dns_names = [\"localhost\"]\n" + lines;
        let files = format!("\n[[svid_file]]\nspiffe_id = \"{DEMO}\"\ndirectory = \"files\"\n");
        let config = format!("svid_ttl = {ttl:?}\n{demo}{greeter}{files}");
        let config = identity_only(folder.path(), &config);
        let gate = Some(Sidegate::run(&config));
        Self {
            folder,
            config,
            gate,
        }
    }

    pub(super) fn socket(&self) -> String {
        format!(
            "unix://{}",
            self.folder.path().join("workload.sock").display()
        )
    }

    /// `[identity]` for whoever asks it.
    pub(super) fn section(&self) -> String {
        let socket = self.socket();
        format!("source = \"workload-api\"\n[identity.workload_api]\nsocket = {socket:?}\n")
    }

    fn stop(&mut self) {
        let gate = self.gate.take().expect("it runs");
        assert!(gate.stop().status.success());
    }

    fn start_again(&mut self) {
        self.gate = Some(Sidegate::run(&self.config));
    }

    /// Another CA of the same name.
    fn forget(&self) {
        fs::remove_dir_all(self.folder.path().join("state")).expect("it is stopped");
    }

    /// A client with its files.
    fn client(&self, gate: &Sidegate) -> Client {
        let file = |name: &str| self.folder.path().join("files").join(name);
        Client::new(
            address(gate),
            &file("bundle.pem"),
            &file("svid.pem"),
            &file("key.pem"),
        )
    }

    /// The serial number of the greeter's SVID.
    async fn serial(&self) -> String {
        serial_at(&self.socket()).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agents_rotations_reach_listener_and_workloads_with_no_failed_request() {
    let folder = folder();
    let agent = Agent::start("10s");
    let section = agent.section() + &own_entry("/demo");
    let gate = Sidegate::run(&configuration(folder.path(), &section));
    logged(
        &gate,
        &[
            "identities come from outside",
            "source=workload-api",
            GREETER,
            DEMO,
        ],
    );
    let server: SocketAddr = address(&gate).parse().expect("an address");
    // What the client shows comes from here too.
    let client = Arc::new(Rotating::new(&gate.ready.workload_socket, server).await);
    let reports = [Version::HTTP_11, Version::HTTP_2].map(|version| {
        let target = Target::Proxy(Arc::clone(&client), version);
        tokio::spawn(target.load(Duration::from_secs(30)))
    });
    for report in reports {
        let report = report.await.expect("it ends");
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert!(report.answered > 100, "{report:?}");
    }
    let seen = client.seen.lock().expect("nobody panics with it");
    assert!(seen.server.len() >= 3, "the server's: {seen:?}");
    assert!(seen.own.len() >= 3, "our own: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_away_is_missed_only_when_svids_expire_and_needs_no_restart() {
    let folder = folder();
    let mut agent = Agent::start("20s");
    let gate = Sidegate::run(&configuration(folder.path(), &agent.section()));
    let client = agent.client(&gate);
    assert_eq!(client.get("/hello").await.status, 200);
    agent.stop();
    tokio::task::block_in_place(|| is_down(&gate, "SG0167"));
    assert_eq!(client.get("/hello").await.status, 200);
    tokio::task::block_in_place(|| {
        until("the end of the last SVID", || {
            let (status, text) = admin(&gate, "/readyz").expect("it is served");
            (status == 503 && text.contains("has expired")).then_some(())
        });
        agent.start_again();
        is_up(&gate);
    });
    let client = agent.client(&gate);
    assert_eq!(client.get("/hello").await.status, 200);
    is_shown(&client, &agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_ca_in_the_agents_place_is_followed_and_the_old_one_is_trusted_no_more() {
    let folder = folder();
    let mut agent = Agent::start("1h");
    let gate = Sidegate::run(&configuration(folder.path(), &agent.section()));
    let before = agent.client(&gate);
    let first = shown(&before).await;
    assert!(first.is_some());
    tokio::task::block_in_place(|| {
        agent.stop();
        is_down(&gate, "SG0167");
        agent.forget();
        agent.start_again();
        is_up(&gate);
    });
    let after = agent.client(&gate);
    is_shown(&after, &agent).await;
    assert_ne!(shown(&after).await, first);
    assert_eq!(after.get("/hello").await.status, 200);
    // The old client does not trust the server any more, nor is it trusted.
    assert_eq!(shown(&before).await, None);
    let mut mixed = after.clone();
    mixed.identity = before.identity.clone();
    assert_eq!(shown(&mixed).await, shown(&after).await);
    logged(&gate, &["SG0174"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_agent_takes_back_is_used_no_more_and_what_it_gives_again_is() {
    let (folder, origin) = (folder(), folder());
    let agent = Sidegate::run(&identity_only(origin.path(), ""));
    let operator = Operator::of(&agent);
    let own = own_uid();
    let names = ["--dns-name", "localhost"];
    let mut greeter = operator.create("/greeter", &own, &names);
    let demo = operator.create("/demo", &own, &[]);
    let socket = &agent.ready.workload_socket;
    let section =
        format!("source = \"workload-api\"\n[identity.workload_api]\nsocket = {socket:?}\n");
    let gate = Sidegate::run(&configuration(folder.path(), &section));
    let is_named = |text: &str| {
        until(text, || {
            let (status, told) = admin(&gate, "/readyz").expect("it is served");
            (status == 503 && told.contains("`main` has no identity")).then_some(())
        });
        logged(&gate, &["the identity source is down", text]);
    };
    // Another ID is left: the entry for this one gives nothing.
    operator.delete(&greeter);
    is_named("SG0163");
    greeter = operator.create("/greeter", &own, &names);
    is_up(&gate);
    // Nothing is left: the agent turns the caller away.
    operator.delete(&demo);
    operator.delete(&greeter);
    is_named("SG0169");
    operator.create("/greeter", &own, &names);
    is_up(&gate);
    assert!(serial_at(socket).await.len() > 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_peers_are_let_in_by_the_bundles_that_the_agent_gives() {
    const FEDERATES: &str = "federates_with = [\"other.example\"]\n";
    let (folder, foreign) = (folder(), Foreign::start("other.example"));
    let agent = Agent::with("1h", FEDERATES);
    let config = configuration(folder.path(), &agent.section());
    let text = fs::read_to_string(&config).expect("it was written");
    fs::write(&config, text + FEDERATES).expect("it is ours");
    let gate = Sidegate::run(&config);
    let roots = agent.folder.path().join("files/bundle.pem");
    let client = foreign.client(address(&gate), &roots);
    assert!(!is_let_in(&client).await);
    logged(&gate, &["SG0161"]);
    let operator = Operator::of(agent.gate.as_ref().expect("it runs"));
    foreign.is_known_to(&operator);
    until_it_is_so("the foreign bundle", async || is_let_in(&client).await).await;
    // Whoever is let in is known; the stock policy has nothing for foreigners.
    assert_eq!(client.get("/hello").await.status, 403);
    foreign.is_forgotten_by(&operator);
    until_it_is_so("its end", async || !is_let_in(&client).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jwt_bundles_are_passed_on_and_tokens_are_not_minted() {
    let folder = folder();
    let agent = Agent::start("1h");
    let section = agent.section() + &own_entry("/demo");
    let gate = Sidegate::run(&configuration(folder.path(), &section));
    let bundles = |socket: String| async move {
        let client = WorkloadApiClient::connect_to(&socket)
            .await
            .expect("it is there");
        let bundles = client.fetch_jwt_bundles().await.expect("bundles");
        (key_ids(&bundles), client)
    };
    let (theirs, _) = bundles(agent.socket()).await;
    let (ours, client) = bundles(gate.ready.workload_socket.clone()).await;
    assert!(!ours.is_empty());
    assert_eq!(ours, theirs);
    match client.fetch_jwt_svid(["demo"], None).await {
        Err(WorkloadApiError::Transport(TransportError::Status(status))) => {
            assert_eq!(status.code(), GrpcStatusCode::Unimplemented);
        }
        other => panic!("it is refused: {other:?}"),
    }
    // A new key of the agent's is here without being asked for.
    let operator = Operator::of(agent.gate.as_ref().expect("it runs"));
    operator.ask(&["rotate", "jwt", "--prepare-only"]);
    until_it_is_so("the new key", async || {
        bundles(gate.ready.workload_socket.clone()).await.0 == bundles(agent.socket()).await.0
    })
    .await;
    assert!(bundles(agent.socket()).await.0.len() > theirs.len());
}

fn key_ids(bundles: &JwtBundleSet) -> Vec<String> {
    let keys = bundles
        .iter()
        .flat_map(|(_, bundle)| bundle.jwt_authorities());
    let mut ids: Vec<_> = keys.map(|key| key.key_id().to_owned()).collect();
    ids.sort();
    ids
}

/// Whether a request comes through; a refused certificate shows with the first bytes.
async fn is_let_in(client: &Client) -> bool {
    let config = client.tls(rustls::crypto::aws_lc_rs::default_provider());
    let Ok(mut stream) = client.connect(config).await else {
        return false;
    };
    let request = b"GET /hello HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let sent = stream.write_all(request).await;
    sent.is_ok() && stream.read(&mut [0]).await.is_ok_and(|bytes| bytes > 0)
}

/// The serial number of the greeter's SVID at a Workload API.
async fn serial_at(socket: &str) -> String {
    let client = WorkloadApiClient::connect_to(socket).await;
    let context = client.expect("it is there").fetch_x509_context().await;
    let context = context.expect("SVIDs");
    let mut svids = context.svids().iter();
    let svid = svids.find(|svid| svid.spiffe_id().to_string() == GREETER);
    serial(svid.expect("the greeter's").leaf().as_bytes())
}

/// Waits until the listener shows what the agent gives.
async fn is_shown(client: &Client, agent: &Agent) {
    let is_shown = async || shown(client).await == Some(agent.serial().await);
    until_it_is_so("the agent's SVID", is_shown).await;
}
