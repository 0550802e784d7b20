//! SPIRE's own agent beside us and before us. There is no playing it: these need the real programs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Version;
use sidegate_tests::{Running, Tool, skip, tool};
use spiffe::{WorkloadApiClient, X509Context};
use tempfile::TempDir;

use super::gate::{DEMO, GREETER, Machine, component, context, eventually, wait};
use super::real::Real;
use super::server::{Entry, Options, SpireServer, id, joined};
use crate::rotation::client::Client as Rotating;
use crate::rotation::load::Target;
use crate::support::{address, folder, own_uid, write};
use crate::workload_api::{serial, spiffe_id};

/// The name of the machine, whichever agent it has.
const MACHINE: &str = "/machine";

/// A running `spire-agent`. It is killed when this is dropped.
struct Agent {
    _process: Running,
    folder: TempDir,
    id: String,
}

impl Agent {
    /// Starts one that attests by a join token.
    fn start(binary: &PathBuf, server: &Real) -> Self {
        let folder = folder();
        let token = server.join_token(Some(&id(MACHINE)));
        let bundle = write(folder.path(), "bundle.pem", server.bundle_pem());
        let (host, port) = server.address().split_once(':').expect("an address");
        let text = format!(
            r#"
agent {{
    data_dir = "{root}/data"
    server_address = "{host}"
    server_port = "{port}"
    socket_path = "{root}/agent.sock"
    trust_bundle_path = {bundle:?}
    trust_domain = "sidegate.local"
    join_token = "{token}"
}}
plugins {{
    NodeAttestor "join_token" {{ plugin_data {{}} }}
    KeyManager "memory" {{ plugin_data {{}} }}
    WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"#,
            root = folder.path().display(),
        );
        let config = write(folder.path(), "agent.conf", text);
        let mut process =
            Running::start(Command::new(binary).args(["run", "-config"]).arg(&config));
        wait("SPIRE's agent", || {
            assert!(
                process.is_running(),
                "{}",
                process.stdout() + &process.stderr()
            );
            let socket = folder.path().join("agent.sock");
            std::os::unix::net::UnixStream::connect(socket).ok()
        });
        Self {
            _process: process,
            folder,
            id: joined(&token),
        }
    }

    fn socket(&self) -> String {
        format!("unix://{}/agent.sock", self.folder.path().display())
    }

    /// What it gives whoever runs the tests.
    async fn context(&self) -> X509Context {
        let socket = self.socket();
        eventually("what SPIRE's agent gives", async || {
            let client = WorkloadApiClient::connect_to(&socket).await.ok()?;
            client.fetch_x509_context().await.ok()
        })
        .await
    }
}

/// Both programs with the machine's entries; `None` where the test is skipped.
fn both(test: &str, options: &Options) -> Option<(Real, Agent)> {
    let server = Real::start(test, options)?;
    let Some(binary) = tool(Tool::SpireAgent) else {
        skip(test, Tool::SpireAgent);
        return None;
    };
    server.create(&Entry::new(&id(MACHINE), GREETER, &[&component()]));
    server.create(&Entry::new(&id(MACHINE), DEMO, &[&own_uid()]));
    let agent = Agent::start(&binary, &server);
    Some((server, agent))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sidegate_and_spires_agent_give_a_workload_the_same() {
    let test = "spire::agent::sidegate_and_spires_agent_give_a_workload_the_same";
    let Some((server, agent)) = both(test, &Options::default()) else {
        return;
    };
    let machine = Machine::joining_as(&server, &server.join_token(Some(&id(MACHINE))));
    let gate = machine.run();
    let contexts = [agent.context().await, context(&gate).await];
    let [theirs, ours] = contexts.map(|context| {
        let svid = context.default_svid().expect("an SVID");
        let bundle = context.bundle_set().get(svid.spiffe_id().trust_domain());
        let bundle = bundle.expect("its own");
        let roots = bundle.authorities().iter();
        let mut roots: Vec<_> = roots.map(|root| serial(root.as_bytes())).collect();
        roots.sort();
        let ids: Vec<_> = svid
            .cert_chain()
            .iter()
            .map(|it| spiffe_id(it.as_bytes()))
            .collect();
        let hint = svid.hint().map(ToString::to_string);
        (context.svids().len(), ids, hint, roots)
    });
    assert_eq!(ours, theirs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_moves_from_spires_agent_to_sidegate_with_no_failed_request() {
    let test = "spire::agent::a_workload_moves_from_spires_agent_to_sidegate";
    let Some((server, agent)) = both(test, &Options::short(60)) else {
        return;
    };
    agent.context().await;
    let machine = Machine::joining_as(&server, &server.join_token(Some(&id(MACHINE))));
    let gate = machine.run();
    let listener: SocketAddr = address(&gate).parse().expect("an address");
    let goes_on = Arc::new(AtomicBool::new(true));
    // Some are with the old agent still while others are with the new one.
    let clients = [
        Rotating::new(&agent.socket(), listener).await,
        Rotating::new(&gate.ready.workload_socket, listener).await,
    ];
    let loads = clients.map(|client| {
        let goes_on = Arc::clone(&goes_on);
        let target = Target::Proxy(Arc::new(client), Version::HTTP_2);
        tokio::spawn(target.load_while(move || goes_on.load(Ordering::SeqCst)))
    });
    let old = agent.id.clone();
    drop(agent);
    server.evict(&old);
    wait("requests after that", || {
        let done = gate.process.stderr().matches("\"request_id\"").count();
        (done > 500).then_some(())
    });
    goes_on.store(false, Ordering::SeqCst);
    for report in loads {
        let report = report.await.expect("it ends");
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert!(report.answered > 100, "{report:?}");
    }
}
