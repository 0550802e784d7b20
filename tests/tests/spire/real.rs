//! SPIRE's own server, as a child process, by its own command line.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sidegate_tests::{Running, Tool, skip, tool, until};
use tempfile::TempDir;

use super::gate::TRUST_DOMAIN;
use super::server::{Entry, Kind, Options, SpireServer};
use crate::support::{finish, folder, write};

/// `spire-server` with its data in a folder of its own.
pub(super) struct Real {
    binary: PathBuf,
    folder: TempDir,
    address: String,
    process: Option<Running>,
}

impl Real {
    /// What a command prints.
    fn print(&self, arguments: &[&str]) -> String {
        let output = finish(&mut self.command(arguments));
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        output.stdout
    }

    /// What a command prints as JSON.
    fn ask(&self, arguments: &[&str]) -> Value {
        let text = self.print(&[arguments, &["-output", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .arg("-socketPath")
            .arg(self.folder.path().join("api.sock"))
            // Some versions have these commands by this only.
            .env("SPIRE_SERVER_FFLAGS", "forced_rotation");
        command
    }

    /// `localauthority` for a kind of authority.
    fn authority(&self, kind: Kind, arguments: &[&str]) -> Value {
        let kind = match kind {
            Kind::X509 => "x509",
            Kind::Jwt => "jwt",
        };
        self.ask(&[&["localauthority", kind], arguments].concat())
    }

    /// The authority that was active before.
    fn old(&self, kind: Kind) -> String {
        let shown = self.authority(kind, &["show"]);
        text(&shown["old"]["authority_id"])
    }

    fn run(&mut self) {
        let mut command = Command::new(&self.binary);
        command
            .args(["run", "-config"])
            .arg(self.folder.path().join("server.conf"));
        let mut process = Running::start(&mut command);
        until("SPIRE's server", || {
            assert!(
                process.is_running(),
                "it ended: {}{}",
                process.stdout(),
                process.stderr()
            );
            let asked = finish(&mut self.command(&["healthcheck"]));
            asked.status.success().then_some(())
        });
        self.process = Some(process);
    }
}

impl SpireServer for Real {
    fn start(test: &str, options: &Options) -> Option<Self> {
        let Some(binary) = tool(Tool::SpireServer) else {
            skip(test, Tool::SpireServer);
            return None;
        };
        let folder = folder();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let attestors = options.attestors.as_ref().map(|authority| {
            let path = write(folder.path(), "attestors.pem", authority);
            format!("NodeAttestor \"x509pop\" {{ plugin_data {{ ca_bundle_path = {path:?} }} }}")
        });
        let text = format!(
            r#"
server {{
    bind_address = "127.0.0.1"
    bind_port = "{port}"
    socket_path = "{root}/api.sock"
    trust_domain = "{TRUST_DOMAIN}"
    data_dir = "{root}/data"
    ca_ttl = "24h"
    agent_ttl = "{agent}s"
    default_x509_svid_ttl = "{svid}s"
    ratelimit {{ attestation = false }}
}}
plugins {{
    DataStore "sql" {{
        plugin_data {{
            database_type = "sqlite3"
            connection_string = "{root}/data/datastore.sqlite3"
        }}
    }}
    KeyManager "disk" {{ plugin_data {{ keys_path = "{root}/data/keys.json" }} }}
    NodeAttestor "join_token" {{ plugin_data {{}} }}
    {attestors}
}}
"#,
            port = address.port(),
            root = folder.path().display(),
            agent = options.agent_ttl.as_secs(),
            svid = options.svid_ttl.as_secs(),
            attestors = attestors.unwrap_or_default(),
        );
        write(folder.path(), "server.conf", text);
        fs::create_dir(folder.path().join("data")).expect("a folder");
        let mut real = Self {
            binary,
            folder,
            address: address.to_string(),
            process: None,
        };
        tokio::task::block_in_place(|| real.run());
        Some(real)
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn bundle_pem(&self) -> String {
        self.print(&["bundle", "show", "-format", "pem"])
    }

    fn bundle_json(&self) -> String {
        self.print(&["bundle", "show", "-format", "spiffe"])
    }

    fn join_token(&self, alias: Option<&str>) -> String {
        let alias = alias.map(|alias| ["-spiffeID", alias]);
        let arguments: Vec<_> = ["token", "generate"]
            .into_iter()
            .chain(alias.into_iter().flatten())
            .collect();
        text(&self.ask(&arguments)["value"])
    }

    fn create(&self, entry: &Entry) -> String {
        let arguments = arguments(entry);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let made = self.ask(&[&["entry", "create"], &arguments[..]].concat());
        text(&made["results"][0]["entry"]["id"])
    }

    fn create_many(&self, entries: &[Entry]) {
        let entries = entries.iter().map(|entry| {
            let selectors = entry.selectors.iter().map(|text| {
                let (kind, value) = text.split_once(':').expect("a selector");
                json!({"type": kind, "value": value})
            });
            json!({
                "spiffe_id": entry.spiffe_id,
                "parent_id": entry.parent,
                "selectors": Vec::from_iter(selectors),
                "dns_names": entry.dns_names,
            })
        });
        let data = json!({"entries": Vec::from_iter(entries)}).to_string();
        let path = write(self.folder.path(), "entries.json", data);
        let path = path.to_str().expect("it is text");
        self.print(&["entry", "create", "-data", path]);
    }

    fn update(&self, id: &str, entry: &Entry) {
        let arguments = arguments(entry);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        self.print(&[&["entry", "update", "-entryID", id], &arguments[..]].concat());
    }

    fn delete(&self, id: &str) {
        self.print(&["entry", "delete", "-entryID", id]);
    }

    fn agents(&self) -> Vec<String> {
        let listed = self.ask(&["agent", "list"]);
        let agents = listed["agents"].as_array().into_iter().flatten();
        let active = agents.filter(|agent| agent["banned"] != true);
        let ids = active.map(|agent| {
            let id = &agent["id"];
            format!(
                "spiffe://{}{}",
                text(&id["trust_domain"]),
                text(&id["path"])
            )
        });
        ids.collect()
    }

    fn ban(&self, agent: &str) {
        self.print(&["agent", "ban", "-spiffeID", agent]);
    }

    fn evict(&self, agent: &str) {
        self.print(&["agent", "evict", "-spiffeID", agent]);
    }

    fn rotate(&self, kind: Kind) {
        let prepared = self.authority(kind, &["prepare"]);
        let id = text(&prepared["prepared_authority"]["authority_id"]);
        self.authority(kind, &["activate", "-authorityID", &id]);
    }

    fn taint(&self, kind: Kind) {
        let old = self.old(kind);
        self.authority(kind, &["taint", "-authorityID", &old]);
    }

    fn revoke(&self, kind: Kind) {
        let old = self.old(kind);
        self.authority(kind, &["revoke", "-authorityID", &old]);
    }

    fn set_bundle(&self, trust_domain: &str, pem: &str) {
        let path = write(self.folder.path(), "foreign.pem", pem);
        let path = path.to_str().expect("it is text");
        let id = format!("spiffe://{trust_domain}");
        self.print(&["bundle", "set", "-id", &id, "-path", path, "-format", "pem"]);
    }

    fn stop(&mut self) {
        let process = self.process.take().expect("it runs");
        process.signal(Signal::SIGTERM);
        tokio::task::block_in_place(|| process.wait());
    }

    fn start_again(&mut self) {
        tokio::task::block_in_place(|| self.run());
    }

    fn forget(&mut self) {
        let data = self.folder.path().join("data");
        fs::remove_dir_all(&data).expect("it is stopped");
        fs::create_dir(&data).expect("a folder");
    }
}

/// An entry as `entry create` and `entry update` take it.
fn arguments(entry: &Entry) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut add = |name: &str, value: &str| arguments.extend([name.to_owned(), value.to_owned()]);
    add("-spiffeID", &entry.spiffe_id);
    add("-parentID", &entry.parent);
    for selector in &entry.selectors {
        add("-selector", selector);
    }
    for name in &entry.dns_names {
        add("-dns", name);
    }
    for trust_domain in &entry.federates_with {
        add("-federatesWith", &format!("spiffe://{trust_domain}"));
    }
    if let Some(ttl) = entry.svid_ttl {
        add("-x509SVIDTTL", &ttl.as_secs().to_string());
    }
    if !entry.hint.is_empty() {
        add("-hint", &entry.hint);
    }
    if entry.store_svid {
        arguments.push("-storeSVID".to_owned());
    }
    arguments
}

fn text(value: &Value) -> String {
    let text = value.as_str();
    text.unwrap_or_else(|| panic!("a text: {value}")).to_owned()
}
