//! What a listener takes: with TLS or without, of whatever protocol, under one identity or several.

mod connect;
mod http10;
mod modes;
mod names;
mod protocol;
mod tcp;

use serde_json::Value;
use sidegate_tests::{Sidegate, until};
use tempfile::TempDir;

use crate::support::{Client, Configuration, folder, write};

/// Allows every request, and shows the upstream what the policy sees.
const SEEN: &str = r#"
package envoy.authz
source := input.attributes.source
request := input.attributes.request.http
allow := {"allowed": true, "headers": {"x-seen": json.marshal({
    "principal": object.get(source, "principal", null),
    "has_certificate": object.get(source, "certificate", null) != null,
    "destination": object.get(input.attributes.destination, "principal", null),
    "scheme": request.scheme,
    "method": request.method,
    "host": request.host,
    "path": object.get(request, "path", ""),
})}}
"#;

/// The entry of the listener.
const OWN: &str = r#"
[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/orders"
selectors = ["listener:name:main"]
dns_names = ["localhost"]
"#;

/// `sidegate run` with one listener.
struct Front {
    sidegate: Sidegate,
    client: Client,
    folder: TempDir,
}

impl Front {
    /// `listener` is what belongs to the listener, and the sections after it.
    fn start(listener: &str, policy: &str) -> Self {
        Self::start_in(folder(), "", OWN, listener, policy)
    }

    /// The same in a folder that is there already, with more of `[identity]` and other entries.
    fn start_in(
        folder: TempDir,
        identity: &str,
        entries: &str,
        listener: &str,
        policy: &str,
    ) -> Self {
        write(folder.path(), "policy/policy.rego", policy);
        let mut configuration = Configuration::new().listener(&format!(
            "{entries}\n[policy]\npath = \"policy\"\n\n[[listener]]\nname = \"main\"\n\
             listen = \"127.0.0.1:0\"\n{listener}\n"
        ));
        configuration.entries.insert_str(0, identity);
        let (sidegate, client) = configuration.start(folder.path());
        Self {
            sidegate,
            client,
            folder,
        }
    }

    /// Where a client without TLS asks.
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.client.address)
    }

    /// The access log so far, once a line is there for which this holds.
    fn line(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        until(&format!("an access line {what}"), || {
            let written = self.sidegate.process.stderr() + &self.sidegate.process.stdout();
            let lines = written.lines().filter(|line| line.starts_with('{'));
            lines
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .find(|line| holds(line))
        })
    }
}
