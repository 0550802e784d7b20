//! What becomes of the policy's answer: at the caller, and at the server behind.

use super::difference::Comparison;
use super::explained::{ANSWER, DECISIONS, FORWARDED, QUERIES};
use super::{Ask, Pair, Protocol};

/// One rule for each first segment of the path.
pub(super) const POLICY: &str = include_str!("policies/decisions.rego");

/// The segments that it has rules for, and one that it has none for.
pub(super) fn cases() -> impl Iterator<Item = &'static str> {
    let rules = POLICY
        .lines()
        .filter_map(|line| line.split_once("case == \""));
    let named = rules.filter_map(|(_, rest)| rest.split('"').next());
    named.chain(["undefined"])
}

#[test]
fn every_answer_has_the_same_effect_on_caller_and_upstream() {
    let Some(pair) = Pair::start("every_answer_has_the_same_effect", POLICY) else {
        return;
    };
    let mut comparison = Comparison::new(&[&ANSWER, &FORWARDED, &DECISIONS, &QUERIES]);
    for case in cases() {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let ask = Ask::get(&format!("/{case}/0?q=old&s=1&q=older"))
                .header("x-secret", b"word")
                .header("x-tenant", b"forged");
            let outcomes = pair.ask(&ask, protocol);
            let [theirs, ours] = outcomes.map(|outcome| outcome.document(false));
            comparison.compare(case, &theirs, &ours);
        }
    }
    comparison.finish();
}
