//! Two instances of different trust domains.

use super::{Echo, Gate, client_certificate, egress, entry, policy, server, text, told};
use crate::federation::{bundle, set};
use crate::support::{Upstream, counter, folder, write};

const OTHER: &str = "other.example";

/// An instance of other.example with a server, and one of sidegate.local with an app that sends
/// there. They do not know each other yet.
fn two(upstream: &str) -> (Gate, Gate) {
    let rest = "[policy]\npath = \"policy\"\n";
    let federates = "federates_with = [\"sidegate.local\"]";
    let sections = [
        entry(OTHER, "/server", "main", federates),
        server("127.0.0.1:0", upstream),
        rest.to_owned(),
    ];
    let theirs = folder();
    policy::write_policy(theirs.path(), "");
    let theirs = Gate::start_with(theirs, text(OTHER, &sections.concat()));
    let url = format!("https://{}", theirs.address("main"));
    let expected = "expected_spiffe_ids = [\"spiffe://other.example/server\"]";
    let sections = [
        entry(
            "sidegate.local",
            "/app",
            "app",
            "federates_with = [\"other.example\"]",
        ),
        egress("app", &url, expected),
        rest.to_owned(),
    ];
    let ours = folder();
    policy::write_policy(ours.path(), "allow := true");
    let ours = Gate::start_with(ours, text("sidegate.local", &sections.concat()));
    (ours, theirs)
}

/// Tells one instance the bundle of the other.
fn introduce(gate: &Gate, other: &Gate, trust_domain: &str) {
    let document = bundle(&other.operator(), None);
    let file = write(gate.folder.path(), "bundle.json", document.to_string());
    set(&gate.operator(), trust_domain, &file);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_from_one_trust_domain_to_another_for_as_long_as_they_are_federated() {
    let upstream = Upstream::start().await;
    let (ours, theirs) = two(&upstream.url);
    let app = ours.app("app");
    let answer = app.get("/").await;
    assert_eq!(answer.status, 502, "nothing is known of the other");
    assert_eq!(ours.line(&answer)["code"], "SG0187");

    introduce(&ours, &theirs, OTHER);
    introduce(&theirs, &ours, "sidegate.local");
    let answer = app.get("/").await;
    assert_eq!(answer.status, 200, "{}", ours.line(&answer));
    let heads = upstream.heads();
    let caller = client_certificate(&heads[0]);
    assert!(
        caller.starts_with("By=spiffe://other.example/server;"),
        "{caller}"
    );
    assert!(
        caller.ends_with(";URI=spiffe://sidegate.local/app"),
        "{caller}"
    );

    let running = Echo::start(&app).await;
    ours.operator().ask(&["bundle", "delete", OTHER]);
    running.must_be_cut().await;
    told(&ours, &["SG0396", "spiffe://other.example/server"]);
    let labels = ["listener=\"app\"", "reason=\"trust\""];
    let name = "sidegate_upstream_connections_cut_total";
    let cut = counter(&ours.gate, name, &labels);
    assert!(cut >= 1.0, "{cut}: each worker has its own");
    let served = upstream.heads().len();
    let answer = app.get("/").await;
    assert_eq!(answer.status, 502);
    assert_eq!(ours.line(&answer)["code"], "SG0187");
    assert_eq!(upstream.heads().len(), served, "nothing more was sent");
}
