//! What a source that mints nothing refuses, and starts that cannot be.

use std::fs;
use std::path::Path;

use serde_json::Value;
use sidegate_tests::{Output, Sidegate, until};

use super::agent::Agent;
use super::issuer::{Issuer, Volume};
use super::{DEMO, GREETER, configuration, is_up};
use crate::federation::bundle as bundle_of;
use crate::support::{Operator, finish, folder, logged, own_entry, own_uid};

#[test]
fn what_only_a_minting_source_can_do_is_refused_and_the_rest_is_shown() {
    let (folder, other) = (folder(), folder());
    let issuer = Issuer::new();
    let volume = Volume::mount(&folder.path().join("secret"), &issuer.set(GREETER));
    let files = Sidegate::run(&configuration(folder.path(), &volume.section()));
    let agent = Agent::start("1h");
    let api = Sidegate::run(&configuration(other.path(), &agent.section()));
    let other_bundle = folder.path().join("other.json");
    fs::write(&other_bundle, r#"{"keys": []}"#).expect("it is written");
    for (gate, source) in [(&files, "files"), (&api, "workload-api")] {
        let operator = Operator::of(gate);
        let own = own_uid();
        let refused: [&[&str]; 8] = [
            &["entry", "create", "--spiffe-id", DEMO, "--selector", &own],
            &["entry", "delete", "configuration-1"],
            &["authorities"],
            &["rotate", "x509"],
            &["rotate", "jwt", "--prepare-only"],
            &["taint", "x509"],
            &["revoke", "jwt"],
            &[
                "bundle",
                "set",
                "other.example",
                other_bundle.to_str().expect("it is text"),
            ],
        ];
        for arguments in refused {
            operator.is_refused(arguments, "SG0162");
            let output = operator.run(arguments);
            let said = format!("the source `{source}` cannot ");
            assert!(output.stderr.contains(&said), "{}", output.stderr);
            assert!(
                output.stderr.contains("`embedded` can"),
                "{}",
                output.stderr
            );
        }
        let entries = operator.entries();
        let ids: Vec<_> = entries.iter().map(|it| &it["entry"]["spiffe_id"]).collect();
        assert_eq!(ids, [GREETER]);
        let bundles = bundle_of(&operator, None);
        let keys = bundles["keys"].as_array().expect("keys");
        let x509 = keys.iter().filter(|key| key["use"] == "x509-svid");
        assert_eq!(x509.count(), 1, "{bundles}");
        is_up(gate);
    }
}

#[test]
fn entries_for_what_the_source_does_not_hold_are_refused_at_start_and_at_a_reload() {
    let (folder, other) = (folder(), folder());
    let issuer = Issuer::new();
    let volume = Volume::mount(&folder.path().join("secret"), &issuer.set(GREETER));
    let good = configuration(folder.path(), &volume.section());
    let gate = Sidegate::run(&good);
    let bad = volume.section() + &own_entry("/demo");
    configuration(folder.path(), &bad);
    logged(&gate, &["SG0072"]);
    let log = gate.process.stderr();
    assert!(log.contains("SG0163") && log.contains(GREETER), "{log}");
    let bad = configuration(other.path(), &bad);
    is_refused(&run(&bad, None), "SG0163", "`embedded` can");
    // An entry for what it holds may come.
    let more = volume.section() + &own_entry("/greeter");
    configuration(folder.path(), &more);
    logged(&gate, &["the configuration is reloaded"]);
    assert_eq!(Operator::of(&gate).entries().len(), 2);
    configuration(folder.path(), &volume.section());
    until("an entry less", || {
        (Operator::of(&gate).entries().len() == 1).then_some(())
    });
    is_up(&gate);
}

#[test]
fn a_start_without_an_agent_or_with_itself_as_one_is_refused() {
    let folder = folder();
    let api = "source = \"workload-api\"\n";
    let away = format!("{api}[identity.workload_api]\nsocket = \"unix:///nowhere/agent.sock\"\n");
    let own = folder.path().join("workload.sock");
    let own = format!("unix://{}", own.display());
    let itself = format!("{api}[identity.workload_api]\nsocket = {own:?}\n");
    for (section, variable, code, text) in [
        (&away, None, "SG0167", "/nowhere/agent.sock"),
        (&itself, None, "SG0084", "would ask itself"),
        (&api.to_owned(), None, "SG0086", "SPIFFE_ENDPOINT_SOCKET"),
        (
            &api.to_owned(),
            Some(own.as_str()),
            "SG0084",
            "would ask itself",
        ),
    ] {
        let config = configuration(folder.path(), section);
        is_refused(&run(&config, variable), code, text);
    }
}

#[test]
fn the_agent_is_found_by_the_variable_and_an_id_that_it_does_not_give_ends_the_start() {
    let folder = folder();
    let agent = Agent::start("1h");
    let config = configuration(folder.path(), "source = \"workload-api\"\n");
    let mut command = Sidegate::command("run");
    command
        .args(["-o", "json", "--config"])
        .arg(&config)
        .env("SPIFFE_ENDPOINT_SOCKET", agent.socket());
    let gate = Sidegate::start(&mut command);
    is_up(&gate);
    gate.stop();
    let other = agent.section() + &own_entry("/other");
    let config = configuration(folder.path(), &other);
    is_refused(&run(&config, None), "SG0163", GREETER);
    let mut command = Sidegate::command("check");
    let checked = finish(command.args(["-o", "json", "--config"]).arg(&config));
    let report: Value = serde_json::from_str(&checked.stdout).expect("it is JSON");
    let identity = report["categories"].as_array().expect("categories").iter();
    let mut rows = identity.flat_map(|it| it["checks"].as_array().expect("rows"));
    let row = rows
        .find(|row| row["id"] == "identity-source")
        .expect("a row");
    assert_eq!(
        (&row["result"], &row["code"]),
        (&"warning".into(), &"SG0163".into())
    );
}

fn run(config: &Path, variable: Option<&str>) -> Output {
    let mut command = Sidegate::command("run");
    command.arg("--config").arg(config);
    match variable {
        Some(socket) => command.env("SPIFFE_ENDPOINT_SOCKET", socket),
        None => command.env_remove("SPIFFE_ENDPOINT_SOCKET"),
    };
    finish(&mut command)
}

fn is_refused(output: &Output, code: &str, text: &str) {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let error = format!("error[{code}]");
    assert!(output.stderr.contains(&error), "{}", output.stderr);
    assert!(output.stderr.contains(text), "{}", output.stderr);
}
