//! A machine whose SPIRE agent is Sidegate.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aws_lc_rs::digest;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SignatureAlgorithm,
};
use sidegate_tests::{Output, Sidegate, guest};
use spiffe::{SpiffeId, WorkloadApiClient, X509Context};
use tempfile::TempDir;
use tokio::task::block_in_place;

use super::server::{Entry, SpireServer, id, joined};
use crate::support::{
    Client, address, admin, counter, digest as digest_of, finish, folder, hexadecimal, own_uid,
    write,
};
use crate::workload_api::spiffe_id;

pub(super) const TRUST_DOMAIN: &str = "sidegate.local";
/// What the listener shows.
pub(super) const GREETER: &str = "/greeter";
/// What whoever runs the tests is.
pub(super) const DEMO: &str = "/demo";

/// A folder with a configuration, and the agent that it makes of Sidegate.
pub(super) struct Machine {
    pub(super) folder: TempDir,
    /// The agent's SPIFFE ID.
    pub(super) agent: String,
    /// Lines of `[identity.spire_server]`.
    lines: Vec<String>,
    /// Sections behind it.
    pub(super) sections: String,
}

/// An authority for `x509pop`, and a certificate of it for one machine.
pub(super) struct Possession {
    pub(super) authority: String,
    certificate: String,
    key: String,
    fingerprint: String,
}

impl Machine {
    /// One that attests with a join token.
    pub(super) fn joining(server: &impl SpireServer) -> Self {
        Self::joining_as(server, &server.join_token(None))
    }

    /// One that attests with this join token.
    pub(super) fn joining_as(server: &impl SpireServer, token: &str) -> Self {
        let mut machine = Self::at(server, joined(token));
        let path = write(machine.folder.path(), "token", token);
        machine.lines.push(format!("join_token_file = {path:?}"));
        machine
    }

    /// One that attests with its certificate.
    pub(super) fn possessing(server: &impl SpireServer, possession: &Possession) -> Self {
        let agent = id(&format!("/spire/agent/x509pop/{}", possession.fingerprint));
        let mut machine = Self::at(server, agent);
        let file = |name: &str, text: &str| write(machine.folder.path(), name, text);
        let certificate = file("pop.pem", &possession.certificate);
        let key = file("pop.key", &possession.key);
        let lines = [
            format!("x509pop_certificate = {certificate:?}"),
            format!("x509pop_key = {key:?}"),
        ];
        machine.lines.extend(lines);
        machine
    }

    fn at(server: &impl SpireServer, agent: String) -> Self {
        let folder = folder();
        let bundle = write(folder.path(), "bundle.pem", server.bundle_pem());
        let lines = vec![
            format!("address = {:?}", server.address()),
            format!("trust_bundle = {bundle:?}"),
            "sync_interval = \"1s\"".to_owned(),
        ];
        Self {
            folder,
            agent,
            lines,
            sections: String::new(),
        }
    }

    /// With another line in the place of that for the same key.
    pub(super) fn with(mut self, key: &str, line: &str) -> Self {
        let place = self.lines.iter_mut().find(|it| it.starts_with(key));
        line.clone_into(place.expect("there is such a line"));
        self
    }

    /// The state directory.
    pub(super) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Writes the configuration: a component behind mutual TLS.
    pub(super) fn configure(&self) -> PathBuf {
        let text = format!(
            r#"
[workload_api]
socket = "workload.sock"

[admin]
listen = "127.0.0.1:0"

[[component]]
name = "greeter"
path = {component:?}

[[listener]]
name = "main"
listen = "127.0.0.1:0"
component = "greeter"

[identity]
trust_domain = "{TRUST_DOMAIN}"
state = "state"
source = "spire-server"

[identity.spire_server]
{lines}

{sections}
"#,
            component = guest("hello"),
            lines = self.lines.join("\n"),
            sections = self.sections,
        );
        write(self.folder.path(), "sidegate.toml", text)
    }

    /// Starts Sidegate and waits until it serves.
    pub(super) fn run(&self) -> Sidegate {
        let config = self.configure();
        block_in_place(|| Sidegate::run(&config))
    }

    /// Starts Sidegate, which is not to come up.
    pub(super) fn is_refused(&self, texts: &[&str]) -> Output {
        let config = self.configure();
        let mut command = Sidegate::command("run");
        let output = block_in_place(|| finish(command.arg("--config").arg(&config)));
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        for text in texts {
            assert!(output.stderr.contains(text), "{text}: {}", output.stderr);
        }
        output
    }

    /// `sidegate check` of the instance that runs.
    pub(super) fn check(&self) -> Output {
        let mut command = Sidegate::command("check");
        block_in_place(|| finish(command.arg("--state").arg(self.state())))
    }

    /// Makes the entries of the listener and of its client, and gives their ids.
    pub(super) fn register(&self, server: &impl SpireServer) -> [String; 2] {
        let greeter = Entry::new(&self.agent, GREETER, &[&component()]);
        let demo = Entry::new(&self.agent, DEMO, &[&own_uid()]);
        [greeter, demo].map(|entry| server.create(&entry))
    }

    /// A client of the listener with what the Workload API gives it now.
    pub(super) async fn client(&self, gate: &Sidegate) -> Client {
        let context = context(gate).await;
        let svid = context.default_svid().expect("an SVID");
        let bundle = context.bundle_set().get(svid.spiffe_id().trust_domain());
        let bundle = bundle.expect("a bundle");
        let pem = |tag: &str, parts: &[&[u8]]| -> String {
            let blocks = parts.iter().map(|part| pem::Pem::new(tag, *part));
            blocks.map(|block| pem::encode(&block)).collect()
        };
        let roots: Vec<_> = bundle
            .authorities()
            .iter()
            .map(|it| it.as_bytes())
            .collect();
        let chain: Vec<_> = svid.cert_chain().iter().map(|it| it.as_bytes()).collect();
        let key = svid.private_key().as_bytes();
        let file = |name: &str, text: String| write(&self.folder.path().join("client"), name, text);
        let bundle = file("bundle.pem", pem("CERTIFICATE", &roots));
        let chain = file("svid.pem", pem("CERTIFICATE", &chain));
        let key = file("key.pem", pem("PRIVATE KEY", &[key]));
        Client::new(address(gate), &bundle, &chain, &key)
    }
}

impl Possession {
    /// With a key of a kind, such as `rcgen::PKCS_ECDSA_P256_SHA256`.
    pub(super) fn new(algorithm: &'static SignatureAlgorithm) -> Self {
        let named = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let mut authority = named("machines");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let root = authority.self_signed(&key).expect("it is signed");
        let issuer = Issuer::new(authority, key);
        let mut leaf = named("machine");
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let leaf = leaf.signed_by(&key, &issuer).expect("it is signed");
        let print = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, leaf.der());
        Self {
            authority: root.pem(),
            certificate: leaf.pem(),
            key: key.serialize_pem(),
            fingerprint: hexadecimal(print.as_ref()),
        }
    }
}

/// The selector of the component behind the listener.
pub(super) fn component() -> String {
    format!("component:digest:sha256:{}", digest_of(&guest("hello")))
}

/// What the Workload API gives now.
pub(super) async fn context(gate: &Sidegate) -> X509Context {
    let client = WorkloadApiClient::connect_to(&gate.ready.workload_socket).await;
    let context = client.expect("it is there").fetch_x509_context().await;
    context.expect("it gives something")
}

/// The SPIFFE IDs that the Workload API gives now, sorted.
pub(super) async fn given(gate: &Sidegate) -> Vec<String> {
    let client = WorkloadApiClient::connect_to(&gate.ready.workload_socket).await;
    let Ok(context) = client.expect("it is there").fetch_x509_context().await else {
        return Vec::new();
    };
    let ids = context.svids().iter().map(|svid| svid.spiffe_id());
    let mut ids: Vec<_> = ids.map(SpiffeId::to_string).collect();
    ids.sort();
    ids
}

/// Waits until readiness says so.
pub(super) fn readiness(gate: &Sidegate, what: &str, is_so: impl Fn(u16, &str) -> bool) -> String {
    wait(what, || {
        let (status, text) = admin(gate, "/readyz")?;
        is_so(status, &text).then_some(text)
    })
}

/// Waits until nothing is wrong with the source.
pub(super) fn is_up(gate: &Sidegate) {
    readiness(gate, "a source that is up", |status, text| {
        (status, text) == (200, "ok\n")
    });
    wait("the metric", || {
        (counter(gate, "sidegate_identity_source_up", &[]) > 0.5).then_some(())
    });
}

/// Waits until the source is down and traffic goes on; says what readiness tells.
pub(super) fn is_down(gate: &Sidegate) -> String {
    let text = readiness(gate, "a source that is down", |status, text| {
        status == 200 && text.contains("warning: ")
    });
    for said in ["is down since 20", "serves until 20"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    wait("the metric", || {
        (counter(gate, "sidegate_identity_source_up", &[]) < 0.5).then_some(())
    });
    text
}

/// Waits outside the runtime.
pub(super) fn wait<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    block_in_place(|| sidegate_tests::until(what, ask))
}

/// Asks again and again until there is an answer.
pub(super) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            match ask().await {
                Some(answer) => return answer,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let asked = tokio::time::timeout(Duration::from_mins(1), asking).await;
    asked.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// A command that runs a configuration without waiting for it.
pub(super) fn command(config: &Path) -> Command {
    let mut command = Sidegate::command("run");
    command.args(["-o", "json", "--config"]).arg(config);
    command
}

/// The SPIFFE ID that a listener shows; `None` where it shows none.
pub(super) async fn shown_id(client: &Client) -> Option<String> {
    shown_leaf(client).await.map(|leaf| spiffe_id(&leaf))
}

/// The SVID that a listener shows, DER; `None` where it shows none.
pub(super) async fn shown_leaf(client: &Client) -> Option<Vec<u8>> {
    let config = client.tls(rustls::crypto::aws_lc_rs::default_provider());
    let stream = client.connect(config).await.ok()?;
    let chain = stream.get_ref().1.peer_certificates()?;
    chain.first().map(|leaf| leaf.to_vec())
}
