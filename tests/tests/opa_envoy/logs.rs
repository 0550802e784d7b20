//! The decision logs of both, event by event.

use std::collections::BTreeSet;

use serde_json::Value;

use super::decisions::{POLICY, cases};
use super::{Ask, Pair, Protocol};

/// What OPA adds to a line of its console, and an error, which is compared by itself.
const NOT_COMPARED: [&str; 5] = ["level", "msg", "time", "type", "error"];

/// What Sidegate takes for an answer and the plugin does not: a number that is whole.
const OUR_ANSWERS: [&str; 1] = ["status-point-zero"];

/// Whatever the plugin tells of an answer, Sidegate does: of all of it, metadata and keys that
/// neither knows included. Where the plugin has an error and no result, Sidegate has both.
#[test]
fn every_answer_is_told_alike_in_both_decision_logs() {
    let Some(pair) = Pair::start("every_answer_is_told_alike", POLICY) else {
        return;
    };
    let mut results = 0;
    for case in cases() {
        let target = format!("/{case}/0");
        pair.ask(&Ask::get(&target), Protocol::Http2);
        let [theirs, ours] = pair.events(&target);
        assert_eq!(theirs["path"], ours["path"], "{case}");
        match theirs.get("result") {
            Some(result) => {
                results += 1;
                assert_eq!(Some(result), ours.get("result"), "{case}");
            }
            None if OUR_ANSWERS.contains(&case) => {}
            None => {
                let told = (theirs.get("error"), ours.get("error"));
                assert!(matches!(told, (Some(_), Some(_))), "{case}: {told:?}");
            }
        }
        let ours_has = keys(&ours);
        let missing = keys(&theirs);
        let mut missing = missing.difference(&ours_has);
        assert_eq!(
            missing.find(|key| !NOT_COMPARED.contains(key)),
            None,
            "{case}"
        );
    }
    assert!(results > 40, "the plugin has results: {results}");
    let [theirs, ours] = pair.events("/metadata/0");
    let told = &ours["result"]["dynamic_metadata"];
    assert_eq!(told["user"]["name"], "zoe");
    assert_eq!(told, &theirs["result"]["dynamic_metadata"]);
}

fn keys(event: &Value) -> BTreeSet<&str> {
    let members = event.as_object().expect("an event is an object");
    members.keys().map(String::as_str).collect()
}
