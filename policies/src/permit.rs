//! The permit: a request that the policy allows, and the only thing that can
//! be forwarded.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderName, Uri};
use uuid::Uuid;

use crate::decision::{DecisionError, DynamicMetadata, QueryEdits};

/// A request that the policy allows, with the head as it was decided.
///
/// Only an [`Evaluator`](crate::Evaluator) makes one, there is one for each
/// decision, and forwarding uses it up. So nothing is forwarded that was not
/// decided, nothing is decided once and forwarded twice, and what is forwarded
/// is what was decided.
///
/// Using a permit:
///
/// ```
/// use sidegate_policy::{Forwardable, Permit};
/// fn forward(permit: Permit) -> Forwardable {
///     let forwardable = permit.into_forwardable();
///     forwardable
/// }
/// ```
///
/// It cannot be used a second time:
///
/// ```compile_fail,E0382
/// use sidegate_policy::{Forwardable, Permit};
/// fn forward(permit: Permit) -> Forwardable {
///     let forwardable = permit.into_forwardable();
///     permit.into_forwardable();
///     forwardable
/// }
/// ```
///
/// It cannot be copied to be used twice:
///
/// ```compile_fail,E0599
/// use sidegate_policy::{Forwardable, Permit};
/// fn forward(permit: Permit) -> Forwardable {
///     let forwardable = permit.clone().into_forwardable();
///     forwardable
/// }
/// ```
///
/// Looking at one:
///
/// ```
/// use sidegate_policy::Permit;
/// fn generation(permit: &Permit) -> u64 {
///     permit.generation()
/// }
/// ```
///
/// Its fields are private:
///
/// ```compile_fail,E0616
/// use sidegate_policy::Permit;
/// fn generation(permit: &Permit) -> u64 {
///     permit.generation
/// }
/// ```
///
/// Handing one on:
///
/// ```
/// use sidegate_policy::Permit;
/// fn hand_on(permit: Permit, generation: u64) -> Permit {
///     permit
/// }
/// ```
///
/// Nobody else can make one, not even out of another:
///
/// ```compile_fail,E0451
/// use sidegate_policy::Permit;
/// fn hand_on(permit: Permit, generation: u64) -> Permit {
///     Permit { generation, ..permit }
/// }
/// ```
///
/// ```compile_fail,E0277
/// use sidegate_policy::Permit;
/// fn hand_on(permit: Permit, generation: u64) -> Permit {
///     Default::default()
/// }
/// ```
#[derive(Debug)]
#[must_use = "a permit that is not forwarded is a request without an answer"]
pub struct Permit {
    head: Parts,
    edits: Arc<Edits>,
    /// The target with the edits, where it has any.
    target: Option<Uri>,
    decision_id: Uuid,
    generation: u64,
}

/// What the policy changes on the way, checked already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Edits {
    /// Request headers to set; all values of a name replace those of the request.
    pub(crate) set: HeaderMap,
    /// Request headers to remove, after those to set were set.
    pub(crate) remove: Vec<HeaderName>,
    /// Response headers to add.
    pub(crate) response: HeaderMap,
    /// Query parameters to set and to remove.
    pub(crate) query: QueryEdits,
    /// What the policy tells whoever comes after it.
    pub(crate) dynamic_metadata: Option<DynamicMetadata>,
}

/// Edits that fit one request.
#[derive(Debug)]
pub(crate) struct PreparedEdits {
    edits: Arc<Edits>,
    target: Option<Uri>,
}

/// What goes upstream, and what to do with the answer.
#[derive(Debug)]
pub struct Forwardable {
    /// The head as it was decided, with the policy's edits applied.
    pub head: Parts,
    /// Headers that the policy puts on the response to the caller. As in Envoy
    /// they come after what the upstream sent under the same names.
    pub response_headers_to_add: HeaderMap,
    /// Identifies the decision in the decision log.
    pub decision_id: Uuid,
    /// The policy generation that decided.
    pub generation: u64,
}

impl PreparedEdits {
    /// Makes ready for a request what depends on it: its target.
    pub(crate) fn new(edits: &Arc<Edits>, target: &Uri) -> Result<Self, DecisionError> {
        Ok(Self {
            target: edits.query.apply(target)?,
            edits: Arc::clone(edits),
        })
    }
}

impl Permit {
    pub(crate) fn new(
        head: Parts,
        edits: PreparedEdits,
        decision_id: Uuid,
        generation: u64,
    ) -> Self {
        let PreparedEdits { edits, target } = edits;
        Self {
            head,
            edits,
            target,
            decision_id,
            generation,
        }
    }

    /// Uses the permit up and gives what may be forwarded.
    #[must_use]
    pub fn into_forwardable(self) -> Forwardable {
        let Self {
            mut head,
            edits,
            target,
            decision_id,
            generation,
        } = self;
        for name in edits.set.keys() {
            head.headers.remove(name);
        }
        for (name, value) in &edits.set {
            head.headers.append(name, value.clone());
        }
        for name in &edits.remove {
            head.headers.remove(name);
        }
        if let Some(target) = target {
            head.uri = target;
        }
        Forwardable {
            head,
            response_headers_to_add: edits.response.clone(),
            decision_id,
            generation,
        }
    }

    /// The head as it was decided, before the policy's edits.
    #[must_use]
    pub fn head(&self) -> &Parts {
        &self.head
    }

    /// What the policy tells whoever comes after it, if anything.
    #[must_use]
    pub fn dynamic_metadata(&self) -> Option<&DynamicMetadata> {
        self.edits.dynamic_metadata.as_ref()
    }

    /// Identifies the decision in the decision log.
    #[must_use]
    pub fn decision_id(&self) -> Uuid {
        self.decision_id
    }

    /// The policy generation that decided.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }
}
