//! An Envoy whose identity comes and goes with an entry.

use std::path::Path;

use serde_json::Value;
use sidegate_tests::{Sidegate, Tool, guest, skip, tool, until};

use crate::envoy::{Bootstrap, Envoy};
use crate::support::{Operator, digest, folder, identity_only, program, spiffe_id};

#[test]
fn an_envoy_keeps_its_last_svid_when_it_is_withdrawn_and_takes_the_next_one() {
    let Some(binary) = tool(Tool::Envoy) else {
        return skip(
            "an_envoy_keeps_its_last_svid_when_it_is_withdrawn",
            Tool::Envoy,
        );
    };
    let folder = folder();
    let gate = start(folder.path());
    let operator = Operator::of(&gate);
    let first = operator.create("/first", &program(&binary), &[]);
    let envoy = Envoy::start(&binary, &Bootstrap::example(&gate));
    assert_eq!(shown(&envoy), spiffe_id("/first"), "{}", envoy.log());
    let answer = envoy.get("/hello");
    assert_eq!(answer.status, 200, "{}", envoy.log());
    assert!(answer.body.contains(&spiffe_id("/first")), "{answer:?}");
    let updates = |envoy: &Envoy| envoy.stat("sds.default.update_success");
    let before = updates(&envoy);

    // What concerns others only is no update.
    let other = operator.create("/other", "unix:path:/nowhere", &[]);
    operator.delete(&other);
    operator.delete(&first);
    assert_eq!(updates(&envoy), before);
    assert_eq!(shown(&envoy), spiffe_id("/first"));
    assert_eq!(envoy.get("/hello").status, 200, "{}", envoy.log());

    operator.create("/second", &program(&binary), &[]);
    until("Envoy's new SVID", || {
        (shown(&envoy) == spiffe_id("/second")).then_some(())
    });
    // A withdrawal would have been an update as well.
    assert_eq!(updates(&envoy), before + 1);
    assert_eq!(envoy.stat("sds.default.update_rejected"), 0);
    assert_eq!(envoy.get("/hello").status, 200, "{}", envoy.log());
}

/// The SPIFFE ID of the certificate that Envoy shows its upstreams.
fn shown(envoy: &Envoy) -> String {
    let certificates = envoy.admin("/certs");
    let own = &certificates["certificates"][0]["cert_chain"][0];
    let id = &own["subject_alt_names"][0]["uri"];
    id.as_str().unwrap_or_default().to_owned()
}

/// A component behind mutual TLS, and no entry for anything else.
fn start(folder: &Path) -> Sidegate {
    let hello = guest("hello");
    let sections = format!(
        r#"
[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/hello"
selectors = ["component:digest:sha256:{}"]
dns_names = ["localhost"]

[[component]]
name = "hello"
path = {}

[[listener]]
name = "main"
listen = "127.0.0.1:0"
component = "hello"
"#,
        digest(&hello),
        Value::from(hello.to_str().expect("it is text")),
    );
    Sidegate::run(&identity_only(folder, &sections))
}
