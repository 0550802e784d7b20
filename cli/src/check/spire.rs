//! The agent of a SPIRE server.

use sidegate_identity::spire::{AgentStatus, Phase};

use super::{Check, counted, span};

/// More of a kind would hide the rest.
const SHOWN: usize = 10;

/// Whether it may still act, and what of the server's it cannot serve.
pub(super) fn agent(agent: &AgentStatus, now: u64) -> Vec<Check> {
    let id = agent.agent_id.as_deref().unwrap_or("no SVID of its own");
    let ends = agent.agent_expires.map(|end| end.saturating_sub(now));
    let detail = match ends {
        Some(left) => format!("{id}, its own SVID ends in {}", span(left)),
        None => id.to_owned(),
    };
    let row = Check::ok("spire-agent", "SPIRE server knows this agent", detail);
    let failing = agent.failing.as_ref();
    let hint = failing.and_then(|failing| failing.hint.clone());
    let row = match (agent.phase, failing) {
        (Phase::Banned, Some(failing)) => row.error(failing.code.clone(), &failing.error),
        (Phase::Starting | Phase::Failing, Some(failing)) => {
            let reason = match agent.failing_since {
                Some(since) => {
                    let ago = span(now.saturating_sub(since));
                    format!("{}; since {ago}, {}", failing.error, budget(agent, now))
                }
                None => failing.error.clone(),
            };
            row.warning(failing.code.clone(), reason)
        }
        _ => row,
    };
    let row = match hint {
        Some(hint) => row.hint(hint),
        None => row,
    };
    let refused = agent.refused.iter().take(SHOWN).map(|entry| {
        let detail = format!("{} ({})", entry.spiffe_id, entry.entry_id);
        Check::ok("spire-entry", "entry of SPIRE's is served", detail)
            .warning(entry.code.clone(), &entry.reason)
            .hint("change the entry at the SPIRE server; workloads that match it get nothing by it")
    });
    let more = agent.refused.len().saturating_sub(SHOWN);
    let more = (more > 0).then(|| {
        let detail = format!("{more} more are not");
        Check::ok("spire-entry", "entry of SPIRE's is served", detail)
            .warning("SG0179", "see the log, or `-o json` of the status")
    });
    let any_audience = (agent.any_audience > 0).then(|| {
        let whose = counted(agent.any_audience, "entry").replace("entrys", "entries");
        Check::ok("audiences", "audiences of JWT-SVIDs are narrowed", whose)
            .warning(
                "SG0199",
                "their workloads may ask for a JWT-SVID for anybody",
            )
            .hint("add `[[identity.audience_rule]]` for their SPIFFE IDs")
    });
    let rows = [row].into_iter().chain(refused).chain(more);
    rows.chain(any_audience).collect()
}

/// What entries there are.
pub(super) fn entries(agent: &AgentStatus) -> String {
    let AgentStatus {
        served, foreign, ..
    } = agent;
    match foreign {
        0 => format!("{served} of the SPIRE server"),
        _ => format!("{served} of the SPIRE server, {foreign} for attestors that are not here"),
    }
}

/// For how long all goes on without the server.
fn budget(agent: &AgentStatus, now: u64) -> String {
    let left = |end: Option<u64>| {
        end.map(|end| end.saturating_sub(now))
            .filter(|left| *left > 0)
    };
    match (left(agent.first_expiry), left(agent.last_expiry)) {
        (Some(first), _) => format!("{} are left until the first SVID ends", span(first)),
        (None, Some(last)) => format!("SVIDs have ended, the last ends in {}", span(last)),
        (None, None) => "no SVID is left".to_owned(),
    }
}
