//! Query parameters in a decision.

use http::Uri;
use http::uri::PathAndQuery;
use regorus::Value;

use super::{DecisionError, each, string};
use crate::input::url;

const SET: &str = "query_parameters_to_set";
const REMOVE: &str = "query_parameters_to_remove";

/// What the policy changes in the query of the request target.
///
/// As in Envoy parameters are set before others are removed, a name that is
/// set twice keeps its last value, and what is set is URL-encoded already. All
/// other parameters stay as they came, byte by byte and in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct QueryEdits {
    set: Vec<(String, String)>,
    remove: Vec<String>,
}

impl QueryEdits {
    /// Reads `query_parameters_to_set`: a map of names to one value or
    /// several, or a list of such maps.
    pub(super) fn set(&mut self, value: &Value) -> Result<(), DecisionError> {
        match value {
            Value::Object(_) => self.set_all(value),
            Value::Array(maps) => maps.iter().try_for_each(|map| self.set_all(map)),
            Value::Set(maps) => maps.iter().try_for_each(|map| self.set_all(map)),
            _ => Err(NO_PARAMETERS),
        }
    }

    fn set_all(&mut self, map: &Value) -> Result<(), DecisionError> {
        let Value::Object(map) = map else {
            return Err(NO_PARAMETERS);
        };
        for (name, values) in map.iter_sorted() {
            let name = string(SET, name)?;
            each(values, &mut |value| {
                let value = string(SET, value)?;
                if name.contains('=') || !is_encoded(name) || !is_encoded(value) {
                    let parameter = name.escape_debug().to_string();
                    return Err(DecisionError::QueryParameter { parameter });
                }
                self.set.retain(|(earlier, _)| !is_named(earlier, name));
                self.set.push((name.to_owned(), value.to_owned()));
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Reads `query_parameters_to_remove`: a list of names.
    pub(super) fn remove(&mut self, value: &Value) -> Result<(), DecisionError> {
        if !matches!(value, Value::Array(_) | Value::Set(_)) {
            return Err(DecisionError::ValueType {
                key: REMOVE,
                expected: "a list of strings",
            });
        }
        each(value, &mut |name| {
            self.remove.push(string(REMOVE, name)?.to_owned());
            Ok(())
        })
    }

    /// The target with these edits; `None` where there are none.
    ///
    /// The path stays as it is, and what is set was checked: so the target is
    /// one that could have been asked for, unless it is too long.
    pub(crate) fn apply(&self, target: &Uri) -> Result<Option<Uri>, DecisionError> {
        if self.set.is_empty() && self.remove.is_empty() {
            return Ok(None);
        }
        let whole = target.path_and_query().map_or("/", PathAndQuery::as_str);
        let (path, query) = whole.split_once('?').unwrap_or((whole, ""));
        let is_removed = |name: &str| self.remove.iter().any(|removed| is_named(name, removed));
        let kept = query
            .split('&')
            .filter(|parameter| !parameter.is_empty())
            .filter(|parameter| {
                let (name, _) = parameter.split_once('=').unwrap_or((parameter, ""));
                !is_removed(name) && !self.set.iter().any(|(set, _)| is_named(name, set))
            })
            .map(str::to_owned);
        let set = self.set.iter().filter(|(name, _)| !is_removed(name));
        let query: Vec<String> = kept
            .chain(set.map(|(name, value)| format!("{name}={value}")))
            .collect();
        let edited = if query.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{}", query.join("&"))
        };
        let mut parts = target.clone().into_parts();
        parts.path_and_query =
            Some(PathAndQuery::try_from(edited).map_err(|_| DecisionError::Target)?);
        Uri::from_parts(parts)
            .map(Some)
            .map_err(|_| DecisionError::Target)
    }
}

const NO_PARAMETERS: DecisionError = DecisionError::ValueType {
    key: SET,
    expected: "an object or a list of objects",
};

/// Whether a parameter's name, as it is written in a query, is the one that
/// the policy means: written the same, or the same once it is unescaped.
/// Otherwise a caller could keep what the policy removes by escaping it.
fn is_named(written: &str, meant: &str) -> bool {
    let name = url::unescape_parameter(written);
    written == meant
        || name.as_deref() == Ok(meant)
        || name.is_ok() && name == url::unescape_parameter(meant)
}

/// Whether a name or value may stand in a query as it is (RFC 3986 section
/// 3.4), without ending the parameter, and means UTF-8.
fn is_encoded(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$'()*+,=:@/?%".contains(&byte))
        && url::unescape_parameter(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(set: &str, remove: &str) -> Result<QueryEdits, DecisionError> {
        let mut edits = QueryEdits::default();
        edits.set(&Value::from_json_str(set).unwrap())?;
        edits.remove(&Value::from_json_str(remove).unwrap())?;
        Ok(edits)
    }

    #[test]
    fn a_query_is_edited_as_envoy_edits_it() {
        let cases = [
            ("/a?b=1&c=2", "{}", "[]", "/a?b=1&c=2"),
            ("/a", r#"{"b": "1"}"#, "[]", "/a?b=1"),
            ("/a?", r#"{"b": "1"}"#, "[]", "/a?b=1"),
            ("/a?b=1&c=2&b=3", r#"{"b": "4"}"#, "[]", "/a?c=2&b=4"),
            ("/a?b=1", r#"{"b": ["2", "3"]}"#, "[]", "/a?b=3"),
            ("/a", r#"[{"b": "1"}, {"c": "2"}]"#, "[]", "/a?b=1&c=2"),
            ("/a", r#"[{"b": "1"}, {"b": "2"}]"#, "[]", "/a?b=2"),
            ("/a?b=1&c=2", "{}", r#"["b"]"#, "/a?c=2"),
            ("/a?b=1&b=2", "{}", r#"["b"]"#, "/a"),
            ("/a?b", "{}", r#"["b", "x"]"#, "/a"),
            ("/a?B=1", "{}", r#"["b"]"#, "/a?B=1"),
            ("/a?x=1", r#"{"b": "1"}"#, r#"["b"]"#, "/a?x=1"),
            (
                "/a?b=%2F+%2f&c=",
                r#"{"d": ""}"#,
                "[]",
                "/a?b=%2F+%2f&c=&d=",
            ),
            (
                "/a",
                r#"{"b": "J%C3%BCrgen+R"}"#,
                "[]",
                "/a?b=J%C3%BCrgen+R",
            ),
            // An escape does not hide a parameter.
            ("/a?%62=1&c=2", "{}", r#"["b"]"#, "/a?c=2"),
            ("/a?b+c=1&b%20c=2", "{}", r#"["b c"]"#, "/a"),
            ("/a?b+c=1&b%20c=2", "{}", r#"["b%20c"]"#, "/a"),
            ("/a?%62=1", r#"{"b": "2"}"#, "[]", "/a?b=2"),
        ];
        for (target, set, remove, expected) in cases {
            let edits = edits(set, remove).unwrap();
            let target: Uri = target.parse().unwrap();
            let edited = edits.apply(&target).unwrap().unwrap_or(target.clone());
            assert_eq!(edited, expected, "{target} {set} {remove}");
        }
    }

    #[test]
    fn what_would_not_stay_one_parameter_is_refused() {
        for value in [
            "a&b=c", "a;b", "a#b", "a b", "a\nb", "ü", "%", "%2", "%zz", "%ff", "a\"b", "<", "\\",
        ] {
            let set = serde_json::json!({ "name": value }).to_string();
            let parameter = "name".to_owned();
            let refused = Err(DecisionError::QueryParameter { parameter });
            assert_eq!(edits(&set, "[]"), refused, "{value}");
        }
        let parameter = "a=b".to_owned();
        let refused = Err(DecisionError::QueryParameter { parameter });
        assert_eq!(edits(r#"{"a=b": "c"}"#, "[]"), refused);
    }

    #[test]
    fn a_target_that_gets_too_long_is_refused() {
        let set = serde_json::json!({ "name": "a".repeat(70_000) }).to_string();
        let edits = edits(&set, "[]").unwrap();
        let applied = edits.apply(&Uri::from_static("/"));
        assert_eq!(applied, Err(DecisionError::Target));
    }
}
