//! Registration entries that are made and removed while Sidegate runs.

mod envoy;
mod peers;
mod rules;
pub(crate) mod state;
pub(crate) mod stream;
mod streams;

use serde_json::{Value, json};
use sidegate_tests::Sidegate;

use crate::admin::Api;
use crate::support::{
    Client, Operator, digest, finish, folder, identity_only, own_entry, own_uid, spiffe_id, up,
};
use crate::workload_api::many_users::spiffe_ids;

#[test]
fn a_configuration_without_listeners_serves_identities_only() {
    let folder = folder();
    let gate = start(folder.path(), &own_entry("/base"));
    assert!(gate.ready.listeners.is_empty(), "{:?}", gate.ready);
    assert_eq!(issued(&gate), [spiffe_id("/base")]);
    assert_eq!(gate.stop().status.code(), Some(0));

    // Not even an entry is needed: they come later.
    let gate = start(folder.path(), "");
    let operator = Operator::of(&gate);
    assert_eq!(operator.entries(), [] as [Value; 0]);
    operator.create("/later", &own_uid(), &[]);
    assert_eq!(issued(&gate), [spiffe_id("/later")]);
}

#[test]
fn an_entry_has_all_that_it_was_made_with_whoever_shows_it() {
    let folder = folder();
    let gate = start(folder.path(), "");
    let (operator, api) = (Operator::of(&gate), Api::of(&gate));
    let arguments = [
        "entry create --spiffe-id spiffe://sidegate.local/full --entry-id full-1",
        "--selector unix:uid:1 --selector unix:gid:2 --x509-svid-ttl 1h --jwt-svid-ttl 90s",
        "--dns-name one.example --dns-name two.example --hint inside --audience first",
        "--audience second --federates-with other.example",
    ]
    .join(" ");
    let made = operator.ask(&Vec::from_iter(arguments.split(' ')));
    let expected = json!({
        "spiffe_id": "spiffe://sidegate.local/full",
        "selectors": ["unix:uid:1", "unix:gid:2"],
        "dns_names": ["one.example", "two.example"],
        "x509_svid_ttl": 3600,
        "jwt_svid_ttl": 90,
        "hint": "inside",
        "audiences": ["first", "second"],
        "federates_with": ["other.example"],
    });
    assert_eq!(made["id"], "full-1");
    assert_eq!(made["origin"], "runtime");
    assert_eq!(made["entry"], expected);
    assert_eq!(operator.ask(&["entry", "show", "full-1"]), made);
    assert_eq!(api.get("/v1/entries/full-1").body, made);
    assert_eq!(operator.entries(), [made]);

    for arguments in [&["entry", "show", "full-1"][..], &["entry", "list"]] {
        let text = operator.run(arguments).stdout;
        for part in ["full-1", "1h", "unix:gid:2", "two.example", "second"] {
            assert!(text.contains(part), "{arguments:?} {part}: {text}");
        }
    }
    operator.delete("full-1");
    operator.is_refused(&["entry", "show", "full-1"], "SG0115");
    operator.is_refused(&["entry", "delete", "full-1"], "SG0115");
    assert_eq!(operator.entries(), [] as [Value; 0]);
}

#[test]
fn a_list_shows_only_the_entries_that_are_asked_for() {
    let folder = folder();
    let gate = start(folder.path(), &own_entry("/base"));
    let operator = Operator::of(&gate);
    let both = ["--selector", "unix:gid:2"];
    let first = operator.create("/shared", "unix:uid:1", &both);
    let second = operator.create("/shared", "unix:uid:1", &[]);
    let third = operator.create("/other", "unix:gid:2", &[]);
    let base = "configuration-1".to_owned();

    let shared = spiffe_id("/shared");
    let all = [&base, &first, &second, &third];
    let cases: [(&[&str], &[&String]); 7] = [
        (&[], &all),
        (&["--spiffe-id", &shared], &[&first, &second]),
        (&["--selector", "unix:uid:1"], &[&first, &second]),
        (&["--selector", "unix:gid:2"], &[&first, &third]),
        (
            &["--selector", "unix:uid:1", "--selector", "unix:gid:2"],
            &[&first],
        ),
        (
            &["--spiffe-id", &shared, "--selector", "unix:gid:2"],
            &[&first],
        ),
        (&["--spiffe-id", "spiffe://sidegate.local/none"], &[]),
    ];
    for (arguments, expected) in cases {
        let list = operator.ask(&[&["entry", "list"], arguments].concat());
        let found: Vec<_> = list["entries"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|entry| entry["id"].as_str().expect("an id"))
            .collect();
        assert_eq!(found.len(), expected.len(), "{arguments:?}: {list}");
        for id in expected {
            assert!(found.contains(&id.as_str()), "{arguments:?}: {list}");
        }
        if arguments.is_empty() {
            assert_eq!(found[0], base, "those of the configuration come first");
        }
    }
}

#[test]
fn the_instance_is_found_by_flag_by_variable_and_by_the_folder() {
    let (folder, elsewhere) = (folder(), folder());
    let gate = start(folder.path(), &own_entry("/base"));
    std::os::unix::fs::symlink(&gate.ready.state, elsewhere.path().join(".sidegate"))
        .expect("a link");
    let list = || {
        let mut command = Sidegate::command("identity");
        command.args(["entry", "list"]).env_remove("SIDEGATE_STATE");
        command
    };
    let mut by_folder = list();
    by_folder.current_dir(elsewhere.path());
    let mut by_variable = list();
    by_variable.env("SIDEGATE_STATE", &gate.ready.state);
    let mut by_flag = list();
    by_flag
        .env("SIDEGATE_STATE", "/nowhere")
        .arg("--state")
        .arg(&gate.ready.state);
    for command in [&mut by_folder, &mut by_variable, &mut by_flag] {
        let output = finish(command);
        assert!(output.status.success(), "{command:?}: {output:?}");
        assert!(output.stdout.contains(&spiffe_id("/base")), "{output:?}");
    }
    let output = finish(list().env("SIDEGATE_STATE", "/nowhere"));
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stderr.contains("/nowhere"), "{output:?}");
}

#[test]
fn the_entries_of_the_configuration_are_numbered_and_stay() {
    let folder = folder();
    let entries = own_entry("/one") + &own_entry("/two");
    let gate = start(folder.path(), &entries);
    let operator = Operator::of(&gate);
    operator.create("/three", &own_uid(), &[]);
    for (number, path) in [(1, "/one"), (2, "/two")] {
        let id = format!("configuration-{number}");
        let entry = operator.ask(&["entry", "show", &id]);
        assert_eq!(entry["entry"]["spiffe_id"], spiffe_id(path));
        assert_eq!(entry["origin"], "configuration");
        operator.is_refused(&["entry", "delete", &id], "SG0116");
    }
    let ids = ["/one", "/two", "/three"].map(spiffe_id);
    assert_eq!(issued(&gate), sorted(&ids));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_entry_for_its_component_leaves_a_listener_its_identity() {
    let folder = folder();
    let gate = up(&folder, &[]);
    let probe = format!(
        "component:digest:sha256:{}",
        digest(&sidegate_tests::guest("probe"))
    );
    let shown = gate.ready.listeners[0].spiffe_id.clone();
    let operator = Operator::of(&gate);
    let entry = operator.create("/aaa", &probe, &["--dns-name", "localhost"]);
    assert!(shows(&Client::demo(&gate), &shown).await);
    gate.stop();
    let gate = up(&folder, &[]);
    assert_eq!(gate.ready.listeners[0].spiffe_id, shown);
    assert!(shows(&Client::demo(&gate), &shown).await);
    Operator::of(&gate).delete(&entry);
    assert!(shows(&Client::demo(&gate), &shown).await);
}

/// Whether a listener shows this identity.
async fn shows(client: &Client, spiffe_id: &str) -> bool {
    let stream = client.raw().await;
    let chain = stream.get_ref().1.peer_certificates();
    let leaf = &chain.expect("it shows one")[0];
    let id = spiffe_id.as_bytes();
    leaf.windows(id.len()).any(|part| part == id)
}

/// An instance without listeners, with these entries in its configuration.
fn start(folder: &std::path::Path, entries: &str) -> Sidegate {
    Sidegate::run(&identity_only(folder, entries))
}

/// The SPIFFE IDs that a caller of ours is given, in order.
fn issued(gate: &Sidegate) -> Vec<String> {
    let mut command = Sidegate::command("svid");
    command
        .args(["fetch", "x509", "-o", "json", "--socket"])
        .arg(&gate.ready.workload_socket)
        .env_remove("SPIFFE_ENDPOINT_SOCKET");
    Vec::from_iter(spiffe_ids(&finish(&mut command)))
}

fn sorted(ids: &[String]) -> Vec<String> {
    let mut ids = ids.to_vec();
    ids.sort();
    ids
}
