//! Configuration files for `sidegate run`.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use sidegate_tests::{Sidegate, guest};

use super::{Client, write};

/// A configuration that fronts the probe and hands the demo client its files; every part can be
/// replaced.
#[derive(Debug, Clone)]
pub(crate) struct Configuration {
    /// What follows the identity section.
    pub(crate) entries: String,
    /// Lines of the component.
    pub(crate) component: String,
    /// The listener section, and those below it.
    pub(crate) listener: String,
    /// Further sections.
    pub(crate) rest: String,
}

impl Configuration {
    pub(crate) fn new() -> Self {
        Self {
            entries: format!(
                r#"
[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/probe"
selectors = ["component:digest:sha256:{}"]
dns_names = ["localhost"]

[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/demo"
selectors = ["unix:uid:{}"]

[[svid_file]]
spiffe_id = "spiffe://sidegate.local/demo"
directory = "demo"
"#,
                digest(&guest("probe")),
                nix::unistd::getuid()
            ),
            component: String::new(),
            listener: r#"
[[listener]]
name = "main"
listen = "127.0.0.1:0"
component = "probe"
"#
            .to_owned(),
            rest: String::new(),
        }
    }

    /// A listener with an identity of its own in front of a server, where the folder `policy`
    /// decides. `lines` are those of the listener, and sections below it.
    pub(crate) fn before(url: &str, lines: &str) -> Self {
        Self::new().listener(&format!(
            r#"
[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/orders"
selectors = ["listener:name:main"]
dns_names = ["localhost"]

[policy]
path = "policy"

[[listener]]
name = "main"
listen = "127.0.0.1:0"
upstream = "{url}"
{lines}
"#
        ))
    }

    /// Adds lines to the component.
    pub(crate) fn component(mut self, lines: &str) -> Self {
        self.component.push_str(lines);
        self
    }

    /// Sets timeouts of the listener.
    pub(crate) fn timeouts(mut self, lines: &str) -> Self {
        self.listener.push_str("[listener.timeouts]\n");
        self.listener.push_str(lines);
        self
    }

    /// Replaces the listener.
    pub(crate) fn listener(mut self, sections: &str) -> Self {
        sections.clone_into(&mut self.listener);
        self
    }

    /// Adds sections.
    pub(crate) fn rest(mut self, sections: &str) -> Self {
        self.rest.push_str(sections);
        self
    }

    pub(crate) fn text(&self) -> String {
        format!(
            r#"
[identity]
trust_domain = "sidegate.local"
state = "state"
{entries}
[workload_api]
socket = "workload.sock"

[admin]
listen = "127.0.0.1:0"

[[component]]
name = "probe"
path = "{probe}"
{component}
{listener}
{rest}
"#,
            entries = self.entries,
            probe = guest("probe").display(),
            component = self.component,
            listener = self.listener,
            rest = self.rest,
        )
    }

    /// Writes it as `sidegate.toml`.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        write(folder, "sidegate.toml", self.text())
    }

    /// Starts it, with a client that has the demo client's files.
    pub(crate) fn start(&self, folder: &Path) -> (Sidegate, Client) {
        let sidegate = Sidegate::run(&self.write(folder));
        let demo = folder.join("demo");
        let client = Client::new(
            super::address(&sidegate),
            &demo.join("bundle.pem"),
            &demo.join("svid.pem"),
            &demo.join("key.pem"),
        );
        (sidegate, client)
    }
}

/// SHA-256 of a file, in hexadecimal.
pub(crate) fn digest(file: &Path) -> String {
    let content = std::fs::read(file).expect("the file is read");
    hexadecimal(digest::digest(&digest::SHA256, &content).as_ref())
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
