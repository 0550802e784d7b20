//! Two documents, and every difference between them that nobody has explained.

use std::collections::BTreeSet;

use serde_json::Value;

/// Why the two differ at one place, and how.
#[derive(Debug)]
pub(crate) struct Explanation {
    /// The request in question; empty for all.
    pub(crate) case: &'static str,
    /// The place: keys, each after a slash. Empty for the whole.
    pub(crate) at: &'static str,
    pub(crate) how: Difference,
    /// What a reader should know of it.
    pub(crate) why: &'static str,
}

/// How two values differ.
#[derive(Debug)]
pub(crate) enum Difference {
    /// Each has a value of its own, of the same type.
    Own,
    /// Only Envoy, or OPA's plugin, has one.
    OnlyTheirs,
    /// Only Sidegate has one.
    OnlyOurs,
    /// Both have one, of whatever type.
    Whatever,
    /// Exactly theirs, exactly ours, as JSON.
    Between(&'static str, &'static str),
    /// Sidegate refuses with this status what Envoy and OPA do not.
    Refused(u16),
    /// Envoy and OPA refuse with this status what Sidegate does not.
    RefusedByThem(u16),
}

/// Compares documents, by a list of explanations.
#[derive(Debug)]
pub(crate) struct Comparison {
    explanations: Vec<&'static Explanation>,
    needed: BTreeSet<(&'static str, &'static str)>,
    unexplained: Vec<String>,
}

impl Comparison {
    pub(crate) fn new(lists: &[&'static [Explanation]]) -> Self {
        Self {
            explanations: lists.iter().copied().flatten().collect(),
            needed: BTreeSet::new(),
            unexplained: Vec::new(),
        }
    }

    /// Compares the two documents of a request.
    pub(crate) fn compare(&mut self, case: &str, theirs: &Value, ours: &Value) {
        self.descend(case, "", Some(theirs), Some(ours));
    }

    /// Panics with what nothing explains, and with explanations of what did not appear.
    pub(crate) fn finish(mut self) {
        for Explanation { case, at, how, why } in self.explanations {
            // Values of their own may be the same by chance, as a second.
            let must_appear = !matches!(how, Difference::Own);
            if must_appear && !self.needed.contains(&(*case, *at)) {
                self.unexplained
                    .push(format!("{case}: {at}: no such difference: {why}"));
            }
        }
        let lines = self.unexplained.join("\n");
        assert!(self.unexplained.is_empty(), "{lines}");
    }

    fn descend(&mut self, case: &str, at: &str, theirs: Option<&Value>, ours: Option<&Value>) {
        if theirs == ours {
            return;
        }
        let explanation = self.explanations.iter().find(|explanation| {
            (explanation.case.is_empty() || explanation.case == case)
                && explanation.at == at
                && explanation.how.holds(theirs, ours)
        });
        if let Some(Explanation { case, at, .. }) = explanation {
            self.needed.insert((case, at));
            return;
        }
        if let (Some(Value::Object(theirs)), Some(Value::Object(ours))) = (theirs, ours) {
            let keys: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
            for key in keys {
                let at = format!("{at}/{key}");
                self.descend(case, &at, theirs.get(key), ours.get(key));
            }
            return;
        }
        let (theirs, ours) = (shown(theirs), shown(ours));
        self.unexplained
            .push(format!("{case}: {at}: theirs {theirs}, ours {ours}"));
    }
}

impl Difference {
    fn holds(&self, theirs: Option<&Value>, ours: Option<&Value>) -> bool {
        match self {
            Self::Own => match (theirs, ours) {
                (Some(Value::String(_)), Some(Value::String(_)))
                | (Some(Value::Number(_)), Some(Value::Number(_))) => true,
                (Some(Value::Array(theirs)), Some(Value::Array(ours))) => {
                    theirs.len() == ours.len()
                }
                _ => false,
            },
            Self::OnlyTheirs => theirs.is_some() && ours.is_none(),
            Self::OnlyOurs => theirs.is_none() && ours.is_some(),
            Self::Between(these, those) => [(these, theirs), (those, ours)]
                .iter()
                .all(|(text, value)| serde_json::from_str(text).ok().as_ref() == *value),
            Self::Whatever => theirs.is_some() && ours.is_some(),
            Self::Refused(status) => only_one_refuses(ours, theirs, *status),
            Self::RefusedByThem(status) => only_one_refuses(theirs, ours, *status),
        }
    }
}

/// Whether one refuses with a status and does not forward, and the other answers otherwise.
fn only_one_refuses(one: Option<&Value>, other: Option<&Value>, status: u16) -> bool {
    let status_of = |side: Option<&Value>| side?.pointer("/answer/status")?.as_u64();
    let forwarded = one.and_then(|side| side.get("forwarded"));
    let status = Some(u64::from(status));
    status_of(one) == status && status_of(other) != status && forwarded == Some(&Value::Null)
}

fn shown(value: Option<&Value>) -> String {
    let text = value.map_or("nothing".to_owned(), Value::to_string);
    text.chars().take(300).collect()
}
