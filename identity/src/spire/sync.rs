//! The authorized entries, as the server has them now.
//!
//! A short list comes whole. Of a long one the revisions come first, in pages, and then those entries
//! that are asked for: what is new or has another revision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message;
use spiffe::TrustDomain;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use super::error::{Failure, SpireError};
use super::messages::{self, Outcome};
use super::proto::entry::entry_client::EntryClient;
use super::proto::entry::{
    GetAuthorizedEntriesRequest, SyncAuthorizedEntriesRequest, SyncAuthorizedEntriesResponse,
};
use super::proto::types::{self, EntryMask};
use super::session::Session;

/// More entries than one machine has workloads.
const MOST: usize = 200_000;

/// And more than they take.
const MOST_BYTES: usize = 128 * 1024 * 1024;

/// All authorized entries by their ids.
pub(super) type Authorized = BTreeMap<String, Arc<Known>>;

/// An entry as the server has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Known {
    pub(super) revision: Revision,
    pub(super) outcome: Outcome,
}

/// Two entries are the same where both numbers are: one that was made anew under the same id has
/// another time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Revision {
    number: i64,
    /// Seconds since 1970; zero from servers that do not tell.
    pub(super) created: i64,
}

const MASK: EntryMask = EntryMask {
    spiffe_id: true,
    selectors: true,
    federates_with: true,
    revision_number: true,
    store_svid: true,
    hint: true,
    created_at: true,
};

/// Brings what is known to what the server has.
pub(super) async fn authorized(
    session: &Session,
    known: &Authorized,
    trust_domain: &TrustDomain,
) -> Result<Authorized, SpireError> {
    if !session.is_old() {
        let synced = session
            .call("SyncAuthorizedEntries", |channel| {
                sync(channel, known, trust_domain)
            })
            .await;
        match synced {
            Err(error) if error.grpc_code() == Some(Code::Unimplemented) => session.found_old(),
            other => return other,
        }
    }
    session
        .call("GetAuthorizedEntries", |channel| async move {
            let request = GetAuthorizedEntriesRequest {
                output_mask: Some(MASK),
            };
            let answer = EntryClient::new(channel)
                .get_authorized_entries(request)
                .await?;
            whole(answer.into_inner().entries, trust_domain)
        })
        .await
}

async fn sync(
    channel: Channel,
    known: &Authorized,
    trust_domain: &TrustDomain,
) -> Result<Authorized, Failure> {
    let (requests, receiver) = mpsc::channel(1);
    let first = SyncAuthorizedEntriesRequest {
        output_mask: Some(MASK),
        ids: Vec::new(),
    };
    send(&requests, first).await;
    let mut answers = EntryClient::new(channel)
        .sync_authorized_entries(ReceiverStream::new(receiver))
        .await?
        .into_inner();

    let first = next(&mut answers).await?;
    if first.entry_revisions.is_empty() {
        let mut bytes = first.encoded_len();
        let mut entries = first.entries;
        let mut more = first.more;
        while more {
            let page = next(&mut answers).await?;
            if !page.entry_revisions.is_empty() {
                return Err("revisions come where entries should".into());
            }
            bytes += page.encoded_len();
            if bytes > MOST_BYTES {
                return Err(format!("it has more than {MOST_BYTES} bytes").into());
            }
            entries.extend(page.entries);
            check_count(entries.len())?;
            more = page.more;
        }
        return whole(entries, trust_domain);
    }

    let page_size = first.entry_revisions.len();
    let mut authorized = Authorized::new();
    let mut wanted = BTreeSet::new();
    let mut page = first;
    loop {
        if !page.entries.is_empty() {
            return Err("entries come where revisions should".into());
        }
        for sent in page.entry_revisions {
            let revision = Revision::new(sent.revision_number, sent.created_at);
            check_id(&sent.id)?;
            if wanted.contains(&sent.id) || authorized.contains_key(&sent.id) {
                return Err(twice(&sent.id));
            }
            match known.get(&sent.id).filter(|it| it.revision.is(revision)) {
                Some(known) => {
                    authorized.insert(sent.id, Arc::clone(known));
                }
                None => {
                    wanted.insert(sent.id);
                }
            }
        }
        check_count(authorized.len() + wanted.len())?;
        if !page.more {
            break;
        }
        page = next(&mut answers).await?;
    }

    // In order, as the server looks them up.
    let ids: Vec<_> = wanted.iter().cloned().collect();
    for ids in ids.chunks(page_size) {
        let request = SyncAuthorizedEntriesRequest {
            output_mask: None,
            ids: ids.to_vec(),
        };
        send(&requests, request).await;
        let mut more = true;
        while more {
            let page = next(&mut answers).await?;
            if !page.entry_revisions.is_empty() {
                return Err("revisions come where entries should".into());
            }
            for sent in page.entries {
                if !wanted.remove(&sent.id) {
                    return Err(format!("entry `{}` was not asked for", sent.id).into());
                }
                authorized.insert(sent.id.clone(), Known::new(&sent, trust_domain));
            }
            more = page.more;
        }
    }
    match wanted.first() {
        None => Ok(authorized),
        Some(id) => Err(format!("entry `{id}` was asked for, and did not come").into()),
    }
}

async fn next(
    answers: &mut Streaming<SyncAuthorizedEntriesResponse>,
) -> Result<SyncAuthorizedEntriesResponse, Failure> {
    let answer = answers.message().await?;
    answer.ok_or_else(|| "it ended in the middle".into())
}

/// Where the stream is gone, its other side says why.
async fn send(
    requests: &mpsc::Sender<SyncAuthorizedEntriesRequest>,
    request: SyncAuthorizedEntriesRequest,
) {
    let _ = requests.send(request).await;
}

/// Takes a whole list.
fn whole(entries: Vec<types::Entry>, trust_domain: &TrustDomain) -> Result<Authorized, Failure> {
    check_count(entries.len())?;
    let mut authorized = Authorized::new();
    for sent in entries {
        check_id(&sent.id)?;
        let known = Known::new(&sent, trust_domain);
        if authorized.insert(sent.id.clone(), known).is_some() {
            return Err(twice(&sent.id));
        }
    }
    Ok(authorized)
}

fn check_count(count: usize) -> Result<(), Failure> {
    match count > MOST {
        true => Err(format!("there are more than {MOST} entries").into()),
        false => Ok(()),
    }
}

fn check_id(id: &str) -> Result<(), Failure> {
    match id {
        "" => Err("an entry has no id".into()),
        _ => Ok(()),
    }
}

fn twice(id: &str) -> Failure {
    format!("entry `{id}` comes twice").into()
}

impl Known {
    fn new(sent: &types::Entry, trust_domain: &TrustDomain) -> Arc<Self> {
        Arc::new(Self {
            revision: Revision::new(sent.revision_number, sent.created_at),
            outcome: messages::entry(sent, trust_domain),
        })
    }
}

impl Revision {
    fn new(number: i64, created: i64) -> Self {
        Self { number, created }
    }

    /// Whether the server's newest is this one.
    fn is(self, newest: Self) -> bool {
        self.number == newest.number && (newest.created == 0 || self.created == newest.created)
    }
}
