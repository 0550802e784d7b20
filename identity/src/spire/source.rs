//! The agent as a source of identities: what it gives, and how it fares.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::agent::SpireAgent;
use super::audience;
use super::backoff::Pause;
use super::error::SpireError;
use super::status::AgentStatus;
use super::tls::Trust;
use crate::entry::Entry;
use crate::received::SourceStatus;
use crate::registry::Registration;
use crate::source::{Issuer, Minting, SvidSource};
use crate::svid::Identities;

/// How often it is looked again, at a start, whether there is enough.
const START: Duration = Duration::from_secs(1);

impl SpireAgent {
    /// Becomes an agent, and takes what the server has. What may pass by itself, such as a server that
    /// starts too, or an entry that it does not tell yet, is waited for; whether there is enough is the
    /// caller's to say, and what is missing after the wait too.
    ///
    /// # Errors
    /// The server is not reached, or does not let the agent in.
    pub async fn first(
        &self,
        patience: Duration,
        is_enough: impl Fn(&Identities) -> bool,
    ) -> Result<(), SpireError> {
        let mut pause = Pause::new(START);
        let begin = Instant::now();
        loop {
            let (step, wait) = match self.step().await {
                Ok(_) if is_enough(&self.identities()) => return Ok(()),
                Ok(_) => (Ok(()), START),
                Err(error) if error.may_pass() => (Err(error), pause.failed(None)),
                Err(error) => return Err(error),
            };
            let left = patience.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return step;
            }
            tokio::time::sleep(wait.min(left)).await;
        }
    }

    /// Whether it could become an agent: what it would show can be used, and the server answers and is
    /// the trust domain's. Nothing is changed, neither here nor there.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn examine(&self) -> Result<(), SpireError> {
        let in_use = self.directory.credentials()?.in_use;
        let now = self.clock.now();
        if in_use.is_none_or(|svid| svid.validity().not_after <= now) {
            self.config.attestation.evidence()?;
        }
        let trust = match self.known_trust().await? {
            Some(bundle) => Trust::Bundle(bundle),
            None => Trust::OnFirstUse,
        };
        let session = self.unauthenticated(trust)?;
        self.own_bundle(&session).await.map(drop)
    }

    /// The entries that are served, in the order in which they count, by their ids at the server.
    pub fn entries(&self) -> Vec<Registration> {
        self.signing().entries.clone()
    }

    /// How it fares, in the words that all sources have.
    pub fn source_status(&self) -> SourceStatus {
        self.status().as_source()
    }

    /// What is not well, in lines for people.
    pub fn failing(&self) -> Vec<String> {
        let status = self.status();
        let AgentStatus {
            unsigned, bundles, ..
        } = &status;
        let unsigned = unsigned
            .iter()
            .map(|it| format!("the SPIRE server has signed no SVID to take for {it} [SG0196]"));
        let bundles = bundles
            .iter()
            .map(|it| format!("the SPIRE server has no bundle to take of {it} [SG0196]"));
        let source = status.as_source().failing();
        source.into_iter().chain(unsigned).chain(bundles).collect()
    }
}

impl SvidSource for SpireAgent {
    fn watch(&self) -> watch::Receiver<Arc<Identities>> {
        self.sender.subscribe()
    }
}

impl Issuer for SpireAgent {
    fn allows(&self, entry: &Entry, audience: &[String]) -> bool {
        audience::allows(&self.config.audience_rules, entry, audience)
    }

    fn mint_jwt<'a>(&'a self, entry: &'a Entry, audience: &'a [String]) -> Minting<'a> {
        Box::pin(async move { Ok(self.jwt_svid(entry, audience).await?) })
    }
}
