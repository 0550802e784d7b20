//! `sidegate log`: the log of a running instance.

use super::block_on;
use crate::admin::{AdminClient, Level};
use crate::arguments::{LogCommand, OutputFormat};
use crate::failure::Failure;
use crate::output;

const LEVEL: &str = "/v1/log/level";

/// Shows the level, or changes it and shows it then.
pub(super) fn execute(command: &LogCommand) -> Result<(), Failure> {
    let LogCommand::Level(arguments) = command;
    let admin = AdminClient::new(&arguments.instance.state);
    let level: Level = match &arguments.directives {
        None => block_on(admin.get(LEVEL))?,
        Some(directives) => {
            let level = directives.clone();
            block_on(admin.post(LEVEL, &Level { level }))?
        }
    };
    match arguments.instance.output {
        OutputFormat::Json => output::print_json(&level),
        OutputFormat::Text => output::print(&format!("{}\n", level.level)),
    }
}
