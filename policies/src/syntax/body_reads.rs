//! Whether a policy reads request bodies.

use http::header::CONTENT_TYPE;
use http::request::Parts;
use serde_json::Value as Json;

use super::{Module, Syntax, fixed_path, items};
use crate::input::is_parsed;

/// Where OPA-Envoy's document shows what a body holds.
const PARSED: [&[&str]; 2] = [&["parsed_body"], &["truncated_body"]];

/// Where it shows a body as text or bytes.
const WHOLE: [&[&str]; 2] = [
    &["attributes", "request", "http", "body"],
    &["attributes", "request", "http", "rawBody"],
];

/// What the modules may read of request bodies: more than they do, but never
/// less.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BodyReads {
    /// What is in them, where they can be parsed.
    parsed: bool,
    /// Their text or bytes.
    whole: bool,
}

impl BodyReads {
    /// Looks at every reference into `input`. One that stops short of the
    /// places of bodies, or goes on by an expression, may reach them.
    pub(crate) fn of(syntax: &Syntax<'_>) -> Self {
        let mut reads = Self::default();
        for module in &syntax.modules {
            for rule in module.rules {
                reads.visit(rule, module);
            }
        }
        reads
    }

    /// Whether the body of a request is read before it is decided. That of a
    /// gRPC call never is: it may be a stream whose caller waits for an answer
    /// to its first message.
    pub(crate) fn apply_to(self, head: &Parts) -> bool {
        if !self.parsed && !self.whole {
            return false;
        }
        let content_type = head.headers.get(CONTENT_TYPE);
        let content_type = content_type
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        if content_type.contains("application/grpc") {
            return false;
        }
        self.whole || is_parsed(content_type)
    }

    fn visit(&mut self, tree: &Json, module: &Module<'_>) {
        match tree {
            Json::Object(members) => {
                if let Some(modifiers) = members.get("with_mods") {
                    // What `with` replaces is not read; what it puts there may be.
                    items(modifiers)
                        .iter()
                        .filter_map(|modifier| modifier.get("as"))
                        .for_each(|replacement| self.visit(replacement, module));
                    members
                        .iter()
                        .filter(|(name, _)| *name != "with_mods")
                        .for_each(|(_, member)| self.visit(member, module));
                    return;
                }
                let is_reference = ["Var", "RefDot", "RefBrack"]
                    .iter()
                    .any(|kind| members.contains_key(*kind));
                if is_reference {
                    self.reference(tree, module);
                    return;
                }
                members
                    .values()
                    .for_each(|member| self.visit(member, module));
            }
            Json::Array(list) => list.iter().for_each(|item| self.visit(item, module)),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
        }
    }

    /// A reference as a whole, and whatever stands in its brackets.
    fn reference(&mut self, expression: &Json, module: &Module<'_>) {
        self.note(&fixed_path(expression), module);
        let mut rest = expression;
        while let Some(inner) = rest
            .pointer("/RefDot/refr")
            .or_else(|| rest.pointer("/RefBrack/refr"))
        {
            if let Some(index) = rest.pointer("/RefBrack/index") {
                self.visit(index, module);
            }
            rest = inner;
        }
        if rest.get("Var").is_none() {
            self.visit(rest, module);
        }
    }

    fn note(&mut self, path: &[String], module: &Module<'_>) {
        let Some((root, rest)) = path.split_first() else {
            return;
        };
        let target = module.aliases.get(root);
        let target = target.map_or(std::slice::from_ref(root), Vec::as_slice);
        let Some((root, target)) = target.split_first() else {
            return;
        };
        if root != "input" {
            return;
        }
        let reached = |place: &&[&str]| {
            let path = target.iter().chain(rest);
            path.zip(place.iter()).all(|(found, name)| found == name)
        };
        self.parsed |= PARSED.iter().any(reached);
        self.whole |= WHOLE.iter().any(reached);
    }
}
