//! `spire.api.server.entry.v1.Entry`: which entries an agent is authorized for.

use tokio::sync::mpsc::Sender;
use tonic::{Status, Streaming};

use super::messages::{
    EntriesRequest, EntriesResponse, Entry, EntryMask, EntryRevision, SyncRequest, SyncResponse,
};
use super::state::{Caller, State};
use super::{Answer, Shared};

/// `GetAuthorizedEntries`.
pub(super) fn get(
    state: &mut State,
    caller: Option<&Caller>,
    request: EntriesRequest,
) -> Answer<EntriesResponse> {
    let agent = state.authorize(caller)?;
    let entries = masked(state.authorized(&agent), request.output_mask.as_ref());
    Ok(EntriesResponse { entries })
}

/// `SyncAuthorizedEntries`.
pub(super) async fn sync(
    shared: Shared,
    caller: Option<Caller>,
    mut requests: Streaming<SyncRequest>,
    answers: Sender<Result<SyncResponse, Status>>,
) {
    if let Err(status) = synced(&shared, caller.as_ref(), &mut requests, &answers).await {
        // Whoever does not wait for the answer needs none.
        answers.send(Err(status)).await.ok();
    }
}

async fn synced(
    shared: &Shared,
    caller: Option<&Caller>,
    requests: &mut Streaming<SyncRequest>,
    answers: &Sender<Result<SyncResponse, Status>>,
) -> Answer<()> {
    let (entries, page) = {
        let mut state = shared.lock();
        if state.behaviour.is_old {
            return Err(Status::unimplemented(
                "unknown method SyncAuthorizedEntries",
            ));
        }
        let agent = state.authorize(caller)?;
        (state.authorized(&agent), state.behaviour.page)
    };
    let gone = |_| Status::cancelled("the caller went away");
    let Some(first) = requests.message().await? else {
        return Ok(());
    };
    if !first.ids.is_empty() {
        let text = "specifying IDs on initial request is not supported";
        return Err(Status::invalid_argument(text));
    }
    let mask = first.output_mask.as_ref();
    if mask.is_some_and(|mask| !mask.revision_number) {
        let text = "revision number cannot be masked";
        return Err(Status::invalid_argument(text));
    }
    let mut entries = masked(entries, mask);
    if entries.len() <= page {
        let all = SyncResponse {
            entries,
            ..SyncResponse::default()
        };
        return answers.send(Ok(all)).await.map_err(gone);
    }
    let revisions = entries.iter().map(|entry| EntryRevision {
        id: entry.id.clone(),
        revision_number: entry.revision_number,
        created_at: entry.created_at,
    });
    let revisions: Vec<_> = revisions.collect();
    let pages = revisions.chunks(page);
    let last = pages.len() - 1;
    for (number, revisions) in pages.enumerate() {
        let page = SyncResponse {
            entry_revisions: revisions.to_vec(),
            more: number < last,
            ..SyncResponse::default()
        };
        answers.send(Ok(page)).await.map_err(gone)?;
    }
    entries.sort_by(|one, other| one.id.cmp(&other.id));
    while let Some(request) = requests.message().await? {
        let known = |id: &String| entries.binary_search_by(|entry| entry.id.cmp(id)).ok();
        let found = request.ids.iter().filter_map(known);
        let found: Vec<_> = found.map(|place| entries[place].clone()).collect();
        let mut pages = found.chunks(page).peekable();
        // An empty page says that nothing was found.
        let mut page = pages.next().unwrap_or_default();
        loop {
            let more = pages.peek().is_some();
            let answer = SyncResponse {
                entries: page.to_vec(),
                more,
                ..SyncResponse::default()
            };
            answers.send(Ok(answer)).await.map_err(gone)?;
            match pages.next() {
                Some(next) => page = next,
                None => break,
            }
        }
    }
    Ok(())
}

/// Entries with the fields that were asked for.
fn masked(mut entries: Vec<Entry>, mask: Option<&EntryMask>) -> Vec<Entry> {
    let Some(mask) = mask else {
        return entries;
    };
    for entry in &mut entries {
        let all = std::mem::take(entry);
        *entry = Entry {
            id: all.id,
            spiffe_id: all.spiffe_id.filter(|_| mask.spiffe_id),
            parent_id: all.parent_id.filter(|_| mask.parent_id),
            selectors: if mask.selectors {
                all.selectors
            } else {
                Vec::new()
            },
            x509_svid_ttl: i32::from(mask.x509_svid_ttl) * all.x509_svid_ttl,
            federates_with: if mask.federates_with {
                all.federates_with
            } else {
                Vec::new()
            },
            admin: mask.admin && all.admin,
            downstream: mask.downstream && all.downstream,
            expires_at: i64::from(mask.expires_at) * all.expires_at,
            dns_names: if mask.dns_names {
                all.dns_names
            } else {
                Vec::new()
            },
            revision_number: i64::from(mask.revision_number) * all.revision_number,
            store_svid: mask.store_svid && all.store_svid,
            jwt_svid_ttl: i32::from(mask.jwt_svid_ttl) * all.jwt_svid_ttl,
            hint: if mask.hint { all.hint } else { String::new() },
            created_at: i64::from(mask.created_at) * all.created_at,
        };
    }
    entries
}
