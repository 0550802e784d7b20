//! Modules without import aliases.

use super::names::names;
use crate::sources::{Module, PolicySources};
use crate::syntax::{Syntax, rule_reference};

/// The same sources with each use of an import written out, on the same line.
///
/// To the engine `import data.authz` and `authz.allow` is the rule `allow` of a
/// whole package, whose rules it then evaluates all; `data.authz.allow` is one
/// rule. What comes out is the same, but not what was evaluated for it.
pub(crate) fn without_aliases(syntax: &Syntax<'_>, sources: &PolicySources) -> PolicySources {
    let modules = syntax.modules.iter().zip(sources.modules());
    let modules = modules.map(|(module, source)| {
        let rules = module.rules.iter();
        let mut uses: Vec<_> = rules
            .flat_map(|rule| names(module, rule).imported)
            .collect();
        uses.sort_by_key(|(span, _)| span.start);
        uses.dedup();
        let mut text = String::with_capacity(source.text.len());
        let mut from = 0;
        for (span, target) in uses {
            text.push_str(source.text.get(from..span.start).unwrap_or_default());
            text.push_str(&rule_reference(&target));
            from = span.end;
        }
        text.push_str(source.text.get(from..).unwrap_or_default());
        Module {
            text,
            ..source.clone()
        }
    });
    sources.with_modules(modules.collect())
}
