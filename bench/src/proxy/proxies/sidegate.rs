//! Sidegate with everything on: identities, a policy of ten rules over a thousand bindings, identity
//! headers, metrics, and an access log that goes to a file.

use std::fs;
use std::process::Command;

use anyhow::Result;

use super::super::cases::Group;
use super::super::credentials::{SERVER_ID, SERVER_NAME, TRUST_DOMAIN};
use super::Setup;
use crate::policy::cases::{TEN_RULE, ten_rule_data};

const BINDINGS: usize = 1_000;

pub(super) fn configure(command: &mut Command, setup: &Setup<'_>) -> Result<()> {
    let policy = setup.folder.join("policy");
    fs::create_dir(&policy)?;
    for (name, text) in TEN_RULE {
        fs::write(policy.join(name), text)?;
    }
    fs::write(
        policy.join("data.json"),
        ten_rule_data(BINDINGS).to_string(),
    )?;
    let path = setup.write("sidegate.toml", &configuration(setup))?;
    command.args(["run", "-o", "json", "--config"]).arg(path);
    Ok(())
}

fn configuration(setup: &Setup<'_>) -> String {
    let scheme = match setup.group {
        Group::Http1 | Group::Memory => "http",
        Group::Http2 => "h2c",
    };
    format!(
        r#"
[identity]
trust_domain = "{TRUST_DOMAIN}"
state = "state"
svid_ttl = "24h"

[identity.embedded]
certificate = "{root}"
key = "{key}"

[[identity.entry]]
spiffe_id = "{SERVER_ID}"
selectors = ["listener:name:main"]
dns_names = ["{SERVER_NAME}"]

[workload_api]
socket = "workload.sock"

[admin]
listen = "{admin}"

[policy]
path = "policy"

[proxy]
workers = {workers}

[[listener]]
name = "main"
listen = "{listen}"
upstream = "{scheme}://{upstream}"

[listener.timeouts]
idle = "10m"

[log]
access = "stdout"
"#,
        root = setup.credentials.file("roots.pem").display(),
        key = setup.credentials.file("root.key").display(),
        admin = setup.admin,
        workers = setup.workers,
        listen = setup.address,
        upstream = setup.upstream,
    )
}
