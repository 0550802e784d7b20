//! X.509-SVIDs, as they are printed.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use sidegate_identity::clock::{Clock, SystemClock};
use sidegate_identity::encoding::certificates_pem;
use sidegate_identity::tls::PeerIdentity;
use spiffe::X509Svid;

use super::{ask, refused, rfc3339};
use crate::arguments::{FetchArguments, OutputFormat};
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Serialize)]
struct Fetched {
    svids: Vec<Svid>,
}

#[derive(Debug, Serialize)]
struct Svid {
    spiffe_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// RFC 3339.
    not_before: String,
    /// RFC 3339.
    not_after: String,
    /// PEM, leaf first.
    chain: String,
    #[serde(skip)]
    left: Duration,
}

/// Fetches once and prints.
pub(in crate::commands) fn fetch(arguments: &FetchArguments) -> Result<(), Failure> {
    let svids = ask(&arguments.socket, async |client| {
        client.fetch_all_x509_svids().await.map_err(refused)
    })?;
    let now = SystemClock.now();
    let svids = svids
        .iter()
        .map(|svid| describe(svid, now))
        .collect::<Result<Vec<_>, _>>()?;
    match arguments.output {
        OutputFormat::Json => output::print_json(&Fetched { svids }),
        OutputFormat::Text => output::print(&svids.iter().map(Svid::text).collect::<String>()),
    }
}

fn describe(svid: &X509Svid, now: SystemTime) -> Result<Svid, Failure> {
    let chain: Vec<_> = svid
        .cert_chain()
        .iter()
        .map(|certificate| certificate.as_bytes().to_vec().into())
        .collect();
    let leaf = chain
        .first()
        .ok_or_else(|| Failure::message("SG0051", "an SVID has no certificate"))?;
    let identity = PeerIdentity::from_leaf(leaf).map_err(|error| Failure::new("SG0051", &error))?;
    Ok(Svid {
        spiffe_id: svid.spiffe_id().to_string(),
        hint: svid.hint().map(ToOwned::to_owned),
        not_before: rfc3339(identity.validity.not_before),
        not_after: rfc3339(identity.validity.not_after),
        chain: certificates_pem(&chain),
        left: identity
            .validity
            .not_after
            .duration_since(now)
            .unwrap_or_default(),
    })
}

impl Svid {
    fn text(&self) -> String {
        let left = Duration::from_secs(self.left.as_secs());
        let hint = self
            .hint
            .as_ref()
            .map(|hint| format!("Hint:       {hint}\n"));
        format!(
            "SPIFFE ID:  {}\n{}Valid from: {}\nValid to:   {} ({} left)\n{}",
            self.spiffe_id,
            hint.unwrap_or_default(),
            self.not_before,
            self.not_after,
            humantime::format_duration(left),
            self.chain,
        )
    }
}
