//! Entries in the state directory.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sidegate_tests::{Output, Running, Sidegate, until};

use super::{issued, start};
use crate::admin::Api;
use crate::support::{Operator, folder, identity_only, own_entry, own_uid, spiffe_id, write};

#[test]
fn entries_are_kept_over_a_stop_and_over_a_kill_and_removed_ones_stay_away() {
    let folder = folder();
    let mut gate = start(folder.path(), &own_entry("/base"));
    let mut ids = BTreeSet::from([spiffe_id("/base")]);
    let mut removed: Option<String> = None;
    for (count, signal) in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGKILL]
        .into_iter()
        .enumerate()
    {
        let operator = Operator::of(&gate);
        if let Some(removed) = removed.take() {
            operator.delete(&removed);
            ids.remove(&spiffe_id(&format!("/{}", count - 1)));
        }
        let path = format!("/{count}");
        removed = Some(operator.create(&path, &own_uid(), &["--hint", "kept"]));
        ids.insert(spiffe_id(&path));
        let mut before = operator.entries();
        gate.process.signal(signal);
        gate.process.wait();

        gate = start(folder.path(), &own_entry("/base"));
        let mut after = Operator::of(&gate).entries();
        for list in [&mut before, &mut after] {
            // It is made anew with each start.
            list[0]["created_at"] = Value::Null;
        }
        assert_eq!(after, before, "{signal}");
        assert_eq!(BTreeSet::from_iter(issued(&gate)), ids, "{signal}");
    }
    let file = gate.ready.state.join("entries.json");
    let mode = fs::metadata(file).expect("it is kept").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn an_entry_that_stands_in_the_configuration_later_counts_as_the_configurations() {
    let folder = folder();
    let gate = start(folder.path(), "");
    Operator::of(&gate).create("/later", &own_uid(), &["--hint", "run time"]);
    gate.stop();
    let gate = start(folder.path(), &own_entry("/later"));
    let operator = Operator::of(&gate);
    crate::support::logged(&gate, &["SG0118"]);
    assert_eq!(issued(&gate), [spiffe_id("/later")]);
    let shown = operator.ask(&["entry", "show", "configuration-1"]);
    assert_eq!(shown["entry"]["hint"], "", "{shown}");
    assert_eq!(operator.entries(), [shown]);
}

#[test]
fn a_hundred_entries_that_are_made_at_once_are_all_there_and_kept() {
    let folder = folder();
    let gate = start(folder.path(), "");
    let api = Api::of(&gate);
    let made = at_once(100, |number| {
        let entry = json!({
            "spiffe_id": spiffe_id(&format!("/{number}")),
            "selectors": [own_uid()],
        });
        let answer = api.post("/v1/entries", &json!({ "entry": entry }));
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.body["id"].as_str().expect("an id").to_owned()
    });
    let ids: BTreeSet<_> = made.iter().cloned().collect();
    assert_eq!(ids.len(), 100, "each has an id of its own");
    let listed = |gate: &Sidegate| -> BTreeSet<String> {
        let entries = Operator::of(gate).entries().into_iter();
        let id = |entry: Value| entry["id"].as_str().expect("an id").to_owned();
        entries.map(id).collect()
    };
    assert_eq!(listed(&gate), ids);
    let expected: BTreeSet<_> = (0..100)
        .map(|number| spiffe_id(&format!("/{number}")))
        .collect();
    assert_eq!(BTreeSet::from_iter(issued(&gate)), expected);

    gate.process.signal(Signal::SIGKILL);
    gate.process.wait();
    let gate = start(folder.path(), "");
    assert_eq!(listed(&gate), ids);
    assert_eq!(BTreeSet::from_iter(issued(&gate)), expected);
    let api = Api::of(&gate);
    at_once(100, |number| {
        let answer = api.delete(&format!("/v1/entries/{}", made[number]));
        assert_eq!(answer.status, 200, "{answer:?}");
    });
    assert_eq!(Operator::of(&gate).entries(), [] as [Value; 0]);
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    let folder = folder();
    let mut gate = start(folder.path(), "");
    let mut made = BTreeSet::new();
    for round in 0..3 {
        let api = Api::of(&gate);
        std::thread::scope(|scope| {
            let (sender, receiver) = std::sync::mpsc::channel();
            let worker = scope.spawn(move || {
                // Until nobody answers any more.
                for number in 0.. {
                    let id = format!("{round}-{number}");
                    let path = spiffe_id(&format!("/{id}"));
                    match api.try_create(&id, &path, "unix:uid:1") {
                        Some(201) => sender.send(id).expect("it is awaited"),
                        Some(status) => panic!("{status}"),
                        None => return,
                    }
                }
            });
            made.extend(receiver.iter().take(10));
            gate.process.signal(Signal::SIGKILL);
            made.extend(receiver.iter());
            worker.join().expect("it ends well");
        });
        gate.process.wait();
        gate = start(folder.path(), "");
        let kept = Operator::of(&gate).entries().into_iter();
        let kept: BTreeSet<_> = kept
            .map(|entry| entry["id"].as_str().expect("an id").to_owned())
            .collect();
        assert!(kept.is_superset(&made), "{made:?} {kept:?}");
        // The one that was on its way may be there too.
        assert!(kept.len() <= made.len() + 1, "{made:?} {kept:?}");
        made = kept;
    }
}

#[test]
fn of_many_that_want_the_same_at_once_one_gets_it() {
    let folder = folder();
    let gate = start(folder.path(), "");
    let api = Api::of(&gate);
    let same_entry = at_once(16, |number| {
        api.create(&format!("id-{number}"), &spiffe_id("/same"), "unix:uid:1")
    });
    let same_id = at_once(16, |number| {
        let selector = format!("unix:uid:{number}");
        api.create("same", &spiffe_id("/other"), &selector)
    });
    for (answers, code) in [(same_entry, "SG0112"), (same_id, "SG0117")] {
        let (made, refused): (Vec<_>, Vec<_>) =
            answers.iter().partition(|answer| answer.status == 201);
        assert_eq!(made.len(), 1, "{code}: {answers:?}");
        for answer in refused {
            answer.is_error(409, code);
        }
    }
    let gone = at_once(16, |_| api.delete("/v1/entries/same").status);
    assert_eq!(gone.iter().filter(|&&status| status == 200).count(), 1);
    assert_eq!(gone.iter().filter(|&&status| status == 404).count(), 15);
    assert_eq!(Operator::of(&gate).entries().len(), 1);
}

#[test]
fn a_damaged_file_of_entries_is_refused_at_start_and_left_as_it_is() {
    let folder = folder();
    let gate = start(folder.path(), "");
    Operator::of(&gate).create("/one", &own_uid(), &["--dns-name", "one.example"]);
    gate.stop();
    let file = folder.path().join("state/entries.json");
    let good = fs::read_to_string(&file).expect("it is kept");
    let document: Value = serde_json::from_str(&good).expect("it is JSON");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut changed = document.clone();
        change(&mut changed);
        changed.to_string()
    };
    let set = |at: &'static str, value: Value| {
        with(&|document| *document.pointer_mut(at).expect("it is there") = value.clone())
    };
    let mut cases = vec![
        String::new(),
        "{}".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        "\0".repeat(good.len()),
        good[..good.len() / 2].to_owned(),
        format!("{good}{good}"),
        with(&|document| document["unknown"] = json!(1)),
        with(&|document| document["entries"][0]["unknown"] = json!(1)),
        with(&|document| document["entries"][0]["entry"]["unknown"] = json!(1)),
        // The same entry twice, and the same id for another.
        with(&|document| {
            let mut again = document["entries"][0].clone();
            again["id"] = json!("again");
            document["entries"].as_array_mut().unwrap().push(again);
        }),
        with(&|document| {
            let mut again = document["entries"][0].clone();
            again["entry"]["spiffe_id"] = json!(spiffe_id("/again"));
            document["entries"].as_array_mut().unwrap().push(again);
        }),
        // Well-formed, but not allowed.
        set("/format", json!(2)),
        set("/entries/0/id", json!("configuration-1")),
        set("/entries/0/id", json!("a/b")),
        set("/entries/0/entry/spiffe_id", json!("spiffe://elsewhere/a")),
        set("/entries/0/entry/spiffe_id", json!(spiffe_id("/spire/a"))),
        set("/entries/0/entry/selectors", json!([])),
        set(
            "/entries/0/entry/selectors",
            json!(["component:name:probe"]),
        ),
        set("/entries/0/entry/dns_names", json!(["A.b"])),
        set("/entries/0/entry/x509_svid_ttl", json!(1)),
        set("/entries/0/entry/federates_with", json!(["sidegate.local"])),
    ];
    for at in ["", "/entries/0", "/entries/0/entry"] {
        let object = document.pointer(at).unwrap().as_object().unwrap();
        for member in object.keys() {
            cases.push(with(&|document| {
                document.pointer_mut(at).unwrap()[member] = json!({"spoiled": true});
            }));
        }
    }
    for member in ["format", "trust_domain", "entries"] {
        cases.push(with(&|document| {
            document.as_object_mut().unwrap().remove(member);
        }));
    }
    let config = identity_only(folder.path(), "");
    for content in cases {
        write(folder.path(), "state/entries.json", &content);
        let output = refused(&config);
        let code = "error[SG0137]";
        assert!(output.stderr.contains(code), "{content}: {output:?}");
        assert!(output.stderr.contains("entries.json"), "{output:?}");
        assert_eq!(fs::read_to_string(&file).unwrap(), content);
        assert!(!folder.path().join("workload.sock").exists(), "{content}");
    }
    write(folder.path(), "state/entries.json", &good);
    let gate = start(folder.path(), "");
    assert_eq!(issued(&gate), [spiffe_id("/one")]);
}

#[test]
fn the_entries_of_another_trust_domain_are_refused() {
    let folder = folder();
    let gate = start(folder.path(), "");
    Operator::of(&gate).create("/one", &own_uid(), &[]);
    gate.stop();
    let file = folder.path().join("state/entries.json");
    let foreign = fs::read_to_string(&file).unwrap();
    let foreign = foreign.replace("sidegate.local", "elsewhere");
    fs::write(&file, &foreign).unwrap();
    let output = refused(&identity_only(folder.path(), ""));
    assert!(output.stderr.contains("elsewhere"), "{output:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), foreign);
}

#[test]
fn an_entry_that_cannot_be_kept_is_not_made() {
    let folder = folder();
    let gate = start(folder.path(), &own_entry("/base"));
    let operator = Operator::of(&gate);
    // A directory is in the way of the file.
    let file = gate.ready.state.join("entries.json");
    fs::create_dir(&file).expect("there is no file yet");
    write(&file, "in-the-way", "");
    let id = spiffe_id("/new");
    let create = ["entry", "create", "--spiffe-id", &id, "--selector"];
    operator.is_refused(&[&create[..], &[&own_uid()]].concat(), "SG0136");
    assert_eq!(operator.entries().len(), 1);
    assert_eq!(issued(&gate), [spiffe_id("/base")]);
    fs::remove_dir_all(&file).expect("it is ours");
    operator.create("/new", &own_uid(), &[]);
    assert_eq!(issued(&gate), [spiffe_id("/base"), spiffe_id("/new")]);
}

/// A start that must fail, with exit code 2 and nothing on standard output.
pub(crate) fn refused(config: &std::path::Path) -> Output {
    let mut command = Sidegate::command("run");
    let mut process = Running::start(command.args(["-o", "json", "--config"]).arg(config));
    until("a refusal", || {
        let ready = !process.stdout().is_empty();
        (ready || !process.is_running()).then_some(())
    });
    if process.is_running() {
        process.signal(Signal::SIGTERM);
    }
    let output = process.wait();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(output.stdout, "", "{output:?}");
    output
}

/// Does something this often at the same time, each time with its number.
fn at_once<T: Send>(count: usize, action: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = std::sync::Barrier::new(count);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..count)
            .map(|number| {
                let (start, action) = (&start, &action);
                scope.spawn(move || {
                    start.wait();
                    action(number)
                })
            })
            .collect();
        let results = workers.into_iter().map(|worker| worker.join());
        results.collect::<Result<_, _>>().expect("all went well")
    })
}
