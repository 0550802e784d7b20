//! `sidegate policy`: what can be done with a policy's files, and with the policy of a running
//! instance.

mod bench;
mod check;
mod eval;
mod explain;
#[cfg(test)]
mod explain_tests;
mod explain_text;
mod failed;
mod findings;
mod input;
mod replay;
mod running;
mod test;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use sidegate_policy::question::{DecisionPoint, suggestion};
use sidegate_policy::{PolicyError, PolicyFiles, PolicySources, lint};

use crate::arguments::{PolicyCommand, PolicyPaths};
use crate::failure::Failure;
use failed::told;
use findings::render;

/// The version of the JSON documents.
const SCHEMA: u32 = 1;

/// Does it. `false` is the answer no.
pub(super) fn execute(command: &PolicyCommand) -> Result<bool, Failure> {
    match command {
        PolicyCommand::Test(arguments) => told(arguments.output, test::execute(arguments)),
        PolicyCommand::Check(arguments) => told(arguments.output, check::execute(arguments)),
        PolicyCommand::Eval(arguments) => told(arguments.question.output, eval::execute(arguments)),
        PolicyCommand::Bench(arguments) => {
            told(arguments.question.output, bench::execute(arguments))
        }
        PolicyCommand::Explain(arguments) => told(arguments.output, explain::execute(arguments)),
        PolicyCommand::Replay(arguments) => replay::execute(arguments),
        PolicyCommand::Status(arguments) => told(arguments.output, running::status(arguments)),
        PolicyCommand::Rollback(arguments) => told(arguments.output, running::roll_back(arguments)),
        PolicyCommand::Promote(arguments) => told(arguments.output, running::promote(arguments)),
    }
}

fn read(paths: &PolicyPaths) -> Result<PolicyFiles, Failure> {
    match paths.paths.as_slice() {
        [] => Ok(PolicyFiles::stock()),
        paths => read_paths(paths),
    }
}

fn read_paths(paths: &[PathBuf]) -> Result<PolicyFiles, Failure> {
    let files = PolicyFiles::read(paths).map_err(|error| Failure::new(error.code(), &error))?;
    for bundle in files.unverified() {
        findings::tell(&format!(
            "warning: the signature of {bundle} is not verified\n"
        ));
    }
    Ok(files)
}

/// The sources of a policy that can be asked; what is wrong with another is told at its places.
fn usable(files: &PolicyFiles) -> Result<PolicySources, Failure> {
    lint::usable(files).map_err(|report| {
        findings::tell(&render(&report.findings, files, findings::told_in_color()));
        let count = report.findings.len();
        let errors = if count == 1 { "error" } else { "errors" };
        let code = report.findings.first().map_or("SG0208", |it| it.code);
        let message = format!("the policy cannot be used: it has {count} {errors}");
        Failure::message(code, message).findings(report.findings)
    })
}

fn refused(error: PolicyError) -> Failure {
    Failure::new(error.code(), &error)
}

/// The same, with what was likely meant by an entrypoint that is not there.
fn refused_entrypoint(error: PolicyError, sources: &PolicySources, entrypoint: &str) -> Failure {
    if !matches!(error, PolicyError::EntrypointMissing { .. }) {
        return refused(error);
    }
    match suggestion(sources, entrypoint) {
        Some(meant) => refused(error).help(format!("did you mean `{meant}`?")),
        None if entrypoint == DecisionPoint::Connect.entrypoint() => refused(error)
            .help("without the package sidegate.connect connections are left to ingress"),
        None => refused(error),
    }
}
