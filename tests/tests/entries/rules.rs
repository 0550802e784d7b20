//! What no entry may be, whenever it is made.

use std::fs;

use serde_json::{Value, json};
use sidegate_tests::Sidegate;

use super::start;
use crate::admin::Api;
use crate::support::{Operator, finish, folder, identity_only, own_entry, own_uid, spiffe_id};

#[test]
fn every_rule_for_entries_holds_at_run_time_with_its_code() {
    let folder = folder();
    let gate = start(folder.path(), &own_entry("/base"));
    let operator = Operator::of(&gate);
    operator.create("/there", "unix:uid:1", &["--entry-id", "there"]);
    let file = gate.ready.state.join("entries.json");
    let before = (operator.entries(), fs::read(&file).expect("it is kept"));

    let long = "x".repeat(1025);
    let uid = own_uid();
    let good = ["/new", "unix:uid:1"];
    let cases: [(&str, [&str; 2], &[&str]); 29] = [
        ("SG0101", ["new", "unix:uid:1"], &[]),
        ("SG0101", ["https://sidegate.local/new", "unix:uid:1"], &[]),
        ("SG0101", ["/../new", "unix:uid:1"], &[]),
        ("SG0101", ["/new/", "unix:uid:1"], &[]),
        ("SG0102", ["spiffe://elsewhere/new", "unix:uid:1"], &[]),
        ("SG0103", ["", "unix:uid:1"], &[]),
        ("SG0104", ["/spire/new", "unix:uid:1"], &[]),
        ("SG0106", ["/new", "k8s:ns:default"], &[]),
        ("SG0106", ["/new", "unix:uid:one"], &[]),
        ("SG0106", ["/new", "unix:path:relative"], &[]),
        ("SG0106", ["/new", ""], &[]),
        ("SG0107", good, &["--selector", "component:name:new"]),
        ("SG0108", ["/new", "component:name:new"], &[]),
        ("SG0108", ["/new", "component:namespace:default"], &[]),
        ("SG0108", ["/new", "component:signer:key"], &[]),
        ("SG0110", good, &["--dns-name", "Upper.example"]),
        ("SG0110", good, &["--dns-name", "two..dots"]),
        ("SG0111", good, &["--hint", &long]),
        ("SG0112", ["/base", &uid], &[]),
        ("SG0112", ["/there", "unix:uid:1"], &[]),
        ("SG0113", good, &["--audience", ""]),
        ("SG0114", good, &["--federates-with", "sidegate.local"]),
        ("SG0114", good, &["--federates-with", "spiffe://elsewhere"]),
        ("SG0117", good, &["--entry-id", "there"]),
        ("SG0117", good, &["--entry-id", "configuration-1"]),
        ("SG0117", good, &["--entry-id", "configuration-7"]),
        ("SG0117", good, &["--entry-id", "a/b"]),
        ("SG0117", good, &["--entry-id", ""]),
        ("SG0117", good, &["--entry-id", &long]),
    ];
    for (code, [path, selector], more) in cases {
        let id = if path.is_empty() || path.starts_with('/') {
            spiffe_id(path)
        } else {
            path.to_owned()
        };
        let create = ["entry", "create", "--spiffe-id", &id];
        let arguments = [&create[..], &["--selector", selector], more].concat();
        operator.is_refused(&arguments, code);
    }
    // What the command line itself finds out has no code.
    for ttl in ["9s", "25h", "soon"] {
        for option in ["--x509-svid-ttl", "--jwt-svid-ttl"] {
            let id = spiffe_id("/new");
            let create = ["entry", "create", "--spiffe-id", &id];
            let more = ["--selector", "unix:uid:1", option, ttl];
            let output = operator.run(&[&create[..], &more].concat());
            assert_eq!(output.status.code(), Some(2), "{output:?}");
            assert!(output.stderr.contains(option), "{output:?}");
        }
    }
    let api = Api::of(&gate);
    let codes = [
        ("SG0105", json!([]), Value::Null),
        ("SG0109", json!(["unix:uid:1"]), json!(9)),
        ("SG0109", json!(["unix:uid:1"]), json!(86_401)),
    ];
    for (code, selectors, ttl) in codes {
        for key in ["x509_svid_ttl", "jwt_svid_ttl"] {
            let entry = json!({"spiffe_id": spiffe_id("/new"), "selectors": selectors, key: ttl});
            let answer = api.post("/v1/entries", &json!({ "entry": entry }));
            answer.is_error(if code == "SG0105" { 400 } else { answer.status }, code);
            assert!([400, 409].contains(&answer.status), "{answer:?}");
        }
    }
    let after = (operator.entries(), fs::read(&file).expect("it is kept"));
    assert_eq!(after, before, "nothing was made");
}

#[test]
fn the_order_of_selectors_makes_no_other_entry() {
    let folder = folder();
    let gate = start(folder.path(), "");
    let operator = Operator::of(&gate);
    operator.create("/one", "unix:uid:1", &["--selector", "unix:gid:2"]);
    let id = spiffe_id("/one");
    let turned = "--selector unix:gid:2 --selector unix:uid:1";
    let twice = "--selector unix:uid:1 --selector unix:gid:2 --selector unix:uid:1";
    for selectors in [turned, twice] {
        let create = ["entry", "create", "--spiffe-id", &id];
        let selectors = Vec::from_iter(selectors.split(' '));
        operator.is_refused(&[&create[..], &selectors].concat(), "SG0112");
    }
    // With others, or for another ID, it is another.
    operator.create("/one", "unix:uid:1", &[]);
    operator.create("/two", "unix:uid:1", &["--selector", "unix:gid:2"]);
}

#[test]
fn a_dns_name_that_the_configuration_refuses_is_refused_at_run_time() {
    let names = ["*.example", "*", "a_b", "-a.example", "a.", ""];
    for name in names {
        let folder = folder();
        let entry = own_entry("/base") + &format!("dns_names = [\"{name}\"]\n");
        let config = identity_only(folder.path(), &entry);
        let mut command = Sidegate::command("run");
        let output = finish(command.arg("--config").arg(config));
        assert_eq!(output.status.code(), Some(2), "{name}: {output:?}");
        assert!(output.stderr.contains("SG0035"), "{name}: {output:?}");
    }
    let folder = folder();
    let gate = start(folder.path(), "");
    let operator = Operator::of(&gate);
    for name in names {
        let dns = format!("--dns-name={name}");
        let id = spiffe_id("/base");
        let arguments = ["entry", "create", "--spiffe-id", &id, "--selector"];
        operator.is_refused(&[&arguments[..], &[&own_uid(), &dns]].concat(), "SG0110");
    }
}

#[test]
fn a_lifetime_with_a_fraction_of_a_second_is_kept_or_refused_but_not_changed() {
    let folder = folder();
    let gate = start(folder.path(), "");
    let operator = Operator::of(&gate);
    let id = spiffe_id("/one");
    let arguments = ["entry", "create", "--spiffe-id", &id, "--selector"];
    let more = [&own_uid(), "--x509-svid-ttl", "10900ms"];
    let output = operator.run(&[&arguments[..], &more].concat());
    if output.status.success() {
        assert!(output.stdout.contains("10s 900ms"), "{output:?}");
    }
}
