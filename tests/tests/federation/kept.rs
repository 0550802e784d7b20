//! Foreign bundles in the state directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sidegate_tests::Sidegate;

use super::{Foreign, OTHER, bundle, listed};
use crate::entries::state::refused;
use crate::entries::stream::{Stream, Svids};
use crate::support::{Operator, folder, identity_only, own_entry, write};

const THIRD: &str = "third.example";

#[tokio::test]
async fn bundles_are_kept_over_a_stop_and_over_a_kill_and_what_was_given_up_stays_away() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let mut gate = start(folder.path());
    let operator = Operator::of(&gate);
    foreign.is_known_to(&operator);
    Foreign::start(THIRD).is_known_to(&operator);
    for (number, signal) in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGKILL]
        .into_iter()
        .enumerate()
    {
        let operator = Operator::of(&gate);
        let expected = match number {
            0 => vec![OTHER, "sidegate.local", THIRD],
            1 => {
                operator.ask(&["bundle", "delete", THIRD]);
                vec![OTHER, "sidegate.local"]
            }
            _ => {
                foreign.operator().ask(&["rotate", "x509"]);
                foreign.is_known_to(&operator);
                vec![OTHER, "sidegate.local"]
            }
        };
        let before = bundle(&operator, Some(OTHER));
        assert_eq!(before, foreign.bundle());
        gate.process.signal(signal);
        gate.process.wait();
        gate = start(folder.path());
        let operator = Operator::of(&gate);
        assert_eq!(listed(&operator), expected, "{signal}");
        assert_eq!(bundle(&operator, Some(OTHER)), before, "{signal}");
        let first = Stream::<Svids>::svids(&gate.ready.workload_socket).await;
        let first = { first }.update().await.federated_bundles;
        let names: Vec<_> = first.keys().collect();
        assert_eq!(names, ["spiffe://other.example"], "{signal}");
    }
    let file = gate.ready.state.join("bundles.json");
    let mode = fs::metadata(file).expect("it is kept").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn a_damaged_file_of_bundles_is_refused_at_start_and_left_as_it_is() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let gate = start(folder.path());
    foreign.is_known_to(&Operator::of(&gate));
    gate.stop();
    let file = folder.path().join("state/bundles.json");
    let good = fs::read_to_string(&file).expect("it is kept");
    let document: Value = serde_json::from_str(&good).expect("it is JSON");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut changed = document.clone();
        change(&mut changed);
        changed.to_string()
    };
    let keys = format!("/trust_domains/{OTHER}/keys");
    let key = |document: &mut Value, number: usize, name: &str, value: Value| {
        document.pointer_mut(&keys).expect("keys")[number][name] = value;
    };
    let cases = [
        String::new(),
        "{}".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        "\0".repeat(good.len()),
        good[..good.len() / 2].to_owned(),
        format!("{good}{good}"),
        // A bundle in the place of bundles, and a name that is none.
        document["trust_domains"][OTHER].to_string(),
        good.replace(OTHER, "Other.Example"),
        good.replace(OTHER, "spiffe://other.example"),
        with(&|document| document["trust_domains"] = json!([])),
        with(&|document| document["trust_domains"][OTHER] = json!(null)),
        with(&|document| document["trust_domains"][OTHER]["keys"] = json!(null)),
        with(&|document| key(document, 0, "x5c", json!(["AAAA"]))),
        with(&|document| key(document, 1, "kid", json!(""))),
        // The same twice.
        format!(
            "{{\"trust_domains\":{{\"{OTHER}\":{0},\"{OTHER}\":{0}}}}}",
            document["trust_domains"][OTHER]
        ),
    ];
    let config = config(folder.path());
    for content in cases {
        write(folder.path(), "state/bundles.json", &content);
        let output = refused(&config);
        // A key may have a code of its own besides.
        let is_named = output.stderr.contains("error[SG0147]");
        assert!(is_named, "{content:.300}: {output:?}");
        assert!(output.stderr.contains("bundles.json"), "{output:?}");
        assert_eq!(fs::read_to_string(&file).unwrap(), content);
        assert!(!folder.path().join("workload.sock").exists(), "{content}");
    }
    // Our own trust domain is not foreign.
    let own = good.replace(OTHER, "sidegate.local");
    write(folder.path(), "state/bundles.json", &own);
    let output = refused(&config);
    assert!(output.stderr.contains("error[SG01"), "{output:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), own);

    write(folder.path(), "state/bundles.json", &good);
    let gate = start(folder.path());
    assert_eq!(listed(&Operator::of(&gate)), [OTHER, "sidegate.local"]);
}

fn start(folder: &std::path::Path) -> Sidegate {
    Sidegate::run(&config(folder))
}

fn config(folder: &std::path::Path) -> std::path::PathBuf {
    let entry = own_entry("/demo") + "federates_with = [\"other.example\"]\n";
    identity_only(folder, &entry)
}
