//! A running instance, by what it tells and what can be seen of it.

use std::collections::BTreeSet;
use std::path::Path;

use sidegate_identity::TrustDomain;
use sidegate_identity::embedded::AuthorityKind;
use sidegate_identity::received::{SourceKind, SourceStatus};

use super::{Category, Check, authority, egress, file_descriptors, probe, span, spire};
use crate::admin::{
    AdminClient, DecisionLogFacts, Refusal, RefusedSources, ShadowFacts, Status, SvidStatus,
};
use crate::failure::Failure;
use crate::instance::StateDirectory;

/// What the command line itself has seen.
pub(super) struct Seen {
    pub(super) directory: Result<(), Failure>,
    pub(super) workload_api: Result<(), String>,
}

/// Checks the instance that uses a state directory.
///
/// # Errors
/// There may be one, and it cannot be asked.
pub(crate) async fn running(state: &Path) -> Result<Vec<Category>, Failure> {
    let state = &std::path::absolute(state).map_err(|error| Failure::new("SG0001", &error))?;
    let admin = AdminClient::new(state);
    if !admin.is_there() {
        return Ok(Category::new("state", vec![absent(state)])
            .into_iter()
            .collect());
    }
    let status = admin.status().await?;
    let trust_domain = status.trust_domain.as_ref().map(TrustDomain::new);
    let trust_domain = trust_domain.transpose();
    let trust_domain = trust_domain.map_err(|error| Failure::new("SG0054", &error))?;
    let seen = Seen {
        directory: StateDirectory::look(state, status.uid, trust_domain.as_ref()).map(drop),
        workload_api: match &status.workload_socket {
            Some(socket) => probe::workload_api(socket).await,
            None => Ok(()),
        },
    };
    Ok(rows(state, &status, seen))
}

/// The rows for what was told and seen.
pub(super) fn rows(state: &Path, status: &Status, seen: Seen) -> Vec<Category> {
    let categories = [
        Category::new("state", instance(state, status, seen.directory)),
        Category::new("configuration", configuration(status)),
        Category::new("identity", identity(status)),
        Category::new("workload API", workload_api(status, seen.workload_api)),
        Category::new("policy", policy(status)),
        Category::new("listeners", listeners(status)),
        Category::new("components", components(status)),
    ];
    categories.into_iter().flatten().collect()
}

fn absent(state: &Path) -> Check {
    let row = Check::ok("instance", "instance answers", state.display().to_string());
    let reason = match state.is_dir() {
        true => "no instance uses this state directory",
        false => "there is no such state directory",
    };
    row.error("SG0054", reason)
        .hint("`sidegate up` or `sidegate run` starts one; --state names its directory")
}

fn instance(state: &Path, status: &Status, directory: Result<(), Failure>) -> Vec<Check> {
    let what = "state directory is private";
    let mut rows =
        Check::ok("state-directory", what, state.display().to_string()).unless(directory);
    let whose = match &status.trust_domain {
        Some(trust_domain) => format!("trust domain {trust_domain}"),
        None => "no identities".to_owned(),
    };
    let told = format!(
        "sidegate {}, process {}, {whose}",
        status.version, status.pid
    );
    rows.push(Check::ok("instance", "instance answers", told));
    let scheme = if status.admin_tls { "https" } else { "http" };
    let page = format!("{scheme}://{}/readyz", status.admin);
    let ready = Check::ok("readiness", "instance is ready", page);
    rows.push(match status.missing.as_slice() {
        [] => ready,
        missing => ready.error("SG0060", missing.join("; ")),
    });
    rows.extend(status.failing.iter().map(|failing| {
        Check::ok("renewal", "everything is renewed", "")
            .warning("SG0149", failing)
            .hint("it is tried again each second; look at the log")
    }));
    rows
}

/// Only what is not well: most instances never reload.
fn configuration(status: &Status) -> Vec<Check> {
    let mut rows = Vec::new();
    if let Some(descriptors) = &status.descriptors {
        rows.extend(file_descriptors(descriptors));
    }
    let Some(reload) = &status.reload else {
        return rows;
    };
    if let Some(refused) = &reload.refused {
        let row = Check::ok("reload", "configuration file can be used", &reload.file);
        let row = row.error("SG0072", format!("it is refused:\n{refused}"));
        rows.push(row.hint("what runs stays as it is; mend the file, and send SIGHUP again"));
    }
    rows.extend(reload.restart.iter().map(|key| {
        Check::ok("restart", "configuration file is what runs", key)
            .warning("SG0073", "its change needs a restart")
    }));
    if let Some(problem) = &reload.access_log {
        let row = Check::ok("access-log", "access log can be opened again", "");
        let row = row.error("SG0071", problem);
        rows.push(row.hint("lines go to the file that was open; mend it, and send SIGHUP again"));
    }
    rows
}

fn identity(status: &Status) -> Vec<Check> {
    if status.source.kind == SourceKind::None {
        return vec![off()];
    }
    let counts = status.entries;
    let entries = match &status.agent {
        Some(agent) => spire::entries(agent),
        None => format!(
            "{} in the configuration, {} made at run time",
            counts.configuration, counts.runtime
        ),
    };
    let mut rows = vec![Check::ok("entries", "entries are valid", entries)];
    rows.extend(svids(&status.svids, status.now));
    if let Some(agent) = &status.agent {
        rows.extend(spire::agent(agent, status.now));
        return rows;
    }
    if status.source.kind != SourceKind::Embedded {
        rows.push(source(&status.source));
        return rows;
    }
    let all = &status.authorities;
    let brought = status.brought.as_deref();
    rows.extend(authority(
        AuthorityKind::X509,
        &all.x509,
        brought,
        status.now,
    ));
    rows.extend(authority(AuthorityKind::Jwt, &all.jwt, None, status.now));
    rows
}

/// Where nobody has an identity.
pub(crate) fn off() -> Check {
    let detail = "the source is `none`: no SVIDs, no Workload API, and listeners without TLS";
    Check::ok("identity-source", "identity is off", detail)
}

/// The stock policy where nobody has an identity.
pub(crate) fn stock_policy() -> Check {
    Check::ok("policy-identity", "policy can allow somebody", "")
        .warning(
            "SG0189",
            "the stock policy allows nobody who has no identity",
        )
        .hint("write a policy that says what is allowed, and name it in `policy.path`")
}

/// A listener of which nobody learns who it is, nor it who asks.
pub(crate) fn plaintext(listener: &str) -> Check {
    let what = "listener takes plaintext";
    Check::ok(
        "listener-plaintext",
        what,
        format!("{listener}, `tls` is off"),
    )
}

/// Where others mint.
fn source(source: &SourceStatus) -> Check {
    let row = Check::ok(
        "identity-source",
        "identity source gives SVIDs",
        source.kind.to_string(),
    );
    match &source.down {
        None => row,
        // Since when, and until when, is among what is failing.
        Some(down) => row.warning(down.code.clone(), &down.error),
    }
}

/// One row for each SVID that is late, and one for the others together.
fn svids(all: &[SvidStatus], now: u64) -> Vec<Check> {
    let row = |detail: &str| Check::ok("x509-svids", "X.509-SVIDs are fresh", detail);
    let mut rows = Vec::new();
    let mut fresh = Vec::new();
    for svid in all {
        let life = svid.not_after.saturating_sub(svid.issued_at);
        let left = svid.not_after.saturating_sub(now);
        if left == 0 {
            let ago = span(now - svid.not_after);
            let late = row(&svid.spiffe_id).error("SG0181", format!("it expired {ago} ago"));
            rows.push(late.hint("the log says why it is not renewed"));
        } else if left * 3 < life {
            let reason = format!("two thirds of its life are over, {} are left", span(left));
            let late = row(&svid.spiffe_id).warning("SG0180", reason);
            rows.push(late.hint("it is renewed at half of its life; the log says why it is not"));
        } else {
            fresh.push(left);
        }
    }
    match fresh.iter().min() {
        Some(left) => rows.insert(
            0,
            row(&format!(
                "{}, the first ends in {}",
                fresh.len(),
                span(*left)
            )),
        ),
        None if rows.is_empty() => rows.push(row("none, as there are no entries")),
        None => {}
    }
    rows
}

/// Nothing where it is not served.
fn workload_api(status: &Status, answer: Result<(), String>) -> Vec<Check> {
    let socket = status.workload_socket.iter();
    let rows = socket.map(|socket| {
        let row = Check::ok("workload-api", "Workload API answers", socket);
        match &answer {
            Ok(()) => row,
            Err(problem) => row.error("SG0050", problem),
        }
    });
    rows.collect()
}

fn policy(status: &Status) -> Vec<Check> {
    let policy = &status.policy;
    let detail = format!("{}, generation {}", policy.summary(), policy.generation);
    let row = Check::ok("policy", "policy decides", detail);
    let mut rows = vec![match (policy.is_rolled_back, policy.sources_of) {
        (true, Some(sources_of)) => row
            .warning(
                "SG0253",
                format!("it was rolled back to the sources of generation {sources_of}"),
            )
            .hint("change the sources; or `sidegate policy rollback` again, to return to them"),
        _ => row,
    }];
    rows.extend(egress(policy.egress));
    let is_stock = policy.path.is_none() && !policy.is_promoted;
    if is_stock && status.source.kind == SourceKind::None {
        rows.push(stock_policy());
    }
    if policy.is_promoted {
        let reason = format!("the next start loads {} again", policy.origin());
        rows.push(
            Check::ok("policy-promoted", "configured policy decides", "")
                .warning("SG0256", format!("the candidate was promoted: {reason}"))
                .hint("make the candidate's sources those of the configuration; or `sidegate policy rollback`"),
        );
    }
    if let Some(RefusedSources { code, message, .. }) = &policy.refused {
        let refusal = Refusal {
            code: code.clone(),
            message: message.clone(),
            hint: Some(format!(
                "generation {} decides until they are mended",
                policy.generation
            )),
        };
        let row = Check::ok("policy-sources", "newest sources are the policy", "");
        rows.extend(row.unless(Err::<(), _>(refusal.into())));
    }
    rows.extend(policy.bundles.iter().map(|bundle| {
        let row = Check::ok("policy-bundle", "bundle is up to date", bundle.summary());
        match &bundle.error {
            None => row,
            Some(error) => row
                .warning(error.code.clone(), &error.message)
                .hint("the one in use stays; it is tried again"),
        }
    }));
    rows.extend(policy.shadow.as_ref().map(candidate));
    if let Some(jump) = policy.denials {
        rows.push(
            Check::ok("policy-denials", "denials are as before", "")
                .error("SG0252", jump.summary())
                .hint("if that was not meant, `sidegate policy rollback`"),
        );
    }
    rows.extend(policy.decision_log.as_ref().map(decision_log));
    rows
}

fn decision_log(log: &DecisionLogFacts) -> Check {
    let row = Check::ok("decision-log", "decisions are logged", log.summary());
    match (log.loss(), log.delay()) {
        (Some((code, reason)), _) => row
            .error(code, reason)
            .hint("`sidegate_decision_log_dropped_total` counts them by the reason"),
        (None, Some((code, reason))) => row
            .warning(code, reason)
            .hint("it is tried again; what `decision_log.buffer_size` does not hold is lost"),
        (None, None) => row,
    }
}

fn candidate(shadow: &ShadowFacts) -> Check {
    let detail = format!("{}; {}", shadow.summary(), shadow.comparison());
    let row = Check::ok("policy-shadow", "candidate is compared", detail);
    match &shadow.refused {
        None => row,
        Some(refused) => row
            .warning(refused.code.clone(), &refused.message)
            .hint("the last candidate is compared until its files are mended"),
    }
}

fn listeners(status: &Status) -> Vec<Check> {
    let rows = status.listeners.iter().map(|facts| {
        let listener = &facts.listener;
        let at = format!("{}, {}", listener.name, listener.address);
        let Some(spiffe_id) = &listener.spiffe_id else {
            return plaintext(&at);
        };
        let detail = format!("{at}, {spiffe_id}");
        let row = Check::ok("listener-identity", "listener has an identity", detail);
        if facts.has_svid {
            return row;
        }
        match status.source.kind {
            SourceKind::Embedded => row
                .error(
                    "SG0042",
                    "its entry was removed: it refuses every connection",
                )
                .hint("make the entry again, or restart with another that matches"),
            SourceKind::None
            | SourceKind::Files
            | SourceKind::WorkloadApi
            | SourceKind::SpireServer => row.error(
                "SG0042",
                "the identity source gives no SVID for it: it refuses every connection",
            ),
        }
    });
    let tcp = status.listeners.iter().map(|facts| &facts.listener);
    let tcp = tcp.filter(|listener| listener.is_tcp);
    // A listener is there once for each of its identities.
    let tcp: BTreeSet<&str> = tcp.map(|listener| listener.name.as_str()).collect();
    let tcp = tcp.into_iter();
    let tcp = tcp.map(|listener| tcp_policy(listener, status.policy.connect));
    rows.chain(tcp).collect()
}

/// Whether anybody can get a connection to a TCP listener.
pub(crate) fn tcp_policy(listener: &str, decides: bool) -> Check {
    let row = Check::ok("tcp-policy", "policy decides on connections", listener);
    match decides {
        true => row,
        false => row
            .warning("SG0386", "no connection to it is allowed")
            .hint("add a rule `allow` to the package `sidegate.connect` of the policy"),
    }
}

fn components(status: &Status) -> Vec<Check> {
    let rows = status.components.iter().map(|component| {
        let detail = format!("{}, {}", component.name, component.digest);
        Check::ok("component", "component is loaded", detail)
    });
    rows.collect()
}
