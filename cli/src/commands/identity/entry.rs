//! `sidegate identity entry`.

use std::fmt::Write;

use sidegate_identity::entry::EntryRequest;
use sidegate_identity::registry::Origin;

use super::{instance, print};
use crate::admin::{EntryDocument, EntryList, NewEntry, Removed};
use crate::arguments::{CreateArguments, EntryArguments, ListArguments};
use crate::failure::Failure;
use crate::table::Table;

/// Makes an entry, and prints it.
pub(super) async fn create(arguments: &CreateArguments) -> Result<(), Failure> {
    let entry = NewEntry {
        id: arguments.entry_id.clone(),
        entry: Table(EntryRequest {
            spiffe_id: arguments.spiffe_id.clone(),
            selectors: arguments.selector.clone(),
            dns_names: arguments.dns_name.clone(),
            x509_svid_ttl: arguments.x509_svid_ttl,
            jwt_svid_ttl: arguments.jwt_svid_ttl,
            hint: arguments.hint.clone(),
            audiences: arguments.audience.clone(),
            federates_with: arguments.federates_with.clone(),
        }),
    };
    let admin = instance(&arguments.instance);
    let created: EntryDocument = admin.post("/v1/entries", &entry).await?;
    print(&arguments.instance, &created, describe)
}

/// Prints all entries, or those that are asked for.
pub(super) async fn list(arguments: &ListArguments) -> Result<(), Failure> {
    let admin = instance(&arguments.instance);
    let mut list: EntryList = admin.get("/v1/entries").await?;
    list.entries.retain(|document| {
        let entry = &document.entry;
        let wanted = arguments.spiffe_id.as_ref();
        wanted.is_none_or(|id| *id == entry.spiffe_id)
            && arguments
                .selector
                .iter()
                .all(|selector| entry.selectors.contains(selector))
    });
    print(&arguments.instance, &list, |list| {
        let blocks: Vec<_> = list.entries.iter().map(describe).collect();
        blocks.join("\n")
    })
}

/// Prints one entry.
pub(super) async fn show(arguments: &EntryArguments) -> Result<(), Failure> {
    let admin = instance(&arguments.instance);
    let path = format!("/v1/entries/{}", arguments.entry);
    let entry: EntryDocument = admin.get(&path).await?;
    print(&arguments.instance, &entry, describe)
}

/// Removes an entry, and prints what it was.
pub(super) async fn delete(arguments: &EntryArguments) -> Result<(), Failure> {
    let admin = instance(&arguments.instance);
    let path = format!("/v1/entries/{}", arguments.entry);
    let removed: Removed = admin.delete(&path).await?;
    print(&arguments.instance, &removed, |removed| {
        let EntryDocument { id, entry, .. } = &removed.removed;
        format!("removed {id}: {}\n", entry.spiffe_id)
    })
}

/// An entry, one fact a line, as SPIRE shows it.
fn describe(document: &EntryDocument) -> String {
    let entry = &document.entry;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:<18}: {value}", name);
    };
    line("Entry ID", &document.id);
    line("SPIFFE ID", &entry.spiffe_id);
    line(
        "Origin",
        match document.origin {
            Origin::Configuration => "configuration",
            Origin::Runtime => "run time",
            Origin::SpireServer => "SPIRE server",
        },
    );
    line("Created", &document.created_at);
    let ttl = |ttl: Option<std::time::Duration>| match ttl {
        Some(ttl) => humantime::format_duration(ttl).to_string(),
        None => "default".to_owned(),
    };
    line("X509-SVID TTL", &ttl(entry.x509_svid_ttl));
    line("JWT-SVID TTL", &ttl(entry.jwt_svid_ttl));
    for (name, values) in [
        ("Selector", &entry.selectors),
        ("DNS name", &entry.dns_names),
        ("Audience", &entry.audiences),
        ("FederatesWith", &entry.federates_with),
    ] {
        values.iter().for_each(|value| line(name, value));
    }
    if !entry.hint.is_empty() {
        line("Hint", &entry.hint);
    }
    text
}
