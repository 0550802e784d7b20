//! The decision log: what was asked and answered, without what is secret, wherever it goes.

mod connections;
mod file;
mod receiver;
mod told;
mod upload;

use std::path::{Path, PathBuf};

use serde_json::Value;
use sidegate_tests::Sidegate;

use crate::support::{Client, Upstream, address, own_uid, write};

/// Allows, denies, answers with its own input, or gives a header that is secret.
const POLICY: &str = r#"
package envoy.authz
import rego.v1

default allow := false

segment := input.parsed_path[0]

allow if segment == "open"
allow := {"allowed": false, "http_status": 429, "body": json.marshal(input)} if segment == "mirror"
allow := {
    "allowed": true,
    "headers": {"authorization": "Bearer s3cret-of-the-policy"},
    "response_headers_to_add": {"set-cookie": "session=s3cret-of-the-policy"},
} if segment == "headers"
"#;

/// A `sidegate run` that logs its decisions, and a client of it.
struct Logged {
    sidegate: Sidegate,
    client: Client,
    folder: PathBuf,
}

impl Logged {
    /// With lines of `[decision_log]`, and a module beside the policy.
    async fn start(folder: &Path, lines: &str, module: &str) -> Self {
        let upstream = Upstream::start().await;
        let sidegate = Sidegate::run(&configuration(folder, &upstream.url, lines, module));
        let demo = folder.join("demo");
        let [bundle, svid, key] = ["bundle.pem", "svid.pem", "key.pem"].map(|it| demo.join(it));
        let client = Client::new(address(&sidegate), &bundle, &svid, &key);
        Self {
            sidegate,
            client,
            folder: folder.to_owned(),
        }
    }

    /// The status for a path, and the id of the request.
    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.client.get(path).await;
        let id = answer.header("x-request-id").to_owned();
        (answer.status.as_u16(), id)
    }
}

fn configuration(folder: &Path, upstream: &str, lines: &str, module: &str) -> PathBuf {
    write(folder, "policy/policy.rego", POLICY);
    if !module.is_empty() {
        write(
            folder,
            "policy/log.rego",
            format!("package system.log\nimport rego.v1\n{module}"),
        );
    }
    let text = format!(
        r#"
[identity]
trust_domain = "sidegate.local"
state = "state"

[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/app"
selectors = ["listener:name:main"]
dns_names = ["localhost"]

[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/demo"
selectors = ["{uid}"]

[[svid_file]]
spiffe_id = "spiffe://sidegate.local/demo"
directory = "demo"

[workload_api]
socket = "workload.sock"

[admin]
listen = "127.0.0.1:0"

[policy]
path = "policy"
timeout = "5s"

[[listener]]
name = "main"
listen = "127.0.0.1:0"
upstream = "{upstream}"

[decision_log]
{lines}
"#,
        uid = own_uid(),
    );
    write(folder, "sidegate.toml", text)
}

/// The request that an event is about.
fn request_id(event: &Value) -> &str {
    let id = &event["input"]["attributes"]["request"]["http"]["id"];
    id.as_str().expect("an id")
}

/// The events of a file.
pub(crate) fn events(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // The last line may be under way.
    let lines = text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    lines
        .map(|line| serde_json::from_str(line).expect("an event"))
        .collect()
}
