//! Facts about what this process itself runs. Such workloads never have the process's own
//! `unix:` selectors.

use crate::selector::{Kind, Selector};

/// What the host knows of a component that it is about to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentFacts {
    /// `sha256:<hex>` of the component's bytes, as computed from them.
    pub digest: String,
    /// The name that its deployer gave it.
    pub name: String,
    /// The namespace that it was deployed to.
    pub namespace: Option<String>,
}

impl ComponentFacts {
    /// Its selectors.
    pub fn selectors(&self) -> Vec<Selector> {
        let mut selectors = vec![
            Selector::attested(Kind::ComponentDigest, &self.digest),
            Selector::attested(Kind::ComponentName, &self.name),
        ];
        if let Some(namespace) = &self.namespace {
            selectors.push(Selector::attested(Kind::ComponentNamespace, namespace));
        }
        selectors
    }
}

/// The selectors of this process itself: what the host does on its own behalf.
pub fn host_selectors() -> Vec<Selector> {
    vec![Selector::attested(Kind::Host, "self")]
}

/// The selectors of a listener that fronts a local upstream. Whoever writes the configuration
/// chooses its name, and writes the entries too.
pub fn listener_selectors(name: &str) -> Vec<Selector> {
    vec![Selector::attested(Kind::ListenerName, name)]
}
