//! Hostile peers: what they send is refused or made harmless, counted, and others do not suffer.

mod admission;
mod floods;
pub(crate) mod frames;
mod heads;
pub(crate) mod origin;
mod pseudo_headers;
mod slow;
mod smuggling;
mod violations;

use sidegate_tests::{Sidegate, until};
use tempfile::TempDir;

use crate::support::{Authority, Client, Configuration, counter, folder, leaf, write};
use origin::Origin;

/// `sidegate run` in front of an origin that records what it gets.
struct Front {
    sidegate: Sidegate,
    client: Client,
    origin: Origin,
    folder: TempDir,
}

impl Front {
    /// `sections` belong to the listener.
    async fn start(sections: &str) -> Self {
        Self::start_with(sections, "package envoy.authz\nallow := true\n").await
    }

    /// The same, deciding by a policy of its own.
    async fn start_with(sections: &str, rego: &str) -> Self {
        let folder = folder();
        write(folder.path(), "policy/policy.rego", rego);
        let origin = Origin::start().await;
        let configuration = Configuration::before(&origin.url, sections);
        let (sidegate, client) = configuration.start(folder.path());
        Self {
            sidegate,
            client,
            origin,
            folder,
        }
    }

    /// The same client as somebody else.
    fn somebody_else(&self) -> Client {
        let authority = Authority::of(&self.folder.path().join("state"));
        let other = leaf(&["spiffe://sidegate.local/somebody-else"]);
        self.client.with(authority.issue(&other))
    }

    fn exceeded(&self, limit: &str) -> f64 {
        let limit = format!("limit=\"{limit}\"");
        let labels = ["listener=\"main\"", &limit];
        counter(&self.sidegate, "sidegate_limits_exceeded_total", &labels)
    }

    /// Waits until a limit was exceeded.
    fn until_exceeded(&self, limit: &str) {
        until(&format!("more than {limit}"), || {
            (self.exceeded(limit) > 0.5).then_some(())
        });
    }

    fn floods(&self, kind: &str) -> f64 {
        let kind = format!("kind=\"{kind}\"");
        let labels = ["listener=\"main\"", &kind];
        counter(&self.sidegate, "sidegate_http2_floods_total", &labels)
    }
}
