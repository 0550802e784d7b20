//! The registration entries that count: those of the configuration, and those that were made at run
//! time, which are kept in a file.

mod error;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use spiffe::TrustDomain;
use tracing::warn;
use uuid::Uuid;

use crate::clock::{moment, seconds};
use crate::durable;
use crate::entry::{Entry, EntryError, EntryRequest};
pub use error::RegistryError;

const FORMAT: u32 = 1;

/// The ids of entries that the configuration makes begin so.
const CONFIGURED: &str = "configuration-";

/// The longest id of an entry, as in SPIRE.
const LONGEST_ID: usize = 255;

/// All entries, in the order in which they count.
#[derive(Debug)]
pub struct EntryRegistry {
    path: PathBuf,
    trust_domain: TrustDomain,
    registrations: Vec<Registration>,
    /// Made at run time, and in the configuration now too: kept for when they stand there no more.
    shadowed: Vec<FileEntry>,
}

/// An entry with what the registry knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Names it; unique.
    pub id: String,
    /// Where it comes from.
    pub origin: Origin,
    /// When it was made, to the second; for an entry of the configuration, when that was read.
    pub created_at: SystemTime,
    /// The entry itself.
    pub entry: Arc<Entry>,
}

/// Where an entry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The configuration: it stays for as long as it stands there.
    Configuration,
    /// An operator, at run time.
    Runtime,
    /// The SPIRE server.
    #[serde(rename = "spire-server")]
    SpireServer,
}

/// The file of the entries that were made at run time.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    trust_domain: String,
    entries: Vec<FileEntry>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    id: String,
    /// Seconds since 1970.
    created_at: u64,
    entry: EntryRequest,
}

impl EntryRegistry {
    /// Takes the entries of the configuration and those of the file, if there is one. An entry of
    /// the file whose twin stands in the configuration does not count.
    ///
    /// # Errors
    /// A file that does not hold valid entries, every one of them, is refused and left as it is.
    pub fn open(
        path: PathBuf,
        trust_domain: TrustDomain,
        configured: Vec<Entry>,
        now: SystemTime,
    ) -> Result<Self, RegistryError> {
        let configured = configured.into_iter().enumerate();
        let mut registry = Self {
            path,
            trust_domain,
            registrations: configured
                .map(|(index, entry)| Registration {
                    id: format!("{CONFIGURED}{}", index + 1),
                    origin: Origin::Configuration,
                    created_at: now,
                    entry: Arc::new(entry),
                })
                .collect(),
            shadowed: Vec::new(),
        };
        for (position, kept) in registry.read()?.into_iter().enumerate() {
            let bad = |error: RegistryError| RegistryError::BadEntry {
                path: registry.path.clone(),
                position: position + 1,
                source: Box::new(error),
            };
            let created_at = moment(kept.created_at);
            match registry.examine(Some(kept.id.clone()), kept.entry.clone(), created_at) {
                Ok(registration) => registry.registrations.push(registration),
                Err(RegistryError::Configured(configured)) => {
                    shadowed(&kept.id, &configured);
                    registry.shadowed.push(kept);
                }
                Err(error) => return Err(bad(error)),
            }
        }
        Ok(registry)
    }

    /// The entries of the configuration alone: none is made at run time.
    pub fn configured(trust_domain: TrustDomain, configured: Vec<Entry>, now: SystemTime) -> Self {
        let none = Self {
            path: PathBuf::new(),
            trust_domain,
            registrations: Vec::new(),
            shadowed: Vec::new(),
        };
        none.with_configured(configured, now)
    }

    /// All entries, in the order in which they count.
    pub fn all(&self) -> &[Registration] {
        &self.registrations
    }

    /// Checks an entry that is to be made. Without an `id` it gets a UUID.
    ///
    /// # Errors
    /// The entry breaks a rule, it has a twin, or the id is taken or no id.
    pub fn examine(
        &self,
        id: Option<String>,
        request: EntryRequest,
        now: SystemTime,
    ) -> Result<Registration, RegistryError> {
        let id = match id {
            Some(id) if !is_id(&id) => return Err(RegistryError::BadId(id)),
            Some(id) if self.is_taken(&id) => {
                return Err(RegistryError::TakenId(id));
            }
            Some(id) => id,
            None => Uuid::new_v4().to_string(),
        };
        let entry = Entry::new(request, &self.trust_domain)?;
        let twin = self
            .registrations
            .iter()
            .find(|known| known.entry.is_twin_of(&entry));
        match twin {
            Some(twin) if twin.origin == Origin::Configuration => {
                Err(RegistryError::Configured(twin.id.clone()))
            }
            Some(_) => Err(EntryError::Duplicate(entry.spiffe_id().clone()).into()),
            None => Ok(Registration {
                id,
                origin: Origin::Runtime,
                created_at: moment(seconds(now)),
                entry: Arc::new(entry),
            }),
        }
    }

    /// Adds what was examined, and keeps it.
    ///
    /// # Errors
    /// It cannot be written; the entries stay as they were.
    pub fn insert(&mut self, registration: Registration) -> Result<(), RegistryError> {
        self.registrations.push(registration);
        self.write().inspect_err(|_| {
            self.registrations.pop();
        })
    }

    /// Removes an entry that was made at run time.
    ///
    /// # Errors
    /// There is none, it stands in the configuration, or the change cannot be written; the entries
    /// stay as they were.
    pub fn remove(&mut self, id: &str) -> Result<Registration, RegistryError> {
        let position = self.registrations.iter().position(|known| known.id == id);
        let position = position.ok_or_else(|| RegistryError::UnknownId(id.to_owned()))?;
        let removed = self.registrations.remove(position);
        let written = match removed.origin {
            Origin::Configuration | Origin::SpireServer => {
                Err(RegistryError::InConfiguration(id.to_owned()))
            }
            Origin::Runtime => self.write(),
        };
        match written {
            Ok(()) => Ok(removed),
            Err(error) => {
                self.registrations.insert(position, removed);
                Err(error)
            }
        }
    }

    /// The same registry with other entries of the configuration. Entries that stay are the very ones
    /// that are there. As in [`EntryRegistry::open`], an entry that was made at run time does not
    /// count while its twin stands in the configuration.
    #[must_use]
    pub(crate) fn with_configured(&self, configured: Vec<Entry>, now: SystemTime) -> Self {
        let of = |origin| {
            self.registrations
                .iter()
                .filter(move |it| it.origin == origin)
        };
        let numbered = configured.into_iter().enumerate();
        let mut next = Self {
            path: self.path.clone(),
            trust_domain: self.trust_domain.clone(),
            registrations: numbered
                .map(|(index, entry)| {
                    let known = of(Origin::Configuration).find(|known| *known.entry == entry);
                    Registration {
                        id: format!("{CONFIGURED}{}", index + 1),
                        origin: Origin::Configuration,
                        created_at: known.map_or(now, |known| known.created_at),
                        entry: known
                            .map_or_else(|| Arc::new(entry), |known| Arc::clone(&known.entry)),
                    }
                })
                .collect(),
            shadowed: Vec::new(),
        };
        for known in of(Origin::Runtime) {
            let mut counting = next.registrations.iter();
            match counting.find(|it| it.entry.is_twin_of(&known.entry)) {
                None => next.registrations.push(known.clone()),
                Some(twin) => {
                    shadowed(&known.id, &twin.id);
                    next.shadowed.push(FileEntry::of(known));
                }
            }
        }
        for kept in &self.shadowed {
            let created_at = moment(kept.created_at);
            match next.examine(Some(kept.id.clone()), kept.entry.clone(), created_at) {
                Ok(registration) => next.registrations.push(registration),
                // Its twin still stands there.
                Err(_) => next.shadowed.push(kept.clone()),
            }
        }
        next
    }

    fn is_taken(&self, id: &str) -> bool {
        self.registrations.iter().any(|known| known.id == id)
            || self.shadowed.iter().any(|known| known.id == id)
    }

    fn read(&self) -> Result<Vec<FileEntry>, RegistryError> {
        let read = durable::read(&self.path).map_err(|source| RegistryError::File {
            action: "read",
            path: self.path.clone(),
            source,
        })?;
        let Some(text) = read else {
            return Ok(Vec::new());
        };
        let damaged = |problem: String| RegistryError::Damaged {
            path: self.path.clone(),
            problem,
        };
        let file: File =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if file.format != FORMAT {
            let found = file.format;
            return Err(damaged(format!(
                "its format is {found}, this version knows {FORMAT}"
            )));
        }
        if file.trust_domain != self.trust_domain.as_str() {
            let found = file.trust_domain;
            return Err(damaged(format!("it belongs to the trust domain `{found}`")));
        }
        Ok(file.entries)
    }

    fn write(&self) -> Result<(), RegistryError> {
        let kept = self
            .registrations
            .iter()
            .filter(|registration| registration.origin == Origin::Runtime);
        let file = File {
            format: FORMAT,
            trust_domain: self.trust_domain.to_string(),
            entries: kept
                .map(FileEntry::of)
                .chain(self.shadowed.iter().cloned())
                .collect(),
        };
        serde_json::to_vec_pretty(&file)
            .map_err(io::Error::other)
            .and_then(|text| durable::replace(&self.path, &text))
            .map_err(|source| RegistryError::File {
                action: "write",
                path: self.path.clone(),
                source,
            })
    }
}

impl FileEntry {
    fn of(registration: &Registration) -> Self {
        Self {
            id: registration.id.clone(),
            created_at: seconds(registration.created_at),
            entry: registration.entry.to_request(),
        }
    }
}

fn shadowed(id: &str, configured: &str) {
    warn!(
        code = "SG0118",
        id,
        configured,
        "an entry made at run time stands in the configuration too: that one counts",
    );
}

/// Letters, digits, `-`, `_` and `.`, and not one of the configuration's.
fn is_id(id: &str) -> bool {
    (1..=LONGEST_ID).contains(&id.len())
        && !id.starts_with(CONFIGURED)
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests;
