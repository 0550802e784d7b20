//! What is known of a policy before it is asked: what it reads, and whether its answers may be
//! remembered.

use std::fmt;

use crate::builtins::{Purity, purity};
use crate::input::ReadSet;
use crate::syntax::{BodyReads, Dependencies, Named, Place, Syntax, dependencies, written};

/// What an entrypoint depends on, and what follows from that.
#[derive(Debug)]
pub(crate) struct Analysis {
    pub(crate) dependencies: Dependencies,
    pub(crate) reads: ReadSet,
    pub(crate) body_reads: BodyReads,
    /// Why decisions are not remembered, if they are not.
    pub(crate) unremembered: Option<Unremembered>,
}

/// The expression that keeps decisions from being remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unremembered {
    /// The builtin or the part of `input`.
    pub(crate) expression: String,
    pub(crate) place: Place,
    pub(crate) reason: &'static str,
}

impl Analysis {
    pub(crate) fn new(syntax: &Syntax<'_>, entrypoint: &[String]) -> Self {
        let dependencies = dependencies(syntax, entrypoint, Named::Followed);
        // `with` may put any part of the input in the place of any other.
        let reads = match dependencies.with {
            Some(_) => ReadSet::everything(),
            None => ReadSet::new(dependencies.reads.keys().map(Vec::as_slice)),
        };
        let body_reads = BodyReads::of(dependencies.reads.keys().map(Vec::as_slice));
        let unremembered = unremembered(&dependencies);
        Self {
            dependencies,
            reads,
            body_reads,
            unremembered,
        }
    }
}

fn unremembered(dependencies: &Dependencies) -> Option<Unremembered> {
    if let Some(place) = &dependencies.with {
        return Some(Unremembered {
            expression: "with".to_owned(),
            place: place.clone(),
            reason: "what it replaces is not followed",
        });
    }
    let impure = dependencies
        .builtins
        .iter()
        .find_map(|(name, place)| match purity(name) {
            Purity::Pure => None,
            Purity::Impure(reason) => Some(Unremembered {
                expression: name.clone(),
                place: place.clone(),
                reason,
            }),
        });
    impure.or_else(|| {
        dependencies.reads.iter().find_map(|(path, place)| {
            let reads = ReadSet::new([path.as_slice()]);
            let (_, reason) = reads.unrepeatable()?;
            Some(Unremembered {
                expression: written(path),
                place: place.clone(),
                reason,
            })
        })
    })
}

impl fmt::Display for Unremembered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            expression,
            place,
            reason,
        } = self;
        write!(formatter, "{place}: {expression}: {reason}")
    }
}
