//! The `admit` decision point: may this component be started, as this workload
//! and with these capabilities?

use std::fmt;

use regorus::Value;
use uuid::Uuid;

use super::answer::Answer;
use crate::denial::DenialReason;
use crate::evaluator::Evaluator;
use crate::input::{Members, set_string};

/// A component that is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmitFacts {
    /// `sha256:<hex>` of its file.
    pub digest: String,
    /// The id of the key that signed it, if its signature was verified.
    pub signer: Option<String>,
    /// Where it came from, as `host/path`, if it came from a registry.
    pub repository: Option<String>,
    /// The namespace that it is deployed to.
    pub namespace: String,
    /// What it is called there. Whoever may deploy chooses it.
    pub name: String,
    /// The SPIFFE ID that it is to have, if any.
    pub requested_identity: Option<String>,
    /// What it wants to be granted, by name.
    pub capabilities: Vec<String>,
}

/// A component that may be started. Only an [`Evaluator`] makes one.
#[derive(Debug)]
#[must_use = "a component that may be started and is not"]
pub struct Admission {
    decision_id: Uuid,
    generation: u64,
}

/// A component that must not be started.
#[derive(Debug)]
pub struct AdmitDenial {
    /// Why, for metrics.
    pub reason: DenialReason,
    /// What the policy says about it to the operator.
    pub explanation: Option<String>,
    /// Identifies the decision.
    pub decision_id: Uuid,
    /// The policy generation that decided.
    pub generation: u64,
}

impl Admission {
    /// Identifies the decision.
    #[must_use]
    pub fn decision_id(&self) -> Uuid {
        self.decision_id
    }

    /// The policy generation that decided.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

impl fmt::Display for AdmitDenial {
    /// For the operator: it may name rules and files.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.reason, &self.explanation) {
            (DenialReason::Policy, Some(explanation)) => write!(
                formatter,
                "the policy denies the component: {}",
                explanation.escape_debug()
            ),
            (DenialReason::Policy, None) => formatter.write_str("the policy denies the component"),
            (DenialReason::Undefined, _) => {
                formatter.write_str("the policy's admit rule is undefined for the component")
            }
            (reason, _) => reason.fmt(formatter),
        }
    }
}

impl Evaluator {
    /// Asks the policy about a component that is to be started. The policy was
    /// loaded with the entrypoint of [`Admit`](crate::DecisionPoint::Admit).
    ///
    /// # Errors
    ///
    /// An [`AdmitDenial`] whenever the policy does not clearly allow it.
    pub fn admit(&mut self, component: &AdmitFacts) -> Result<Admission, Box<AdmitDenial>> {
        let (decision_id, generation) = (Uuid::new_v4(), self.generation());
        let (reason, explanation) = match self.ask(document(component)) {
            Ok(value) => match Answer::parse(&value) {
                Ok(Answer { allowed: true, .. }) => {
                    return Ok(Admission {
                        decision_id,
                        generation,
                    });
                }
                Ok(Answer { reason, .. }) => (DenialReason::Policy, reason),
                Err(error) => (DenialReason::InvalidDecision(error), None),
            },
            Err(reason) => (reason, None),
        };
        Err(Box::new(AdmitDenial {
            reason,
            explanation,
            decision_id,
            generation,
        }))
    }
}

/// The input document. What is not known is not in it.
fn document(facts: &AdmitFacts) -> Value {
    let optional = |text: &'_ Option<String>| text.clone().unwrap_or_default();
    let mut component = Members::new();
    for (key, value) in [
        ("digest", facts.digest.clone()),
        ("signer", optional(&facts.signer)),
        ("repository", optional(&facts.repository)),
        ("namespace", facts.namespace.clone()),
        ("name", facts.name.clone()),
        ("requested_identity", optional(&facts.requested_identity)),
    ] {
        set_string(&mut component, &key.into(), &value);
    }
    let capabilities = facts.capabilities.iter();
    let capabilities: Vec<Value> = capabilities.map(|name| name.as_str().into()).collect();
    component.insert("capabilities".into(), Value::from(capabilities));
    Members::from([("component".into(), Value::from(component))]).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_schemas::schema;

    #[test]
    fn the_document_is_the_one_of_its_schema() {
        let bare = AdmitFacts {
            digest: format!("sha256:{}", "0a".repeat(32)),
            signer: None,
            repository: None,
            namespace: "default".into(),
            name: "hello".into(),
            requested_identity: None,
            capabilities: Vec::new(),
        };
        let found = serde_json::to_value(document(&bare)).unwrap();
        let expected = serde_json::json!({"component": {
            "digest": bare.digest, "namespace": "default", "name": "hello", "capabilities": [],
        }});
        assert_eq!(found, expected);
        schema("admit.input").check(&found);

        let full = AdmitFacts {
            signer: Some("key-1".into()),
            repository: Some("registry.example/shop/hello".into()),
            requested_identity: Some("spiffe://sidegate.local/hello".into()),
            capabilities: vec!["egress".into()],
            ..bare
        };
        let found = serde_json::to_value(document(&full)).unwrap();
        let component = found["component"].as_object().unwrap();
        assert_eq!(component.len(), 7, "{found}");
        schema("admit.input").check(&found);
    }
}
