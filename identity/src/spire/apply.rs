//! What the server has now, taken over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use spiffe::TrustDomain;
use tokio::task::JoinSet;
use tonic::Code;
use tracing::{error, info};

use super::agent::{Held, HeldSvid, SpireAgent};
use super::attest::get_bundle;
use super::audience::{AudienceRule, is_narrowed};
use super::error::SpireError;
use super::messages::{self, Bundle, Outcome};
use super::proto::bundle::GetFederatedBundleRequest;
use super::proto::bundle::bundle_client::BundleClient;
use super::proto::types;
use super::session::Session;
use super::sync::{self, Authorized};
use crate::chain;
use crate::clock::moment;
use crate::registry::{Origin, Registration};
use crate::selector::Attestor;
use crate::svid::Issued;
use crate::tls::verify_chain;

/// So many foreign bundles are fetched at once.
const AT_ONCE: usize = 10;

/// The last second of the year 9999: what is told as later cannot be shown.
pub(super) const LAST: u64 = 253_402_300_799;

/// Everything that the server has, read and in order.
pub(super) struct Update {
    authorized: Authorized,
    /// `None` where it is the one that is there.
    own: Option<Bundle>,
    federated: BTreeMap<TrustDomain, Foreign>,
}

/// What the server says of a foreign bundle.
enum Foreign {
    Sent(types::Bundle),
    /// It has none.
    Missing,
    /// It could not give it.
    Failed(String),
}

type Fetched = (TrustDomain, Result<Foreign, SpireError>);

impl SpireAgent {
    /// Asks the server for everything. Nothing changes here before all of it is there.
    pub(super) async fn fetch(
        &self,
        held: &Held,
        session: &Arc<Session>,
    ) -> Result<Update, SpireError> {
        let trust_domain = &self.config.trust_domain;
        let authorized = sync::authorized(session, &held.authorized, trust_domain).await?;
        let sent = get_bundle(session).await?;
        let own = match &held.bundle {
            Some(known) if known.sent == sent => None,
            _ => Some(self.read_own(sent)?),
        };
        let served = authorized.values().filter_map(|known| known.served());
        let wanted: BTreeSet<_> = served
            .flat_map(|entry| entry.federates_with().iter().cloned())
            .collect();
        let mut federated = BTreeMap::new();
        let mut tasks: JoinSet<Fetched> = JoinSet::new();
        let mut wanted = wanted.into_iter();
        loop {
            while tasks.len() < AT_ONCE
                && let Some(trust_domain) = wanted.next()
            {
                tasks.spawn(get_federated(Arc::clone(session), trust_domain));
            }
            match tasks.join_next().await {
                None => break,
                Some(Ok((trust_domain, sent))) => {
                    federated.insert(trust_domain, sent?);
                }
                Some(Err(failure)) => {
                    return Err(SpireError::Refused {
                        method: "GetFederatedBundle",
                        problem: failure.to_string(),
                    });
                }
            }
        }
        Ok(Update {
            authorized,
            own,
            federated,
        })
    }

    /// Takes an update. Says whether it takes something back, which must not wait.
    pub(super) fn apply(&self, held: &mut Held, update: Update) -> bool {
        let now = self.clock.now();
        held.synced = Some(now);
        let mut takes_back = held.take_federated(update.federated);
        held.is_dirty |= takes_back;
        takes_back |= self.take_entries(held, update.authorized);
        if let Some(own) = update.own {
            takes_back |= held.take_own(own, now);
            held.is_dirty = true;
        }
        takes_back
    }

    /// Takes the entries: SVIDs of those that are gone go with them, and what is left gets a new SVID
    /// where the entry is another. Says whether an entry is gone without another in its place.
    fn take_entries(&self, held: &mut Held, authorized: Authorized) -> bool {
        if held.authorized == authorized {
            return false;
        }
        let now = self.clock.now();
        let mut gone = Vec::new();
        let (mut changed, mut takes_back) = (false, false);
        held.svids.retain(|id, svid| {
            let known = authorized.get(id);
            let entry = known.and_then(|known| known.served());
            let same_id = entry.filter(|entry| entry.spiffe_id() == svid.issued.entry.spiffe_id());
            let Some(entry) = same_id else {
                takes_back |= entry.is_none();
                gone.push(svid.issued.entry.spiffe_id().clone());
                return false;
            };
            let before = held.authorized.get(id).map(|known| known.revision);
            if before != known.map(|known| known.revision) {
                // What the SVID itself says may have changed, such as its DNS names.
                svid.due = now;
            }
            if svid.issued.entry != *entry {
                svid.issued.entry = Arc::clone(entry);
                changed = true;
            }
            true
        });
        for id in &gone {
            if !held.svids.values().any(|svid| svid.issued.svid.id() == id) {
                self.metrics.withdrawn(id);
            }
        }
        for (id, known) in &authorized {
            if held.authorized.get(id) != Some(known)
                && let Outcome::Refused(refused) = &known.outcome
            {
                let (code, reason) = (&refused.code, &refused.reason);
                let spiffe_id = &refused.spiffe_id;
                error!(code, spiffe_id, reason, "an entry of SPIRE's is not served");
            }
        }
        held.authorized = authorized;
        held.is_dirty |= changed || !gone.is_empty();
        takes_back
    }
}

impl Held {
    /// Takes the own bundle. Says whether it trusts less than the one before.
    fn take_own(&mut self, own: Bundle, now: SystemTime) -> bool {
        info!(
            sequence = own.sent.sequence_number,
            "the trust domain has another bundle"
        );
        let own = match &self.bundle {
            Some(before) => own.after(before),
            None => own,
        };
        let bundle = Arc::clone(&own.x509);
        let before = self.trust.replace(Arc::clone(&bundle));
        (self.bundle, self.is_bundle_kept) = (Some(own), false);
        if before.is_some_and(|before| bundle.trusts_all_of(&before)) {
            return false;
        }
        for svid in self.svids.values_mut() {
            let chain = svid.issued.svid.chain();
            svid.is_tainted = verify_chain(chain, bundle.lasting(), now).is_err();
            if verify_chain(chain, &bundle, now).is_err() {
                // Its authority is revoked: nobody takes it any more.
                svid.due = now;
            }
        }
        if let Some(agent) = &self.credentials.in_use
            && verify_chain(agent.chain(), bundle.lasting(), now).is_err()
        {
            self.renew_at = now;
        }
        true
    }

    /// Takes foreign bundles. One that cannot be had, or is refused, leaves the one before in its place;
    /// one that the server no longer has, or no entry wants, goes. Says whether there is a difference.
    fn take_federated(&mut self, federated: BTreeMap<TrustDomain, Foreign>) -> bool {
        let mut changed = false;
        self.bundle_problems.clear();
        let count = self.federated.len();
        self.federated.retain(|it, _| {
            let foreign = federated.get(it);
            foreign.is_some_and(|foreign| !matches!(foreign, Foreign::Missing))
        });
        changed |= self.federated.len() != count;
        for (trust_domain, foreign) in federated {
            let before = self.federated.get(&trust_domain);
            let read = match foreign {
                Foreign::Sent(sent) if before.is_some_and(|before| before.sent == sent) => continue,
                Foreign::Sent(sent) => messages::bundle(sent, &trust_domain),
                Foreign::Missing => Err("the server has no bundle of it".to_owned()),
                Foreign::Failed(problem) => Err(problem),
            };
            match read {
                Ok(bundle) => {
                    let bundle = match before {
                        Some(before) => bundle.after(before),
                        None => bundle,
                    };
                    self.federated.insert(trust_domain, bundle);
                    changed = true;
                }
                Err(problem) => {
                    let problem = format!("{trust_domain}: {problem}");
                    self.bundle_problems.push(problem);
                }
            }
        }
        changed
    }

    /// Takes roots that have ended out of all bundles. Says whether there were any.
    pub(super) fn prune(&mut self, now: SystemTime) -> bool {
        let mut changed = false;
        for bundle in self.bundle.iter_mut().chain(self.federated.values_mut()) {
            // One that cannot be made without them stays as it is.
            if let Ok(Some(rest)) = bundle.x509.without_expired(now) {
                bundle.x509 = Arc::new(rest);
                changed = true;
            }
        }
        changed
    }

    /// The entry's SVID from now on.
    pub(super) fn issue(&mut self, id: String, svid: HeldSvid) {
        self.is_dirty = true;
        self.svids.insert(id, svid);
    }

    /// The SVIDs with their entries, in their order.
    pub(super) fn issued(&self) -> Vec<Issued> {
        let ordered = self.ordered().into_iter();
        ordered.map(|(.., svid)| svid.issued.clone()).collect()
    }

    /// The entries that are served, in their order.
    pub(super) fn registrations(&self) -> Vec<Registration> {
        let ordered = self.ordered().into_iter();
        let registrations = ordered.map(|(created, id, svid)| Registration {
            id: id.clone(),
            origin: Origin::SpireServer,
            created_at: moment(u64::try_from(created).unwrap_or_default().min(LAST)),
            entry: Arc::clone(&svid.issued.entry),
        });
        registrations.collect()
    }

    /// For how many entries of processes no rule narrows the audiences.
    pub(super) fn any_audience(&self, rules: &[AudienceRule]) -> usize {
        let entries = self.svids.values().map(|svid| &svid.issued.entry);
        let of_processes = entries.filter(|entry| entry.attestor() == Some(Attestor::Unix));
        let any = of_processes.filter(|entry| !is_narrowed(rules, entry));
        any.count()
    }

    /// The oldest entry first, as SPIRE has it; each with when it was made.
    fn ordered(&self) -> Vec<(i64, &String, &HeldSvid)> {
        let svids = self.svids.iter().map(|(id, svid)| {
            let known = self.authorized.get(id);
            (known.map_or(0, |known| known.revision.created), id, svid)
        });
        let mut svids: Vec<_> = svids.collect();
        svids.sort_by_key(|(created, id, _)| (*created, *id));
        svids
    }
}

async fn get_federated(session: Arc<Session>, trust_domain: TrustDomain) -> Fetched {
    let request = GetFederatedBundleRequest {
        trust_domain: trust_domain.to_string(),
    };
    let sent = session
        .call("GetFederatedBundle", |channel| {
            let request = request.clone();
            async move {
                Ok(BundleClient::new(channel)
                    .get_federated_bundle(request)
                    .await?
                    .into_inner())
            }
        })
        .await;
    let foreign = match sent {
        Ok(sent) => Ok(Foreign::Sent(sent)),
        Err(error) if error.grpc_code() == Some(Code::NotFound) => Ok(Foreign::Missing),
        // One trust domain's trouble must not be that of all others.
        Err(error) if error.is_of_one_call() => Ok(Foreign::Failed(chain(&error))),
        Err(error) => Err(error),
    };
    (trust_domain, foreign)
}
