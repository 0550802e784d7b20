//! The agent of a SPIRE server, as the configuration describes it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use sidegate_identity::clock::Clock;
use sidegate_identity::metrics::IdentityMetrics;
use sidegate_identity::selector::Selector;
use sidegate_identity::source::SvidSource;
use sidegate_identity::spire::{
    AgentConfig, AgentStatus, Bootstrap, FetchBundle, FetchedBundle, SpireAgent, SpireError,
};
use sidegate_identity::svid::Identities;
use sidegate_identity::{SpiffeId, TrustDomain};
use sidegate_policy::bundle::{Cause, Fetch};

use crate::config::{SpireServer, TrustBundle};
use crate::failure::{Failure, chain};
use crate::transport::HttpFetch;

/// How long a server may take to start, and to tell of entries that were just made: it looks for them
/// every five seconds, and we ask it as often.
const PATIENCE: Duration = Duration::from_secs(30);

/// A trust bundle is far smaller.
const LARGEST_BUNDLE: usize = 1024 * 1024;

/// And how long it may take to come.
const LONGEST_FETCH: Duration = Duration::from_secs(30);

/// A trust bundle on a web server.
struct Published(HttpFetch);

/// Somebody here who needs an identity at the start.
pub(super) struct Need {
    /// Who: "the listener `main`".
    pub(super) who: String,
    /// The one that it must be; none where any will do.
    pub(super) wanted: Option<SpiffeId>,
    pub(super) selectors: Vec<Selector>,
}

/// The agent, which has not asked its server for anything yet.
pub(super) fn agent(
    server: &SpireServer,
    trust_domain: &TrustDomain,
    state: &Path,
    clock: Arc<dyn Clock>,
    metrics: IdentityMetrics,
) -> Result<SpireAgent, Failure> {
    let bootstrap = match &server.trust_bundle {
        TrustBundle::File(path) => Bootstrap::File(path.clone()),
        TrustBundle::Insecure => Bootstrap::Insecure,
        TrustBundle::Url { url, ca_file } => {
            let fetch = HttpFetch::new(url.clone(), ca_file.as_deref(), None);
            let fetch = fetch.map_err(|error| Failure::new("SG0198", &error))?;
            Bootstrap::Url {
                url: url.to_string(),
                fetch: Arc::new(Published(fetch)),
            }
        }
    };
    let config = AgentConfig {
        server: server.address.clone(),
        trust_domain: trust_domain.clone(),
        bootstrap,
        attestation: server.attestation.clone(),
        directory: state.to_owned(),
        sync_interval: server.sync_interval,
        audience_rules: server.audience_rules.clone(),
    };
    SpireAgent::new(config, clock, metrics).map_err(|error| not_attested(&error))
}

/// Becomes an agent, and waits for the entries that are needed.
pub(super) async fn first(agent: &SpireAgent, needs: &[Need]) -> Result<(), Failure> {
    let lacks = |need: &&Need, identities: &Identities| !need.is_met(identities);
    let first = agent.first(PATIENCE, |identities| {
        !needs.iter().any(|need| lacks(&need, identities))
    });
    first.await.map_err(|error| not_attested(&error))?;
    let identities = Arc::clone(&agent.watch().borrow());
    match needs.iter().find(|need| lacks(need, &identities)) {
        None => Ok(()),
        Some(need) => Err(need.unmet(&agent.status())),
    }
}

/// Why this is no agent.
pub(super) fn not_attested(error: &SpireError) -> Failure {
    let failure = Failure::new(error.code(), error);
    match error.hint() {
        Some(hint) => failure.help(hint),
        None => failure,
    }
}

impl Need {
    fn is_met(&self, identities: &Identities) -> bool {
        let mut entitled = identities.entitled(&self.selectors);
        let wanted = self.wanted.as_ref();
        entitled.any(|it| wanted.is_none_or(|wanted| wanted == it.entry.spiffe_id()))
    }

    /// With the command that mends it.
    fn unmet(&self, status: &AgentStatus) -> Failure {
        let parent = status.agent_id.as_deref().unwrap_or("AGENT_ID");
        let selector = self.selectors.first().map(ToString::to_string);
        let selector = selector.unwrap_or_default();
        let who = &self.who;
        let (code, text, id) = match &self.wanted {
            None => {
                let text = format!("no entry of the SPIRE server gives {who} an identity");
                ("SG0042", text, "spiffe://…".to_owned())
            }
            Some(wanted) => {
                let text = format!("no entry of the SPIRE server entitles {who} to `{wanted}`");
                ("SG0043", text, wanted.to_string())
            }
        };
        Failure::message(code, text).help(format!(
            "spire-server entry create -parentID {parent} -spiffeID {id} -selector {selector}"
        ))
    }
}

impl FetchBundle for Published {
    fn fetch(&self) -> FetchedBundle<'_> {
        Box::pin(async move {
            match tokio::time::timeout(LONGEST_FETCH, self.fetched()).await {
                Ok(fetched) => fetched,
                Err(elapsed) => Err(elapsed.to_string()),
            }
        })
    }
}

impl Published {
    async fn fetched(&self) -> Result<Vec<u8>, String> {
        let told = |error: Cause| chain(error.as_ref());
        let answer = self.0.fetch(HeaderMap::new(), Duration::ZERO).await;
        let answer = answer.map_err(told)?;
        if answer.status() != StatusCode::OK {
            return Err(format!("the answer is {}", answer.status()));
        }
        let (mut body, mut bundle) = (answer.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            let data = frame.map_err(told)?.into_data().unwrap_or_default();
            bundle.extend_from_slice(&data);
            if bundle.len() > LARGEST_BUNDLE {
                return Err(format!("it has more than {LARGEST_BUNDLE} bytes"));
            }
        }
        Ok(bundle)
    }
}
