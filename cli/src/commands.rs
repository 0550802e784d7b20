//! What a user can say.

mod check;
mod documentation;
mod identity;
mod log;
mod policy;
mod run;
mod svid;
mod up;

use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

use crate::arguments::{Arguments, Command};
use crate::failure::Failure;
use crate::instance::{Instance, ListenerStatus};

/// What `up` and `run` print with `-o json` when they are ready.
#[derive(Debug, Serialize)]
struct Ready<'a> {
    ready: bool,
    listeners: &'a [ListenerStatus],
    admin: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload_socket: Option<String>,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    demo: Option<Demo>,
}

/// An identity to try `up` with.
#[derive(Debug, Serialize)]
struct Demo {
    spiffe_id: String,
    svid: String,
    key: String,
    bundle: String,
    url_allowed: String,
    url_denied: String,
}

impl<'a> Ready<'a> {
    fn new(instance: &'a Instance, demo: Option<Demo>) -> Self {
        Self {
            ready: true,
            listeners: instance.listeners(),
            admin: instance.admin(),
            workload_socket: instance.workload_socket(),
            state: instance.state().display().to_string(),
            demo,
        }
    }
}

/// Does what the command line says. `false` is the answer no.
pub(crate) fn execute(arguments: Arguments) -> Result<bool, Failure> {
    match arguments.command {
        Command::Up(arguments) => up::execute(arguments)?,
        Command::Run(arguments) => run::execute(&arguments)?,
        Command::Check(arguments) => return check::execute(&arguments),
        Command::Documentation { page } => documentation::execute(page)?,
        Command::Identity(command) => identity::execute(&command)?,
        Command::Log(command) => log::execute(&command)?,
        Command::Policy(command) => return policy::execute(&command),
        Command::Svid(command) => return svid::execute(&command),
    }
    Ok(true)
}

/// Runs a command's work to its end. What still runs then, such as a drain that was cut short, does
/// not keep the process.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = control_runtime()?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    outcome
}

/// The runtime for everything that is not a request: identity, xDS, admin.
fn control_runtime() -> Result<Runtime, Failure> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| Failure::new("SG0008", &error))
}
