//! The answer of the decision points that edit nothing: a boolean, or an
//! object of `allowed` and, for the operator's log, `reason`.

use regorus::Value;

use crate::decision::{DecisionError, type_name};

/// An answer that can be carried out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) allowed: bool,
    pub(crate) reason: Option<String>,
}

impl Answer {
    /// Reads an answer that is not undefined. Every key is checked, whatever
    /// the verdict; these decision points are our own, so none is unknown.
    pub(crate) fn parse(value: &Value) -> Result<Self, DecisionError> {
        let object = match value {
            Value::Bool(allowed) => {
                return Ok(Self {
                    allowed: *allowed,
                    reason: None,
                });
            }
            Value::Object(object) => object,
            other => {
                return Err(DecisionError::Type {
                    found: type_name(other),
                });
            }
        };
        let (mut allowed, mut reason) = (None, None);
        for (key, value) in object.iter() {
            let Value::String(key) = key else {
                return Err(DecisionError::Key {
                    key: type_name(key).to_owned(),
                });
            };
            match (key.as_ref(), value) {
                ("allowed", Value::Bool(value)) => allowed = Some(*value),
                ("allowed", _) => {
                    return Err(DecisionError::ValueType {
                        key: "allowed",
                        expected: "a boolean",
                    });
                }
                ("reason", Value::String(value)) => reason = Some(value.to_string()),
                ("reason", _) => {
                    return Err(DecisionError::ValueType {
                        key: "reason",
                        expected: "a string",
                    });
                }
                (other, _) => {
                    return Err(DecisionError::Key {
                        key: other.escape_debug().to_string(),
                    });
                }
            }
        }
        Ok(Self {
            allowed: allowed.ok_or(DecisionError::AllowedMissing)?,
            reason,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_schemas::schema;

    #[test]
    fn what_can_be_carried_out_is_what_the_schemas_allow() {
        let answers = [
            ("true", Some((true, None))),
            ("false", Some((false, None))),
            (r#"{"allowed": true}"#, Some((true, None))),
            (
                r#"{"allowed": false, "reason": "unknown signer"}"#,
                Some((false, Some("unknown signer"))),
            ),
            ("null", None),
            ("\"true\"", None),
            ("1", None),
            ("[true]", None),
            ("{}", None),
            (r#"{"reason": "x"}"#, None),
            (r#"{"allowed": "true"}"#, None),
            (r#"{"allowed": true, "reason": 1}"#, None),
            (r#"{"allowed": true, "headers": {}}"#, None),
        ];
        for (text, expected) in answers {
            let parsed = Answer::parse(&Value::from_json_str(text).unwrap());
            let expected = expected.map(|(allowed, reason)| Answer {
                allowed,
                reason: reason.map(str::to_owned),
            });
            assert_eq!(parsed.ok(), expected, "{text}");
            for name in ["connect.result", "admit.result"] {
                let json = serde_json::from_str(text).unwrap();
                match expected {
                    Some(_) => schema(name).check(&json),
                    None => schema(name).refuse(&json),
                }
            }
        }
        let key = Value::from_json_str(r#"{"allowed": true}"#).unwrap();
        let odd = Value::from(std::collections::BTreeMap::from([
            (key, Value::Bool(true)),
            ("allowed".into(), Value::Bool(true)),
        ]));
        assert!(Answer::parse(&odd).is_err());
    }
}
