//! Configurations of these tests.

use std::path::{Path, PathBuf};

use nix::unistd::getuid;
use sidegate_tests::guest;

use crate::support::{digest, write};

/// A configuration for `sidegate run`; every part can be replaced.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Lines of the identity section, and sections below it.
    pub(crate) identity: String,
    /// The state directory.
    pub(crate) state: &'static str,
    /// Where the demo identity's files go.
    pub(crate) demo: &'static str,
    /// What is behind the listener, and as whom it serves.
    front: String,
}

impl Setup {
    /// Nothing answers behind its listener, so that it starts as fast as can be.
    pub(crate) fn without_component() -> Self {
        Self::new(
            r#"
[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/front"
selectors = ["listener:name:main"]

[[listener]]
name = "main"
listen = "127.0.0.1:0"
upstream = "http://127.0.0.1:9"
spiffe_id = "spiffe://sidegate.local/front"
"#
            .to_owned(),
        )
    }

    /// A component behind it greets its callers.
    pub(crate) fn with_hello() -> Self {
        let hello = guest("hello");
        Self::new(format!(
            r#"
[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/hello"
selectors = ["component:digest:sha256:{digest}"]
dns_names = ["localhost"]

[[component]]
name = "hello"
path = "{path}"

[[listener]]
name = "main"
listen = "127.0.0.1:0"
component = "hello"
"#,
            digest = digest(&hello),
            path = hello.display(),
        ))
    }

    fn new(front: String) -> Self {
        Self {
            identity: String::new(),
            state: "state",
            demo: "demo",
            front,
        }
    }

    /// Adds lines to the identity section, or sections below it.
    pub(crate) fn identity(mut self, lines: &str) -> Self {
        self.identity.push_str(lines);
        self
    }

    /// Writes it as `sidegate.toml`.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let Self {
            identity,
            state,
            demo,
            front,
        } = self;
        let uid = getuid();
        let text = format!(
            r#"
[proxy]
drain_timeout = "10m"

[identity]
trust_domain = "sidegate.local"
state = "{state}"
{identity}
[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/demo"
selectors = ["unix:uid:{uid}"]

[[svid_file]]
spiffe_id = "spiffe://sidegate.local/demo"
directory = "{demo}"

[workload_api]
socket = "workload.sock"

[admin]
listen = "127.0.0.1:0"
{front}"#
        );
        write(folder, "sidegate.toml", text)
    }
}

/// An entry of a name, with these selectors.
pub(crate) fn entry(name: &str, selectors: &[String]) -> String {
    format!(
        "\n[[identity.entry]]\nspiffe_id = \"spiffe://sidegate.local/{name}\"\n\
         selectors = {selectors:?}\n"
    )
}
