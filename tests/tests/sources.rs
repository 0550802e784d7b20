//! `[identity] source`: identities that others mint, in files and from another Workload API, and none.

mod agent;
mod files;
mod formats;
mod issuer;
mod messages;
mod none;
mod operations;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sidegate_tests::{Sidegate, guest, until};

use crate::support::{Client, admin, counter, digest, write};
use crate::workload_api::serial;

/// The greeter's SPIFFE ID, and the one of its client.
const GREETER: &str = "spiffe://sidegate.local/greeter";
const DEMO: &str = "spiffe://sidegate.local/demo";

/// A component behind mutual TLS, with these lines of `[identity]` and sections below it.
fn configuration(folder: &Path, identity: &str) -> PathBuf {
    let greeter = guest("hello");
    let text = format!(
        r#"
[workload_api]
socket = "workload.sock"

[admin]
listen = "127.0.0.1:0"

[[component]]
name = "greeter"
path = "{path}"

[[listener]]
name = "main"
listen = "127.0.0.1:0"
component = "greeter"

[identity]
trust_domain = "sidegate.local"
state = "state"
{identity}

[[identity.entry]]
spiffe_id = "{GREETER}"
selectors = ["component:digest:sha256:{digest}"]
"#,
        path = greeter.display(),
        digest = digest(&greeter),
    );
    write(folder, "sidegate.toml", text)
}

/// Waits until the instance warns of this code and still takes traffic.
fn is_down(gate: &Sidegate, code: &str) {
    let text = until(&format!("a warning with {code}"), || {
        let (status, text) = admin(gate, "/readyz").expect("it is served");
        assert_eq!(status, 200, "{text}");
        text.contains(&format!("[{code}]")).then_some(text)
    });
    for said in ["warning: ", "is down since 20", "serves until 20"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    until("the metric", || (up(gate) == 0).then_some(()));
    let told = until("it is told", || {
        Some(told(gate, code)).filter(|told| *told > 0)
    });
    assert_eq!(told, 1, "it is told once: {}", gate.process.stderr());
}

/// Waits until nothing is wrong with the source.
fn is_up(gate: &Sidegate) {
    until("a source that is up", || {
        let ready = admin(gate, "/readyz").expect("it is served");
        (ready == (200, "ok\n".to_owned())).then_some(())
    });
    until("the metric", || (up(gate) == 1).then_some(()));
}

/// How often the log said that the source is down for this reason, since it was up.
fn told(gate: &Sidegate, code: &str) -> usize {
    let log = gate.process.stderr();
    let log = log
        .rsplit("the identity source is back")
        .next()
        .expect("a text");
    let lines = log.lines();
    let told =
        lines.filter(|line| line.contains("the identity source is down") && line.contains(code));
    told.count()
}

fn up(gate: &Sidegate) -> u8 {
    match counter(gate, "sidegate_identity_source_up", &[]) {
        value if value > 0.5 => 1,
        _ => 0,
    }
}

/// The serial number of the SVID that a listener shows; `None` where it shows none.
pub(crate) async fn shown(client: &Client) -> Option<String> {
    let config = client.tls(rustls::crypto::aws_lc_rs::default_provider());
    let stream = client.connect(config).await.ok()?;
    let chain = stream.get_ref().1.peer_certificates()?;
    chain.first().map(|leaf| serial(leaf))
}

/// Asks again and again until it is so.
async fn until_it_is_so(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let asked = tokio::time::timeout(Duration::from_mins(1), asking).await;
    assert!(asked.is_ok(), "waited in vain: {what}");
}
