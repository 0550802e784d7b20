//! `sidegate policy`: the policy of a running instance.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use crate::admin::{AdminClient, Nothing, PolicyFacts, rfc3339};
use crate::arguments::{OutputFormat, StateArguments};
use crate::commands::block_on;
use crate::failure::Failure;
use crate::output;

/// Asks the instance which policy it has. `false` where the last change did not go well.
pub(super) fn status(arguments: &StateArguments) -> Result<bool, Failure> {
    let policy = block_on(AdminClient::new(&arguments.state).status())?.policy;
    print(arguments, &policy)?;
    Ok(policy.refused.is_none() && policy.denials.is_none())
}

/// Has the instance go back, and prints what it has then.
pub(super) fn roll_back(arguments: &StateArguments) -> Result<bool, Failure> {
    let admin = AdminClient::new(&arguments.state);
    let policy: PolicyFacts = block_on(admin.post("/v1/policy/rollback", &Nothing {}))?;
    print(arguments, &policy)?;
    Ok(true)
}

fn print(arguments: &StateArguments, policy: &PolicyFacts) -> Result<(), Failure> {
    match arguments.output {
        OutputFormat::Json => output::print_json(policy),
        OutputFormat::Text => output::print(&describe(policy)),
    }
}

fn describe(policy: &PolicyFacts) -> String {
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(policy.since);
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
        rfc3339(since)
    );
    line("generation", &generation);
    line(
        "sources",
        &format!("{}, {}", policy.origin(), policy.content()),
    );
    line("requests", &policy.entrypoint);
    line(
        "connections",
        match policy.connect {
            true => "sidegate/connect/allow",
            false => "all, decided by their requests",
        },
    );
    if let Some(previous) = policy.previous {
        line("before", &previous.to_string());
    }
    if let Some(refused) = &policy.refused {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(refused.at);
        let refused = format!("{} at {}: {}", refused.code, rfc3339(at), refused.message);
        line("refused", &refused);
    }
    if let Some(jump) = &policy.denials {
        line("denials", &jump.summary());
    }
    text
}
