//! X.509-SVIDs, as they are printed.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use sidegate_identity::clock::{Clock, SystemClock};
use sidegate_identity::tls::PeerIdentity;
use spiffe::{X509Context, X509Svid};

use super::files::{self, SvidFiles};
use super::{ask, refused, rfc3339};
use crate::arguments::{FetchX509Arguments, OutputFormat};
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Serialize)]
struct Fetched {
    svids: Vec<Svid>,
}

/// An SVID without its key.
#[derive(Debug, Serialize)]
pub(super) struct Svid {
    spiffe_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// RFC 3339.
    not_before: String,
    /// RFC 3339.
    not_after: String,
    /// PEM, leaf first.
    chain: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<SvidFiles>,
    #[serde(skip)]
    left: Duration,
}

/// Fetches once, writes files if asked to, and prints.
pub(super) fn fetch(arguments: &FetchX509Arguments) -> Result<(), Failure> {
    let context = ask(&arguments.client.socket, async |client| {
        client.fetch_x509_context().await.map_err(refused)
    })?;
    let svids = take(&context, arguments.write.as_deref())?;
    match arguments.client.output {
        OutputFormat::Json => output::print_json(&Fetched { svids }),
        OutputFormat::Text => output::print(&svids.iter().map(Svid::text).collect::<String>()),
    }
}

/// Describes the SVIDs, and writes them to a directory if there is one.
pub(super) fn take(context: &X509Context, write: Option<&Path>) -> Result<Vec<Svid>, Failure> {
    let now = SystemClock.now();
    let described = context.svids().iter().map(|svid| describe(svid, now));
    let mut svids = described.collect::<Result<Vec<_>, _>>()?;
    if let Some(directory) = write {
        let files = files::write_all(directory, context)?;
        for (svid, files) in svids.iter_mut().zip(files) {
            svid.files = Some(files);
        }
    }
    Ok(svids)
}

fn describe(svid: &X509Svid, now: SystemTime) -> Result<Svid, Failure> {
    let leaf = svid.leaf().as_bytes().into();
    let identity =
        PeerIdentity::from_leaf(&leaf).map_err(|error| Failure::new("SG0051", &error))?;
    let left = identity.validity.not_after.duration_since(now);
    Ok(Svid {
        spiffe_id: svid.spiffe_id().to_string(),
        hint: svid.hint().map(ToOwned::to_owned),
        not_before: rfc3339(identity.validity.not_before),
        not_after: rfc3339(identity.validity.not_after),
        chain: files::pem(svid.cert_chain()),
        files: None,
        left: left.unwrap_or_default(),
    })
}

impl Svid {
    /// The lines about it, then its certificates unless they are in a file.
    fn text(&self) -> String {
        match &self.files {
            Some(_) => self.lines(),
            None => self.lines() + &self.chain,
        }
    }

    pub(super) fn lines(&self) -> String {
        let left = Duration::from_secs(self.left.as_secs());
        let hint = self.hint.as_ref();
        let hint = hint.map(|hint| format!("Hint:       {hint}\n"));
        let files = self.files.as_ref().map(SvidFiles::lines);
        format!(
            "SPIFFE ID:  {}\n{}Valid from: {}\nValid to:   {} ({} left)\n{}",
            self.spiffe_id,
            hint.unwrap_or_default(),
            self.not_before,
            self.not_after,
            humantime::format_duration(left),
            files.unwrap_or_default(),
        )
    }
}

impl SvidFiles {
    fn lines(&self) -> String {
        let Self {
            svid, key, bundle, ..
        } = self;
        let federated = self.federated_bundles.iter();
        let federated = federated.map(|(name, file)| format!("Federated:  {file} ({name})\n"));
        format!("SVID:       {svid}\nKey:        {key}\nBundle:     {bundle}\n")
            + &federated.collect::<String>()
    }
}
