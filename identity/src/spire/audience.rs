//! `[[identity.audience_rule]]`: for whom workloads may ask for JWT-SVIDs. SPIRE's entries do not say:
//! by themselves they allow every audience.

use std::fmt;
use std::str::FromStr;

use spiffe::{SpiffeId, TrustDomain};

use crate::entry::Entry;

/// Narrows the audiences of the IDs that it names. An ID that several rules name may ask for what any of
/// them lists; one that none names, for every audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudienceRule {
    /// The IDs that it is about.
    pub spiffe_ids: Vec<IdPattern>,
    /// What they may ask for; nothing where it is empty.
    pub audiences: Vec<String>,
}

/// One SPIFFE ID, or all below a path: `spiffe://prod.example/web`, `spiffe://prod.example/ns/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdPattern {
    /// This one.
    One(SpiffeId),
    /// All that begin so, with a path below it: ends in `/`.
    Below(String),
}

/// A text that is neither a SPIFFE ID nor the beginning of some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoIdPattern(String);

impl AudienceRule {
    /// Whether it is about the ID of this entry.
    fn names(&self, entry: &Entry) -> bool {
        let mut ids = self.spiffe_ids.iter();
        ids.any(|id| id.is(entry.spiffe_id()))
    }
}

/// Whether a workload of this entry may ask for all of these audiences, of which there is one at least.
pub(super) fn allows(rules: &[AudienceRule], entry: &Entry, audience: &[String]) -> bool {
    if audience.is_empty() {
        return false;
    }
    let rules = || rules.iter().filter(|rule| rule.names(entry));
    let lists = |name| rules().any(|rule| rule.audiences.contains(name));
    rules().next().is_none() || audience.iter().all(lists)
}

/// Whether any rule is about the ID of this entry.
pub(super) fn is_narrowed(rules: &[AudienceRule], entry: &Entry) -> bool {
    rules.iter().any(|rule| rule.names(entry))
}

impl IdPattern {
    fn is(&self, id: &SpiffeId) -> bool {
        match self {
            Self::One(one) => one == id,
            Self::Below(start) => id.to_string().starts_with(start),
        }
    }
}

impl FromStr for IdPattern {
    type Err = NoIdPattern;

    fn from_str(text: &str) -> Result<Self, NoIdPattern> {
        let Some(above) = text.strip_suffix("/*") else {
            let id = SpiffeId::new(text).map_err(|error| NoIdPattern(error.to_string()))?;
            return Ok(Self::One(id));
        };
        let is_domain = above.strip_prefix("spiffe://");
        let is_domain = is_domain.is_some_and(|name| TrustDomain::new(name).is_ok());
        match SpiffeId::new(above) {
            Err(error) if !is_domain => Err(NoIdPattern(error.to_string())),
            _ => Ok(Self::Below(format!("{above}/"))),
        }
    }
}

impl fmt::Display for IdPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(id) => id.fmt(formatter),
            Self::Below(start) => write!(formatter, "{start}*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::EntryRequest;

    fn entry(id: &str) -> Entry {
        let request = EntryRequest {
            spiffe_id: id.to_owned(),
            selectors: vec!["unix:uid:7".to_owned()],
            ..EntryRequest::default()
        };
        Entry::new(request, &TrustDomain::new("one.test").unwrap()).unwrap()
    }

    fn rule(ids: &[&str], audiences: &[&str]) -> AudienceRule {
        AudienceRule {
            spiffe_ids: ids.iter().map(|id| id.parse().unwrap()).collect(),
            audiences: audiences.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn rules_narrow_the_ids_that_they_name_and_no_others() {
        let rules = [
            rule(&["spiffe://one.test/web"], &["shop"]),
            rule(
                &["spiffe://one.test/web", "spiffe://one.test/ns/*"],
                &["bank"],
            ),
            rule(&["spiffe://one.test/none"], &[]),
        ];
        for (id, audience, expected) in [
            ("web", vec!["shop"], true),
            ("web", vec!["bank", "shop"], true),
            ("web", vec!["shop", "other"], false),
            ("web", vec![], false),
            ("ns/a/b", vec!["bank"], true),
            ("ns/a/b", vec!["shop"], false),
            // Neither the path itself nor one that only begins like it is below it.
            ("ns", vec!["other"], true),
            ("nsx/a", vec!["other"], true),
            ("none", vec!["shop"], false),
            ("free", vec!["anything"], true),
            ("free", vec![], false),
        ] {
            let entry = entry(&format!("spiffe://one.test/{id}"));
            let names: Vec<_> = audience.iter().map(ToString::to_string).collect();
            assert_eq!(
                allows(&rules, &entry, &names),
                expected,
                "{id} {audience:?}"
            );
        }
        let all = [rule(&["spiffe://one.test/*"], &["shop"])];
        let web = entry("spiffe://one.test/web");
        assert!(is_narrowed(&all, &web) && !is_narrowed(&[], &web));
    }

    #[test]
    fn a_pattern_is_an_id_or_all_below_a_path() {
        for text in [
            "spiffe://one.test/web",
            "spiffe://one.test/*",
            "spiffe://one.test/a/b/*",
        ] {
            let pattern: IdPattern = text.parse().unwrap();
            assert_eq!(pattern.to_string(), text);
        }
        for text in [
            "",
            "*",
            "/*",
            "web",
            "spiffe:///*",
            "spiffe://one.test/a*",
            "spiffe://one.test/a/*/b",
            "https://one.test/*",
        ] {
            assert!(text.parse::<IdPattern>().is_err(), "{text}");
        }
    }
}
