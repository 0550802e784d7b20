//! Makes statements hold: the part of the solver that chooses.

use serde_json::Value as Json;

use super::solve::{Frame, Solver, kind};
use super::terms::{Term, below};
use super::texts;
use crate::syntax::{Step, fixed_path, items, whole_path};

/// Builtins that make a text of a text, such that the same text is a good guess.
const TEXT_TO_TEXT: [&str; 14] = [
    "format_int",
    "lower",
    "replace",
    "sprintf",
    "substring",
    "to_number",
    "trim",
    "trim_left",
    "trim_prefix",
    "trim_right",
    "trim_space",
    "trim_suffix",
    "upper",
    "urlquery.decode",
];

impl<'a> Solver<'a> {
    /// Makes an expression true.
    pub(super) fn hold(&mut self, expression: &'a Json, frame: &mut Frame<'a>) {
        let (kind, parts) = kind(expression);
        let part = |name: &str| parts.get(name).unwrap_or(&Json::Null);
        match kind {
            "AssignExpr" => self.assign(part("lhs"), part("rhs"), frame),
            "BoolExpr" if part("op") == "Eq" => self.assign(part("lhs"), part("rhs"), frame),
            "BoolExpr" => {
                let (left, right) = (self.term(part("lhs"), frame), self.term(part("rhs"), frame));
                self.compare(part("op").as_str().unwrap_or_default(), left, right);
            }
            "Membership" => {
                let collection = self.term(part("collection"), frame);
                self.member(parts.get("key"), part("value"), collection, frame);
            }
            "Var" | "RefDot" | "RefBrack" => {
                if let Term::Input(path) = self.term(expression, frame) {
                    let there = self.document.at(&path).is_some_and(|value| *value != false);
                    if !there && !path.is_empty() {
                        self.document.choose(&path, present(&path));
                    }
                }
            }
            "Call" | "Array" | "Set" | "Object" | "ArrayCompr" | "SetCompr" | "ObjectCompr"
            | "BinExpr" | "ArithExpr" => {
                self.term(expression, frame);
            }
            "UnaryExpr" => {
                self.term(part("expr"), frame);
            }
            _ => {}
        }
    }

    /// Makes an equation false.
    pub(super) fn differ(&mut self, equation: &'a Json, frame: &mut Frame<'a>) {
        let side = |name: &str| equation.pointer(name).unwrap_or(&Json::Null);
        let (left, right) = (side("/BoolExpr/lhs"), side("/BoolExpr/rhs"));
        let (left, right) = (self.term(left, frame), self.term(right, frame));
        self.compare("Ne", left, right);
    }

    /// `left == right`, or `:=` and `=`, which may also give variables values.
    fn assign(&mut self, left: &'a Json, right: &'a Json, frame: &mut Frame<'a>) {
        if is_pattern(left) {
            let value = self.term(right, frame);
            self.unify(left, value, frame);
        } else {
            let value = self.term(left, frame);
            self.unify(right, value, frame);
        }
    }

    /// Matches a value against an expression that may name new variables.
    pub(super) fn unify(&mut self, pattern: &'a Json, value: Term, frame: &mut Frame<'a>) {
        match kind(pattern) {
            ("Var", variable) => {
                let name = variable
                    .get("value")
                    .and_then(Json::as_str)
                    .unwrap_or_default();
                match self.term(pattern, frame) {
                    Term::Free(_) => frame.bind(name, value),
                    known => self.same(known, value),
                }
            }
            ("Array", array) => {
                let patterns = array.get("items").map(items).unwrap_or_default();
                if let Term::Input(path) = &value {
                    self.document.resize(path, patterns.len());
                }
                for (index, pattern) in patterns.iter().enumerate() {
                    let element = match &value {
                        Term::Input(path) => Term::Input(below(path, Step::Element(index as u64))),
                        Term::Parts(path, separator) => {
                            Term::Part(path.clone(), separator.clone(), index)
                        }
                        Term::Known(Json::Array(elements)) => elements
                            .get(index)
                            .map_or(Term::Unknown, |element| Term::Known(element.clone())),
                        Term::List(terms) => terms.get(index).cloned().unwrap_or(Term::Unknown),
                        _ => Term::Unknown,
                    };
                    self.unify(pattern, element, frame);
                }
            }
            _ => {
                let known = self.term(pattern, frame);
                self.same(known, value);
            }
        }
    }

    /// Makes two terms equal.
    pub(super) fn same(&mut self, left: Term, right: Term) {
        match (left, right) {
            (Term::Known(_), Term::Known(_)) => {}
            (Term::List(left), Term::List(right)) => {
                for (left, right) in left.into_iter().zip(right) {
                    self.same(left, right);
                }
            }
            (Term::List(terms), Term::Input(path)) | (Term::Input(path), Term::List(terms)) => {
                self.document.resize(&path, terms.len());
                for (index, term) in terms.into_iter().enumerate() {
                    self.same(term, Term::Input(below(&path, Step::Element(index as u64))));
                }
            }
            (Term::Object(members), Term::Input(path))
            | (Term::Input(path), Term::Object(members)) => {
                for (name, term) in members {
                    self.same(term, Term::Input(below(&path, Step::Member(name))));
                }
            }
            (left, right) => {
                // What was chosen already decides about what was not.
                let chosen = |term: &Term| {
                    term.text_path()
                        .is_some_and(|path| self.document.is_chosen(path))
                };
                let (to, from) = match (&left, &right) {
                    (Term::Known(_), _) => (right, left),
                    (_, Term::Known(_)) => (left, right),
                    _ if chosen(&left) => (right, left),
                    _ => (left, right),
                };
                if let Some(value) = from.value(&self.document) {
                    self.set(&to, value);
                }
            }
        }
    }

    /// Chooses the part of the document that a term is made of.
    fn set(&mut self, term: &Term, value: Json) {
        match (term, value) {
            (Term::Input(path), value) => self.document.choose(path, value),
            (Term::Text(path), Json::Number(number)) => {
                self.document.choose(path, number.to_string().into());
            }
            (Term::Text(path), value) => self.document.choose(path, value),
            (Term::Parts(path, separator), Json::Array(parts)) => {
                let parts: Vec<&str> = parts.iter().filter_map(Json::as_str).collect();
                self.document.choose(path, parts.join(separator).into());
            }
            (Term::Part(path, separator, index), Json::String(part)) => {
                let text = self
                    .document
                    .at(path)
                    .and_then(Json::as_str)
                    .unwrap_or_default();
                let mut parts: Vec<&str> = text.split(separator.as_str()).collect();
                // No policy asks for a part far behind.
                if *index < 64 {
                    while parts.len() <= *index {
                        parts.push("x");
                    }
                }
                if let Some(place) = parts.get_mut(*index) {
                    *place = &part;
                }
                let text = parts.join(separator);
                self.document.choose(path, text.into());
            }
            (Term::Count(path), Json::Number(number)) => {
                let length = number
                    .as_u64()
                    .and_then(|number| usize::try_from(number).ok());
                self.document.resize(path, length.unwrap_or(0));
            }
            _ => {}
        }
    }

    fn compare(&mut self, operator: &str, left: Term, right: Term) {
        let (left_value, right_value) = (left.value(&self.document), right.value(&self.document));
        let (term, than, less) = match (left, right) {
            (term, Term::Known(than)) => (term, than, matches!(operator, "Lt" | "Le")),
            (Term::Known(than), term) => (term, than, matches!(operator, "Gt" | "Ge")),
            // Two parts of the document that must differ.
            (term @ Term::Input(_), _) if operator == "Ne" && left_value == right_value => {
                (term, left_value.unwrap_or_default(), false)
            }
            _ => return,
        };
        if operator == "Ne" {
            let current = term.value(&self.document);
            if current.is_none_or(|current| current == than) {
                let path = term.text_path().cloned().unwrap_or_default();
                let other = self.other(&path, &than);
                self.set(&term, other);
            }
        } else if let Some(number) = than.as_i64() {
            let beyond = if less {
                number.saturating_sub(1)
            } else {
                number.saturating_add(1)
            };
            // The bound itself is where mistakes are.
            let number = match operator {
                "Le" | "Ge" => number,
                _ => beyond,
            };
            self.set(&term, number.into());
        } else if let Json::String(text) = than {
            let text = if less {
                String::new()
            } else {
                format!("{text}x")
            };
            self.set(&term, text.into());
        }
    }

    /// Makes a value, and its key if there is one, a member of a collection.
    pub(super) fn member(
        &mut self,
        key: Option<&'a Json>,
        value: &'a Json,
        collection: Term,
        frame: &mut Frame<'a>,
    ) {
        let key = key.filter(|key| !key.is_null());
        let members: Vec<(Json, Term)> = match collection {
            Term::Known(Json::Array(elements)) => {
                let known = elements.into_iter().map(Term::Known).enumerate();
                known
                    .map(|(index, element)| (index.into(), element))
                    .collect()
            }
            Term::Known(Json::Object(members)) => {
                let known = members.into_iter();
                known
                    .map(|(name, member)| (name.into(), Term::Known(member)))
                    .collect()
            }
            Term::List(terms) => {
                let terms = terms.into_iter().enumerate();
                terms.map(|(index, term)| (index.into(), term)).collect()
            }
            Term::Object(members) => {
                let members = members.into_iter();
                members.map(|(name, term)| (name.into(), term)).collect()
            }
            Term::Parts(path, separator) => {
                let index = self.pick(2);
                vec![(index.into(), Term::Part(path, separator, index))]
            }
            Term::Input(path) => {
                let wanted = self.term(value, frame).value(&self.document);
                let there = match self.document.at(&path) {
                    Some(Json::Array(elements)) => {
                        wanted.is_some_and(|wanted| elements.contains(&wanted))
                    }
                    Some(Json::Object(members)) => {
                        wanted.is_some_and(|wanted| members.values().any(|value| *value == wanted))
                    }
                    _ => false,
                };
                if there {
                    return;
                }
                let (index, step) = match self.step_into(&path) {
                    Step::Member(name) => (name.as_str().into(), Step::Member(name)),
                    Step::Element(index) => (index.into(), Step::Element(index)),
                };
                vec![(index, Term::Input(below(&path, step)))]
            }
            _ => Vec::new(),
        };
        // One that fits, if the value is known already.
        let wanted = self.term(value, frame);
        let fitting = match &wanted {
            Term::Known(wanted) => members
                .iter()
                .position(|(_, member)| matches!(member, Term::Known(member) if member == wanted)),
            _ => None,
        };
        let index = fitting.unwrap_or_else(|| self.pick(members.len()));
        let Some((name, member)) = members.into_iter().nth(index) else {
            self.unify(value, Term::Unknown, frame);
            return;
        };
        if let Some(key) = key {
            self.unify(key, Term::Known(name), frame);
        }
        self.unify(value, member, frame);
    }

    /// What is known of the result of a call, which is made to hold if it is one that can be false.
    pub(super) fn called(&mut self, call: &'a Json, frame: &mut Frame<'a>) -> Term {
        let function = call.get("fcn").unwrap_or(&Json::Null);
        let name = whole_path(function).unwrap_or_else(|| fixed_path(function));
        let arguments = call.get("params").map(items).unwrap_or_default();
        let terms: Vec<Term> = arguments
            .iter()
            .map(|argument| self.term(argument, frame))
            .collect();
        if let Some(term) = self.own_function(&name, &terms, frame) {
            return term;
        }
        let name = name.join(".");
        let term = self.builtin(&name, &terms);
        // `split(text, "/", parts)`: the last argument takes the result.
        if let (Some(result), Term::Parts(..)) = (arguments.get(2), &term) {
            self.unify(result, term.clone(), frame);
        }
        term
    }

    fn builtin(&mut self, name: &str, arguments: &[Term]) -> Term {
        match (name, arguments) {
            ("startswith" | "endswith" | "contains", [text, Term::Known(Json::String(part))]) => {
                let current = text.value(&self.document);
                let current = current.as_ref().and_then(Json::as_str).unwrap_or_default();
                let (holds, example) = match name {
                    "startswith" => (current.starts_with(part.as_str()), format!("{part}x")),
                    "endswith" => (current.ends_with(part.as_str()), format!("x{part}")),
                    _ => (current.contains(part.as_str()), format!("x{part}x")),
                };
                if !holds {
                    self.set(text, example.into());
                }
                Term::Known(true.into())
            }
            ("glob.match", [Term::Known(Json::String(pattern)), _, text]) => {
                self.set(text, texts::of_glob(pattern).into());
                Term::Known(true.into())
            }
            ("regex.match", [Term::Known(Json::String(pattern)), text]) => {
                if let Some(example) = texts::of_regex(pattern) {
                    self.set(text, example.into());
                }
                Term::Known(true.into())
            }
            ("strings.any_prefix_match" | "strings.any_suffix_match", [text, parts]) => {
                let part = match parts.value(&self.document) {
                    Some(Json::Array(parts)) => parts.get(self.pick(parts.len())).cloned(),
                    other => other,
                };
                if let Some(part) = part {
                    self.set(text, part);
                }
                Term::Known(true.into())
            }
            ("net.cidr_contains", [Term::Known(Json::String(network)), address]) => {
                let first = network.split('/').next().unwrap_or_default();
                self.set(address, first.into());
                Term::Known(true.into())
            }
            ("split", [text, Term::Known(Json::String(separator)), ..]) => match text.text_path() {
                Some(path) => Term::Parts(path.clone(), separator.clone()),
                None => match text {
                    Term::Known(Json::String(text)) => {
                        Term::Known(text.split(separator.as_str()).collect())
                    }
                    _ => Term::Unknown,
                },
            },
            ("count", [Term::Input(path)]) => Term::Count(path.clone()),
            ("object.get", [Term::Input(path), Term::Known(Json::String(key)), _]) => {
                Term::Input(below(path, Step::Member(key.clone())))
            }
            (name, arguments) if TEXT_TO_TEXT.contains(&name) => {
                let text = arguments.iter().find_map(Term::text_path);
                text.map_or(Term::Unknown, |path| Term::Text(path.clone()))
            }
            _ => Term::Unknown,
        }
    }
}

/// Whether an expression may name variables that have no value yet.
fn is_pattern(expression: &Json) -> bool {
    matches!(kind(expression).0, "Var" | "Array")
}

/// A value that is there: headers are texts.
fn present(path: &[Step]) -> Json {
    let header = path
        .iter()
        .any(|step| *step == Step::Member("headers".into()));
    if header { "x".into() } else { true.into() }
}
