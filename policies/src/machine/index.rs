//! An index for rules of many definitions.
//!
//! The machine tries one definition after another. Where a rule is `true` by many of them, most of
//! which ask for a certain value of the same reference (`input.parsed_path == ["orders", "17"]`),
//! the machine's copy has them in small groups, under names of their own, and rules that lead to
//! the group by comparisons with that reference:
//!
//! ```rego
//! allow if allow__0_0
//! allow__0_0 if { input.parsed_path <= ["orders", "17"]; allow__0_1 }
//! allow__0_0 if { input.parsed_path > ["orders", "17"]; allow__0_2 }
//! ```
//!
//! Values of all types are in one order, so a value leads to the one group that may hold its equal.

use std::collections::{BTreeMap, BTreeSet};

use regorus::Value;
use serde_json::Value as Json;

use crate::syntax::{
    Insertions, Module, RulePath, StandIns, Syntax, items, offset, reaches, stand_in_rules,
    text_of, whole_path,
};

/// How many definitions stay together. To try one costs a machine about as much as two steps to it.
const GROUP: usize = 8;

/// A definition of a rule, as far as the index has to do with it.
#[derive(Clone)]
struct Definition<'a> {
    /// Where its name ends in the module's text.
    name_end: usize,
    /// Whether `if` stands before the body: Rego v0 may do without.
    has_keyword: bool,
    /// The values that it asks for, by reference.
    asks: BTreeMap<&'a str, Asked<'a>>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Asked<'a> {
    value: Value,
    text: &'a str,
}

/// What becomes of one rule in one module.
struct Index<'a> {
    rule: &'a str,
    /// Between the head of a rule and its body: nothing in modules of Rego v0.
    keyword: &'static str,
    /// The module's number, which makes names differ from those in other modules.
    module: usize,
    names: usize,
    insertions: Insertions,
    /// The rules that lead to the groups.
    rules: String,
}

/// Puts indexes into a module's copy, for its rules of many definitions. `entrypoints` are what is
/// asked for.
pub(super) fn index(
    syntax: &Syntax<'_>,
    number: usize,
    entrypoints: &[&[String]],
    insertions: &mut Insertions,
) {
    let Some(module) = syntax.modules.get(number) else {
        return;
    };
    // Who reads the package sees all the names in it.
    let reads_package = |path: &&[String]| module.package.starts_with(path);
    if module.rules.len() <= GROUP
        || entrypoints.iter().any(reads_package)
        || reaches(syntax, &module.package)
    {
        return;
    }
    let names: BTreeSet<String> = syntax.rules().into_iter().map(|rule| rule.name).collect();
    let mut rules = String::new();
    for (rule, definitions) in definitions(module, &stand_in_rules(syntax)) {
        let prefix = format!("{rule}__");
        let is_taken = names.iter().any(|name| name.starts_with(&prefix));
        if let Some(reference) = best_reference(&definitions).filter(|_| !is_taken) {
            let has_keyword = definitions.iter().all(|definition| definition.has_keyword);
            let mut index = Index {
                rule,
                keyword: if has_keyword { " if" } else { "" },
                module: number,
                names: 0,
                insertions: Vec::new(),
                rules: String::new(),
            };
            let root = index.split(definitions, reference);
            index.lead(rule, &root);
            insertions.append(&mut index.insertions);
            rules.push_str(&index.rules);
        }
    }
    if !rules.is_empty() {
        insertions.push((module.text.len(), format!("\n{rules}")));
    }
}

impl<'a> Index<'a> {
    fn name(&mut self) -> String {
        let name = format!("{}__{}_{}", self.rule, self.module, self.names);
        self.names = self.names.saturating_add(1);
        name
    }

    /// Makes a rule that holds if one of the definitions does. Its name.
    fn group(&mut self, definitions: Vec<Definition<'a>>) -> String {
        if let Some(reference) = best_reference(&definitions) {
            return self.split(definitions, reference);
        }
        let name = self.name();
        let suffix = name.get(self.rule.len()..).unwrap_or_default();
        for definition in definitions {
            self.insertions
                .push((definition.name_end, suffix.to_owned()));
        }
        name
    }

    /// The same, by the half of the values that the reference's is in.
    fn split(&mut self, definitions: Vec<Definition<'a>>, reference: &'a str) -> String {
        let name = self.name();
        let asked = |definition: &Definition<'a>| definition.asks.get(reference).cloned();
        let values: BTreeSet<Asked<'a>> = definitions.iter().filter_map(asked).collect();
        // There are two at least, so this is not the last.
        let middle = values.len().saturating_sub(1) / 2;
        let Some(pivot) = values.iter().nth(middle) else {
            return name;
        };
        let (mut low, mut high, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for definition in definitions {
            match asked(&definition) {
                Some(asked) if asked.value <= pivot.value => low.push(definition),
                Some(_) => high.push(definition),
                None => others.push(definition),
            }
        }
        for (half, comparison) in [(low, "<="), (high, ">")] {
            let half = self.group(half);
            let pivot = pivot.text;
            self.lead(&name, &format!("{reference} {comparison} {pivot}; {half}"));
        }
        if !others.is_empty() {
            let others = self.group(others);
            self.lead(&name, &others);
        }
        name
    }

    /// Adds a definition to a rule.
    fn lead(&mut self, name: &str, body: &str) {
        let keyword = self.keyword;
        self.rules
            .push_str(&format!("{name}{keyword} {{ {body} }}\n"));
    }
}

/// The reference that tells most definitions apart, if it is worth the while.
fn best_reference<'a>(definitions: &[Definition<'a>]) -> Option<&'a str> {
    let mut values: BTreeMap<&'a str, (usize, BTreeSet<&Value>)> = BTreeMap::new();
    for definition in definitions {
        for (reference, asked) in &definition.asks {
            let (count, values) = values.entry(reference).or_default();
            *count = count.saturating_add(1);
            values.insert(&asked.value);
        }
    }
    let worthwhile = values
        .into_iter()
        .filter(|(_, (count, values))| *count > GROUP && values.len() > 1);
    let best = worthwhile.max_by_key(|(_, (_, values))| values.len());
    best.map(|(reference, _)| reference)
}

/// The definitions that may go under other names, by rule.
fn definitions<'a>(
    module: &Module<'a>,
    stand_ins: &StandIns<RulePath>,
) -> BTreeMap<&'a str, Vec<Definition<'a>>> {
    let mut found: BTreeMap<&str, Vec<Definition<'_>>> = BTreeMap::new();
    for rule in module.rules {
        if let Some((name, definition)) = definition(rule, module, stand_ins) {
            found.entry(name).or_default().push(definition);
        }
    }
    found
}

/// A definition that is `true` by one body: all of these are, so any of them will do.
fn definition<'a>(
    rule: &'a Json,
    module: &Module<'a>,
    stand_ins: &StandIns<RulePath>,
) -> Option<(&'a str, Definition<'a>)> {
    let head = rule.pointer("/Spec/head/Compr")?;
    let value = head.pointer("/assign/value");
    let is_true = value.is_none_or(|value| value.pointer("/Bool/value") == Some(&true.into()));
    let [body] = rule.pointer("/Spec/bodies").map(items)? else {
        return None;
    };
    let query = body.get("query")?;
    let before = module
        .text
        .get(offset(body.get("span")?, "start")?..offset(query.get("span")?, "start")?)?;
    let name = head.pointer("/refr/Var")?;
    let statements = query.get("stmts").map(items)?.iter();
    let asks = statements.filter_map(|statement| {
        let (reference, asked) = equality(statement, module)?;
        let is_input = is_input(reference, rule, module, stand_ins)?;
        Some((text_of(reference, module)?, asked)).filter(|_| is_input)
    });
    let definition = Definition {
        name_end: offset(name.get("span")?, "end")?,
        has_keyword: before.contains("if"),
        asks: asks.collect(),
    };
    Some((name.get("value")?.as_str()?, definition)).filter(|_| is_true)
}

/// A statement that holds only of one value of a reference.
fn equality<'a>(statement: &'a Json, module: &Module<'a>) -> Option<(&'a Json, Asked<'a>)> {
    let expression = statement.pointer("/literal/Expr/expr")?;
    let comparison = expression
        .get("BoolExpr")
        .or_else(|| expression.get("AssignExpr"))?;
    let replaces = statement
        .get("with_mods")
        .is_some_and(|modifiers| !items(modifiers).is_empty());
    if replaces || comparison.get("op")?.as_str() != Some("Eq") {
        return None;
    }
    let (left, right) = (comparison.get("lhs")?, comparison.get("rhs")?);
    [(left, right), (right, left)]
        .into_iter()
        .find_map(|(reference, constant)| {
            whole_path(reference)?;
            let text = text_of(constant, module)?;
            let value = Value::from_json_str(text).ok()?;
            Some((reference, Asked { value, text }))
        })
}

/// Whether a reference is one into `input`, which anywhere in the module is the same.
fn is_input(
    reference: &Json,
    rule: &Json,
    module: &Module<'_>,
    stand_ins: &StandIns<RulePath>,
) -> Option<bool> {
    let root = whole_path(reference)?.into_iter().next()?;
    let imported = module.aliases.get(&root).and_then(|path| path.first());
    let path: RulePath = module.package.iter().chain([&root]).cloned().collect();
    let stands_for_it =
        imported.is_some_and(|root| root == "input") || stand_ins.contains_key(&path);
    Some(root == "input" || stands_for_it && !may_declare(rule, &root, module))
}

/// Whether a name may be a variable of the rule's own: it says so of too many rather than too few.
fn may_declare(tree: &Json, name: &str, module: &Module<'_>) -> bool {
    match tree {
        Json::Object(members) => members.iter().any(|(kind, member)| match kind.as_str() {
            "SomeVars" | "SomeIn" | "Every" => true,
            "AssignExpr" if member.get("op") == Some(&"ColEq".into()) => {
                let target = member.get("lhs").and_then(|target| text_of(target, module));
                target.is_none_or(|target| target.contains(name))
            }
            _ => may_declare(member, name, module),
        }),
        Json::Array(members) => members
            .iter()
            .any(|member| may_declare(member, name, module)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::Interpreter;
    use crate::machine::guarded;
    use crate::sources::{Module, PolicySources, RegoVersion};

    /// The machine's copy of a module, if it differs.
    fn copy(module: &str, entrypoint: &[&str]) -> Option<String> {
        copy_of(module.to_owned(), RegoVersion::V1, entrypoint)
    }

    fn copy_of(text: String, version: RegoVersion, entrypoint: &[&str]) -> Option<String> {
        let file = "a.rego".to_owned();
        let other = PolicySources::from_modules([("other.rego", "package other\n")]).unwrap();
        let sources = other.with_modules(vec![Module {
            file,
            text,
            version,
        }]);
        let interpreter = Interpreter::parse(&sources, Duration::from_secs(5)).unwrap();
        let trees = interpreter.syntax().unwrap();
        let entrypoint: Vec<String> = entrypoint.iter().map(ToString::to_string).collect();
        guarded(&Syntax::new(&trees, &sources), &[&entrypoint]).remove("a.rego")
    }

    /// Twelve definitions, and more.
    fn table(condition: impl Fn(usize) -> String, more: &str) -> String {
        let definitions = (0..12).map(|number| format!("allow if {}\n", condition(number)));
        let definitions: String = definitions.collect();
        format!("package authz\n\nimport input.attributes.request.http\n\n{definitions}{more}")
    }

    fn path(number: usize) -> String {
        format!("input.parsed_path == [\"{number}\"]")
    }

    #[test]
    fn a_long_rule_is_divided_by_what_it_asks_for() {
        let copied = copy(
            &table(path, "allow if input.version\n"),
            &["authz", "allow"],
        )
        .unwrap();
        let expected = "allow__0_1 if input.parsed_path == [\"0\"]\n";
        assert!(copied.contains(expected), "{copied}");
        let expected = "allow__0_3 if input.version\n";
        assert!(copied.contains(expected), "{copied}");
        let expected = "
allow__0_0 if { input.parsed_path <= [\"3\"]; allow__0_1 }
allow__0_0 if { input.parsed_path > [\"3\"]; allow__0_2 }
allow__0_0 if { allow__0_3 }
allow if { allow__0_0 }
";
        assert!(copied.ends_with(expected), "{copied}");
    }

    #[test]
    fn references_by_other_names_of_the_input_count() {
        let by_import = table(|number| format!("http.path == \"/{number}\""), "");
        assert!(copy(&by_import, &["authz", "allow"]).is_some());
        let by_rule = table(
            |number| format!("\"/{number}\" = http_request.path"),
            "http_request := input.attributes.request.http\n",
        );
        assert!(copy(&by_rule, &["authz", "allow"]).is_some());
    }

    #[test]
    fn the_others_stay_as_they_are() {
        let usual = ["authz", "allow"];
        let cases = [
            // Somebody sees the names in the package.
            (table(path, ""), &["authz"][..]),
            (table(path, "all := data.authz\n"), &usual),
            (table(path, "all := data[input.version]\n"), &usual),
            (table(path, "allow__1 := 1\n"), &usual),
            // Definitions with values of their own, and functions.
            (table(path, "").replace("allow if", "allow := 1 if"), &usual),
            (table(path, "").replace("allow if", "allow(1) if"), &usual),
            (
                table(path, "").replace("allow if", "allow contains 1 if"),
                &usual,
            ),
            // What is asked for is not the input's, or not one value.
            (table(|number| format!("data.x == {number}"), ""), &usual),
            (table(|number| format!("input.x != {number}"), ""), &usual),
            (
                table(|number| format!("not input.x == {number}"), ""),
                &usual,
            ),
            (
                table(|number| format!("input.x == [input.y, {number}]"), ""),
                &usual,
            ),
            (
                table(|number| format!("input.x[input.y] == {number}"), ""),
                &usual,
            ),
            (
                table(
                    |number| format!("{{ some http in data.x; http.path == {number} }}"),
                    "",
                ),
                &usual,
            ),
            (table(|_| path(1), ""), &usual),
        ];
        for (module, entrypoint) in cases {
            assert_eq!(copy(&module, entrypoint), None, "{module}");
        }
    }

    #[test]
    fn modules_of_rego_v0_have_their_own_form() {
        let module = table(|number| format!("{{ {} }}", path(number)), "").replace(" if {", " {");
        let copied = copy_of(module, RegoVersion::V0, &["authz", "allow"]).unwrap();
        assert!(copied.ends_with("allow { allow__0_0 }\n"), "{copied}");
    }
}
