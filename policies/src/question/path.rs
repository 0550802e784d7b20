//! The ways to name a rule: `envoy/authz/allow` and `data.envoy.authz.allow`.

use regorus::Value;

use crate::error::PolicyError;
use crate::sources::PolicySources;
use crate::syntax::{RuleKind, RulePath, Syntax, rule_reference};

/// The components of a package and a rule.
pub(crate) fn entrypoint_path(entrypoint: &str) -> Result<RulePath, PolicyError> {
    let path = path(entrypoint)?;
    if path.len() < 2 {
        return Err(syntax_error(entrypoint));
    }
    Ok(path)
}

/// The same, if there is a rule that can be asked.
pub(crate) fn entrypoint_rule(
    entrypoint: &str,
    syntax: &Syntax<'_>,
) -> Result<RulePath, PolicyError> {
    let path = entrypoint_path(entrypoint)?;
    let rules = syntax.rules();
    let mut rules = rules
        .iter()
        .filter(|rule| !matches!(rule.kind, RuleKind::Function(_)));
    if rules.any(|rule| rule.path.starts_with(&path)) {
        Ok(path)
    } else {
        Err(missing(entrypoint, &path))
    }
}

/// What can be asked: a rule, a package, data, or a part of one of them.
pub(super) fn question_path(
    asked: &str,
    syntax: &Syntax<'_>,
    sources: &PolicySources,
) -> Result<RulePath, PolicyError> {
    let path = path(asked)?;
    let rules = syntax.rules();
    let mut rules = rules.iter().filter(|rule| match rule.kind {
        // A function has no value of its own.
        RuleKind::Function(_) => rule.path.len() > path.len(),
        RuleKind::Complete | RuleKind::Partial | RuleKind::Default => true,
    });
    if rules.any(|rule| rule.path.starts_with(&path) || path.starts_with(&rule.path)) {
        return Ok(path);
    }
    for document in sources.documents() {
        let (_, value) = document?;
        if is_there(&value, &path) {
            return Ok(path);
        }
    }
    Err(missing(asked, &path))
}

/// The rule whose name is most like one that is not there, in the same way of
/// writing.
pub(crate) fn likely_meant(asked: &str, syntax: &Syntax<'_>) -> Option<String> {
    let rules = syntax.rules();
    let names = rules
        .iter()
        .filter(|rule| !matches!(rule.kind, RuleKind::Function(_)))
        .map(|rule| match is_reference(asked) {
            true => rule_reference(&rule.path),
            false => rule.path.join("/"),
        });
    let allowed = (asked.chars().count() / 4).clamp(1, 6);
    let distances = names.map(|name| (strsim::damerau_levenshtein(asked, &name), name));
    let best = distances.min_by_key(|(distance, _)| *distance);
    best.filter(|(distance, _)| *distance <= allowed)
        .map(|(_, name)| name)
}

fn is_reference(asked: &str) -> bool {
    asked.starts_with("data.") || asked.starts_with("data[")
}

fn path(asked: &str) -> Result<RulePath, PolicyError> {
    let path = match asked.strip_prefix("data").filter(|_| is_reference(asked)) {
        Some(rest) => reference_path(rest),
        None => {
            let path = asked.strip_prefix('/').unwrap_or(asked).split('/');
            Some(path.map(str::to_owned).collect())
        }
    };
    path.filter(|path: &RulePath| !path.iter().any(String::is_empty))
        .ok_or_else(|| syntax_error(asked))
}

/// What follows `data`, such as `.a["b.c"]`.
fn reference_path(mut rest: &str) -> Option<RulePath> {
    let mut path = RulePath::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let word = |it: char| it.is_ascii_alphanumeric() || it == '_';
            let end = after.find(|it| !word(it)).unwrap_or(after.len());
            let (name, after) = after.split_at_checked(end)?;
            path.push(name.to_owned());
            rest = after;
        } else {
            let after = rest.strip_prefix('[')?;
            let mut texts = serde_json::Deserializer::from_str(after).into_iter::<String>();
            path.push(texts.next()?.ok()?);
            rest = after.get(texts.byte_offset()..)?.strip_prefix(']')?;
        }
    }
    Some(path)
}

fn is_there(document: &Value, path: &[String]) -> bool {
    match (path.split_first(), document) {
        (None, _) => true,
        (Some((name, rest)), Value::Object(members)) => members
            .get(&Value::from(name.as_str()))
            .is_some_and(|member| is_there(member, rest)),
        (Some(_), _) => false,
    }
}

fn missing(asked: &str, path: &RulePath) -> PolicyError {
    PolicyError::EntrypointMissing {
        entrypoint: asked.to_owned(),
        rule: rule_reference(path),
    }
}

fn syntax_error(asked: &str) -> PolicyError {
    PolicyError::EntrypointSyntax {
        entrypoint: asked.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_named_in_either_way() {
        for (asked, expected) in [
            ("envoy/authz/allow", Some(&["envoy", "authz", "allow"][..])),
            ("/a/b", Some(&["a", "b"])),
            ("data.a.b_1", Some(&["a", "b_1"])),
            (r#"data["a.b"].c["]\""]"#, Some(&["a.b", "c", "]\""])),
            ("database/x", Some(&["database", "x"])),
            ("data", Some(&["data"])),
            ("", None),
            ("a//b", None),
            ("data.", None),
            ("data.a-b", None),
            ("data.a[0]", None),
            ("data.a[\"b\"", None),
            ("data.a..b", None),
        ] {
            let found = path(asked).ok();
            let expected = expected.map(|path| path.iter().map(|it| (*it).to_owned()).collect());
            assert_eq!(found, expected, "{asked}");
        }
    }
}
