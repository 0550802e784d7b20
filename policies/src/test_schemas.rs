//! The JSON Schemas in `docs/schemas/`, held against the documents that are
//! built here.
//!
//! What of JSON Schema the schemas use is checked by hand, and whatever is not
//! known here fails the test: so a schema cannot say something that is not
//! held.

use serde_json::Value;

/// A schema by its name in `docs/schemas/`.
pub(crate) fn schema(name: &str) -> Schema {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schemas");
    let text = std::fs::read_to_string(format!("{folder}/{name}.schema.json")).unwrap();
    Schema(serde_json::from_str(&text).unwrap())
}

pub(crate) struct Schema(Value);

impl Schema {
    #[track_caller]
    pub(crate) fn check(&self, document: &Value) {
        let problems = self.problems(&self.0, document, "");
        assert!(problems.is_empty(), "{problems:#?}\n{document:#}");
    }

    #[track_caller]
    pub(crate) fn refuse(&self, document: &Value) {
        let problems = self.problems(&self.0, document, "");
        assert!(!problems.is_empty(), "accepted: {document:#}");
    }

    fn problems(&self, schema: &Value, value: &Value, at: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut problem = |what: String| found.push(format!("{at}: {what}"));
        let Some(schema) = schema.as_object() else {
            assert!(schema.is_boolean(), "{schema}");
            if *schema == false {
                problem(format!("nothing may be here: {value}"));
            }
            return found;
        };
        for (keyword, rule) in schema {
            match keyword.as_str() {
                "$schema" | "$id" | "$defs" | "title" | "description" => {}
                "$ref" => {
                    let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
                    let target = self.0.pointer(pointer).unwrap();
                    found.extend(self.problems(target, value, at));
                }
                "type" => {
                    let types: Vec<&Value> = rule
                        .as_array()
                        .map_or(vec![rule], |all| all.iter().collect());
                    if !types.iter().any(|name| is_a(value, name.as_str().unwrap())) {
                        found.push(format!("{at}: {value} is not {rule}"));
                    }
                }
                "const" if rule != value => found.push(format!("{at}: {value} is not {rule}")),
                "const" => {}
                "enum" if !rule.as_array().unwrap().contains(value) => {
                    found.push(format!("{at}: {value} is not among {rule}"));
                }
                "enum" => {}
                "minimum" | "maximum" => {
                    let (limit, number) = (rule.as_i64().unwrap(), value.as_i64());
                    let fits = number.is_none_or(|number| {
                        if keyword == "minimum" {
                            number >= limit
                        } else {
                            number <= limit
                        }
                    });
                    if !fits {
                        found.push(format!("{at}: {value} is beyond {keyword} {rule}"));
                    }
                }
                "minItems" => {
                    let items = value.as_array().map_or(usize::MAX, Vec::len);
                    if items < usize::try_from(rule.as_u64().unwrap()).unwrap() {
                        found.push(format!("{at}: fewer than {rule}"));
                    }
                }
                "required" => {
                    for name in rule.as_array().unwrap() {
                        let name = name.as_str().unwrap();
                        if value
                            .as_object()
                            .is_some_and(|object| !object.contains_key(name))
                        {
                            found.push(format!("{at}: `{name}` is missing"));
                        }
                    }
                }
                "properties" => {
                    for (name, inner) in rule.as_object().unwrap() {
                        if let Some(member) = value.get(name) {
                            found.extend(self.problems(inner, member, &format!("{at}/{name}")));
                        }
                    }
                }
                "additionalProperties" => {
                    let named = schema.get("properties").and_then(Value::as_object);
                    for (name, member) in value.as_object().into_iter().flatten() {
                        if !named.is_some_and(|named| named.contains_key(name)) {
                            found.extend(self.problems(rule, member, &format!("{at}/{name}")));
                        }
                    }
                }
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        found.extend(self.problems(rule, item, &format!("{at}/{index}")));
                    }
                }
                "anyOf" => {
                    let all: Vec<Vec<String>> = rule
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|one| self.problems(one, value, at))
                        .collect();
                    if all.iter().all(|problems| !problems.is_empty()) {
                        found.extend(all.into_iter().flatten());
                    }
                }
                other => panic!("the keyword `{other}` is not held"),
            }
        }
        found
    }
}

fn is_a(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type: {other}"),
    }
}
