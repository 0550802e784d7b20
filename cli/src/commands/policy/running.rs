//! `sidegate policy`: the policy of a running instance.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::SCHEMA;
use crate::admin::{
    AdminClient, DecisionLogFacts, Nothing, PolicyFacts, Promotion, RefusedSources, rfc3339,
};
use crate::arguments::{OutputFormat, StateArguments};
use crate::commands::block_on;
use crate::failure::Failure;
use crate::instance::BundleStatus;
use crate::output;

/// What `-o json` prints.
#[derive(Debug, Serialize)]
struct Document<'a, Facts> {
    schema: u32,
    #[serde(flatten)]
    facts: &'a Facts,
}

/// Asks the instance which policy it has. `false` where the last change did not go well.
pub(super) fn status(arguments: &StateArguments) -> Result<bool, Failure> {
    let policy = block_on(AdminClient::new(&arguments.state).status())?.policy;
    print(arguments, &policy, &policy)?;
    let candidate = policy.shadow.as_ref();
    let is_refused = policy.refused.is_some()
        || policy.bundles.iter().any(|bundle| bundle.error.is_some())
        || candidate.is_some_and(|candidate| candidate.refused.is_some());
    Ok(!is_refused && policy.denials.is_none())
}

/// Has the instance go back, and prints what it has then.
pub(super) fn roll_back(arguments: &StateArguments) -> Result<bool, Failure> {
    let admin = AdminClient::new(&arguments.state);
    let policy: PolicyFacts = block_on(admin.post("/v1/policy/rollback", &Nothing {}))?;
    print(arguments, &policy, &policy)?;
    Ok(true)
}

/// Has the instance decide by its candidate, and prints what it has then. `false` where the
/// candidate's sources decided already.
pub(super) fn promote(arguments: &StateArguments) -> Result<bool, Failure> {
    let admin = AdminClient::new(&arguments.state);
    let promotion: Promotion = block_on(admin.post("/v1/policy/promote", &Nothing {}))?;
    print(arguments, &promotion, &promotion.policy)?;
    Ok(promotion.is_changed)
}

/// All facts as JSON, or the policy for people.
fn print(
    arguments: &StateArguments,
    facts: &impl Serialize,
    policy: &PolicyFacts,
) -> Result<(), Failure> {
    match arguments.output {
        OutputFormat::Json => output::print_json(&Document {
            schema: SCHEMA,
            facts,
        }),
        OutputFormat::Text => output::print(&describe(policy)),
    }
}

fn describe(policy: &PolicyFacts) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<12}{}", value.replace('\n', "\n            "));
    };
    let sources_of = policy
        .sources_of
        .map(|number| format!(", the sources of {number}"));
    let generation = format!(
        "{}{} since {}",
        policy.generation,
        sources_of.unwrap_or_default(),
        moment(policy.since)
    );
    line("generation", &generation);
    let origin = match (policy.is_promoted, &policy.shadow) {
        (true, Some(shadow)) => &shadow.path,
        _ => policy.origin(),
    };
    line("sources", &format!("{origin}, {}", policy.content()));
    line("requests", &policy.entrypoint);
    line(
        "connections",
        match policy.connect {
            true => "sidegate/connect/allow",
            false => "all, decided by their requests",
        },
    );
    if let Some(engine) = &policy.engine {
        line("engine", &engine.summary());
    }
    if let Some(previous) = policy.previous {
        line("before", &previous.to_string());
    }
    if policy.is_promoted {
        let configured = policy.origin();
        let promoted = format!(
            "the candidate; the next start loads {configured}, unless the configuration changes"
        );
        line("promoted", &promoted);
    }
    if let Some(refused) = &policy.refused {
        line("refused", &refusal(refused));
    }
    for bundle in &policy.bundles {
        line("bundle", &describe_bundle(bundle));
    }
    if let Some(shadow) = &policy.shadow {
        line("candidate", &shadow.summary());
        line("compared", &shadow.comparison());
        if let Some(refused) = &shadow.refused {
            line("refused", &format!("candidate: {}", refusal(refused)));
        }
    }
    if let Some(jump) = &policy.denials {
        line("denials", &jump.summary());
    }
    if let Some(log) = &policy.decision_log {
        line("decisions", &describe_log(log));
    }
    text
}

fn refusal(refused: &RefusedSources) -> String {
    let at = moment(refused.at);
    format!("{} at {at}: {}", refused.code, refused.message)
}

fn describe_log(log: &DecisionLogFacts) -> String {
    let mut text = log.summary();
    for (code, problem) in log.loss().into_iter().chain(log.delay()) {
        text.push_str(&format!("\n{code}: {problem}"));
    }
    text
}

fn describe_bundle(bundle: &BundleStatus) -> String {
    let mut text = bundle.summary();
    if let Some(last) = bundle.last_success {
        text.push_str(&format!(", looked for at {}", moment(last)));
    }
    if let Some(error) = &bundle.error {
        text.push_str(&format!("\n{}: {}", error.code, error.message));
    }
    text
}

fn moment(seconds: u64) -> String {
    rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}
