//! What OPA refuses or understands otherwise, and this engine would evaluate quietly: a denial could
//! become an allowance.
//!
//! - `=` within `every` gives the loop's variable a value, as if it had none.
//! - A pattern of an object holds of objects that have more in them.
//! - A variable that only `not` mentions is taken for "some value of it does not".
//! - `walk` as a value has no members.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::place::line_and_column;
use crate::error::Unlike;
use crate::syntax::{Module, Syntax, declared, items, start_of, whole_path};

/// Names that have a value.
type Known<'a> = BTreeSet<&'a str>;

/// Everything of this kind, in the order of the text.
pub(crate) fn unlike_opa(syntax: &Syntax<'_>) -> Vec<Unlike> {
    let mut found = Vec::new();
    for module in &syntax.modules {
        let rules = of_package(syntax, module);
        let mut known: Known<'_> = rules.iter().map(String::as_str).collect();
        known.extend(["input", "data"]);
        known.extend(module.aliases.keys().map(String::as_str));
        let mut reader = Reader {
            module,
            found: Vec::new(),
        };
        for rule in module.rules {
            reader.rule(rule, &known);
        }
        found.append(&mut reader.found);
    }
    found
}

/// The first names of the rules of a module's package.
fn of_package(syntax: &Syntax<'_>, module: &Module<'_>) -> BTreeSet<String> {
    let same = |other: &&Module<'_>| other.package == module.package;
    let modules = syntax.modules.iter().filter(same);
    let rules =
        modules.flat_map(|module| module.rules.iter().filter_map(|it| declared(module, it)));
    rules
        .filter_map(|rule| rule.name.split('.').next().map(str::to_owned))
        .collect()
}

struct Reader<'a> {
    module: &'a Module<'a>,
    found: Vec<Unlike>,
}

impl<'a> Reader<'a> {
    fn add(&mut self, tree: &Json, problem: &'static str, help: &'static str) {
        let start = start_of(tree, self.module).unwrap_or_default();
        let (line, column) = line_and_column(self.module.text, start);
        self.found.push(Unlike {
            file: self.module.file.to_owned(),
            line,
            column,
            problem,
            help,
        });
    }

    fn rule(&mut self, rule: &'a Json, known: &Known<'a>) {
        let Some(spec) = rule.get("Spec") else {
            return;
        };
        let head = spec.get("head").unwrap_or(&Json::Null);
        let arguments = head.pointer("/Func/args").map(items).unwrap_or_default();
        let mut known = known.clone();
        for argument in arguments {
            if let Some(object) = object(argument) {
                let help = "take the object as a variable, and compare its members in the body";
                self.add(
                    object,
                    "a function's argument that is an object pattern",
                    help,
                );
            }
            variables(argument, &mut known);
        }
        let bodies = spec.get("bodies").map(items).unwrap_or_default();
        for body in bodies {
            self.query(body.get("query").unwrap_or(&Json::Null), &known, false);
        }
        // Comprehensions in the head see what a body gives values; nothing is refused for that.
        if let Some(query) = bodies.first().and_then(|body| body.get("query")) {
            bound(query, &mut known);
        }
        self.nested(head, &known, false);
        for body in bodies {
            self.nested(body.get("assign").unwrap_or(&Json::Null), &known, false);
        }
    }

    fn query(&mut self, query: &'a Json, known: &Known<'a>, in_every: bool) {
        let mut all = known.clone();
        bound(query, &mut all);
        let statements = query.get("stmts").map(items).unwrap_or_default();
        for (index, statement) in statements.iter().enumerate() {
            let literal = statement.get("literal").unwrap_or(&Json::Null);
            if let Some(negated) = literal.pointer("/NotExpr/expr") {
                self.negated(negated, &all);
            }
            if let Some(some) = literal.get("SomeIn") {
                let patterns = ["key", "value"].map(|part| some.get(part));
                if let Some(object) = patterns.into_iter().flatten().find_map(object) {
                    let help = "take the member as a variable, and compare its members after it";
                    self.add(object, "an object pattern after `some`", help);
                }
            }
            if let Some(assignment) = literal.pointer("/Expr/expr/AssignExpr") {
                let others = statements.iter().enumerate();
                let mut others_known = known.clone();
                for (_, other) in others.filter(|(other, _)| *other != index) {
                    binders(other, &mut others_known);
                }
                self.assignment(assignment, &others_known, in_every);
            }
            self.nested(statement, &all, in_every);
        }
    }

    fn assignment(&mut self, assignment: &'a Json, known: &Known<'a>, in_every: bool) {
        let sides = ["lhs", "rhs"].map(|side| assignment.get(side).unwrap_or(&Json::Null));
        let [left, right] = sides;
        let help = "take the object as a variable, and compare its members after it";
        if assignment.get("op") == Some(&"ColEq".into()) {
            if let Some(object) = object(left) {
                self.add(object, "an object pattern before `:=`", help);
            }
            return;
        }
        if in_every {
            let problem = "`=` in the body of `every`";
            self.add(
                left,
                problem,
                "write `==` to compare, or `:=` to give a name",
            );
        }
        for side in [left, right] {
            let mut names = Known::new();
            if let Some(object) = object(side) {
                variables(object, &mut names);
                if !names.is_subset(known) {
                    self.add(object, "an object pattern beside `=`", help);
                }
            }
        }
    }

    /// All variables of what `not` is about must have values.
    fn negated(&mut self, negated: &'a Json, known: &Known<'a>) {
        let mut mentioned = Vec::new();
        mentions(negated, &mut mentioned);
        for (name, variable) in mentioned {
            if name == "_" || !known.contains(name) {
                self.add(
                    variable,
                    "a variable that has a value in `not` only is unsafe",
                    "write what is negated as a rule of its own, and negate that",
                );
            }
        }
    }

    /// Reads the queries inside of an expression, and its calls.
    fn nested(&mut self, tree: &'a Json, known: &Known<'a>, in_every: bool) {
        match tree {
            Json::Object(members) => {
                if let Some(every) = members.get("Every") {
                    self.nested(every.get("domain").unwrap_or(&Json::Null), known, in_every);
                    let mut inner = known.clone();
                    for name in ["key", "value"].iter().filter_map(|part| every.get(part)) {
                        inner.extend(self.text(name));
                    }
                    self.query(every.get("query").unwrap_or(&Json::Null), &inner, true);
                    return;
                }
                if let Some(call) = members.get("Call") {
                    self.call(call);
                }
                for (name, member) in members {
                    match name.as_str() {
                        "query" => self.query(member, known, in_every),
                        // Of a comprehension: these see what its query gives values.
                        "term" | "key" | "value" if members.contains_key("query") => {
                            let mut inner = known.clone();
                            let query = members.get("query").unwrap_or(&Json::Null);
                            bound(query, &mut inner);
                            self.nested(member, &inner, in_every);
                        }
                        _ => self.nested(member, known, in_every),
                    }
                }
            }
            Json::Array(members) => members
                .iter()
                .for_each(|member| self.nested(member, known, in_every)),
            _ => {}
        }
    }

    fn call(&mut self, call: &'a Json) {
        let function = call.get("fcn").unwrap_or(&Json::Null);
        let is_walk = whole_path(function).is_some_and(|path| path == ["walk"]);
        if is_walk
            && call
                .get("params")
                .map(items)
                .is_some_and(|it| it.len() == 1)
        {
            let problem = "`walk` as a value";
            self.add(function, problem, "write walk(x, [path, value])");
        }
    }

    fn text(&self, span: &Json) -> Option<&'a str> {
        let offset = |name| crate::syntax::offset(span, name);
        self.module.text.get(offset("start")?..offset("end")?)
    }
}

/// The names that a query's statements may give values.
fn bound<'a>(query: &'a Json, known: &mut Known<'a>) {
    for statement in query.get("stmts").map(items).unwrap_or_default() {
        binders(statement, known);
    }
}

/// The names that a statement may give values: in patterns, as indices and as arguments, which may
/// be what a call such as `walk` gives.
fn binders<'a>(statement: &'a Json, known: &mut Known<'a>) {
    let literal = statement.get("literal").unwrap_or(&Json::Null);
    if let Some(some) = literal.get("SomeIn") {
        for pattern in ["key", "value"].iter().filter_map(|part| some.get(part)) {
            variables(pattern, known);
        }
        given(some, known);
    } else if let Some(expression) = literal.pointer("/Expr/expr") {
        given(expression, known);
    }
}

fn given<'a>(tree: &'a Json, known: &mut Known<'a>) {
    match tree {
        Json::Object(members) => {
            for (kind, body) in members {
                let patterns: &[&str] = match kind.as_str() {
                    "query" => continue,
                    "AssignExpr" => &["lhs", "rhs"],
                    "RefBrack" => &["index"],
                    "Call" => &["params"],
                    _ => &[],
                };
                let patterns = patterns.iter().filter_map(|part| body.get(part));
                // What is in an object pattern beside `=` has its value from elsewhere.
                let patterns = patterns.filter(|pattern| object(pattern).is_none());
                patterns.for_each(|pattern| variables(pattern, known));
                given(body, known);
            }
        }
        Json::Array(members) => members.iter().for_each(|member| given(member, known)),
        _ => {}
    }
}

/// Variables that an expression mentions, but for queries inside of it and functions.
fn mentions<'a>(tree: &'a Json, found: &mut Vec<(&'a str, &'a Json)>) {
    match tree {
        Json::Object(members) => {
            if let Some(name) = tree.pointer("/Var/value").and_then(Json::as_str) {
                found.push((name, tree));
            }
            if !members.contains_key("query") {
                let others = members.iter().filter(|(name, _)| *name != "fcn");
                others.for_each(|(_, member)| mentions(member, found));
            }
        }
        Json::Array(members) => members.iter().for_each(|member| mentions(member, found)),
        _ => {}
    }
}

/// The variables of a pattern: those that are not part of a reference.
fn variables<'a>(pattern: &'a Json, names: &mut Known<'a>) {
    match pattern {
        Json::Object(members) => {
            if let Some(name) = pattern.pointer("/Var/value").and_then(Json::as_str) {
                names.insert(name);
            }
            let is_computed = |kind: &str| ["RefDot", "RefBrack", "Call", "query"].contains(&kind);
            let parts = members.iter().filter(|(kind, _)| !is_computed(kind));
            parts.for_each(|(_, member)| variables(member, names));
        }
        Json::Array(members) => members.iter().for_each(|member| variables(member, names)),
        _ => {}
    }
}

/// The first object in a pattern.
fn object(pattern: &Json) -> Option<&Json> {
    if pattern.get("Object").is_some() {
        return Some(pattern);
    }
    let parts = pattern.pointer("/Array/items").map(items)?;
    parts.iter().find_map(object)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::Interpreter;
    use crate::sources::PolicySources;

    /// What is refused in a rule, by what it begins with.
    fn refused(rules: &str) -> Vec<&'static str> {
        let module = format!("package a\n\nhelper := 1\n\n{rules}\n");
        let sources = PolicySources::from_modules([("a.rego", module)]).unwrap();
        let interpreter = Interpreter::parse(&sources, Duration::from_secs(5)).unwrap();
        let trees = interpreter.syntax().unwrap();
        let found = unlike_opa(&Syntax::new(&trees, &sources));
        found.iter().map(|unlike| unlike.problem).collect()
    }

    const EVERY: &str = "`=` in the body of `every`";
    const UNSAFE: &str = "a variable that has a value in `not` only is unsafe";

    #[test]
    fn what_the_engine_takes_otherwise_is_found() {
        for (rule, expected) in [
            ("p if every r in input.l { r = 1 }", EVERY),
            ("p if every r in input.l { some x in [1]; x = r }", EVERY),
            (
                "p if every r in input.l { count([1 | [1] = r]) == 1 }",
                EVERY,
            ),
            (
                "p if { {\"a\": x} = input.o; x == 1 }",
                "an object pattern beside `=`",
            ),
            (
                "p if { input.o = {\"a\": x}; x == 1 }",
                "an object pattern beside `=`",
            ),
            (
                "p if { [{\"a\": x}] = [input.o]; x == 1 }",
                "an object pattern beside `=`",
            ),
            (
                "p if { {\"a\": x} := input.o; x == 1 }",
                "an object pattern before `:=`",
            ),
            (
                "p if some {\"a\": 1} in input.l",
                "an object pattern after `some`",
            ),
            (
                "p if { some i, {\"a\": x} in input.l; x == i }",
                "an object pattern after `some`",
            ),
            (
                "f({\"a\": 1}) := true",
                "a function's argument that is an object pattern",
            ),
            (
                "f([{\"a\": x}]) := x",
                "a function's argument that is an object pattern",
            ),
            ("p if not input.l[_] == 1", UNSAFE),
            ("p if { some i; not input.l[i] == 1 }", UNSAFE),
            ("p if not x == 1", UNSAFE),
            ("p if { x == 1; not x == 2 }", UNSAFE),
            ("p := [1 | not input.l[_]]", UNSAFE),
            (
                "p if { [p, v] := walk(input.o); v == 1 }",
                "`walk` as a value",
            ),
        ] {
            assert_eq!(refused(rule), [expected], "{rule}");
        }
    }

    #[test]
    fn the_rest_is_taken() {
        for rule in [
            "p if every r in input.l { r == 1; x := r; not x == 2 }",
            "p if { x = 1; every r in input.l { r == x } }",
            "p if { {\"a\": 1} = input.o }",
            "p if { x := 1; {\"a\": x} = input.o }",
            "p if { x = {\"a\": input.b}; not x.a == 1 }",
            "p := x if { x = {\"a\": helper} }",
            "p if { [x] = input.l; not x == 1 }",
            "p if { input.l[i] == 1; not input.m[i] == 1 }",
            "p if { walk(input.o, [_, v]); not v == 1 }",
            "p if not helper",
            "p if not helper == input.x",
            "p if not count([1 | input.l[_] == 1]) == 1",
            "p if { some i, v in input.l; not input.m[i] == v }",
            "p if { every i, v in input.l { not input.m[i] == v } }",
            "f(x) if not x == 1",
            "f([x, _]) if not x == 1",
            "p contains x if { some x in input.l; not x == 1 }",
            "p := [x | some x in input.l; not input.m[x]]",
            "p if { some x in input.l; count([y | some y in input.m; not y == x]) == 1 }",
        ] {
            assert_eq!(refused(rule), [""; 0], "{rule}");
        }
    }
}
