//! `sidegate run`: what a configuration file says.

use super::{Ready, block_on};
use crate::arguments::{OutputFormat, RunArguments};
use crate::config;
use crate::failure::Failure;
use crate::instance::{Instance, StateDirectory, StopSignals, Supervisor};
use crate::systemd::Inherited;
use crate::{output, telemetry};

/// Runs until it is told to stop.
pub(super) fn execute(arguments: &RunArguments) -> Result<(), Failure> {
    // Before there are other threads: the environment is changed.
    let inherited = Inherited::from_environment();
    let (config, source) = config::load(&arguments.config)?;
    let level = telemetry::start(&config.log)?;
    let state = StateDirectory::open(
        &config.identity.state,
        config.identity.trust_domain.as_ref(),
    )?;
    block_on(async {
        let mut signals = StopSignals::listen()?;
        let supervisor = Supervisor::listen(inherited)?;
        let started = Instance::start(&config, Some(&source), state, level, supervisor);
        // It may take a while: a source of identities is waited for.
        let instance = tokio::select! {
            started = started => started?,
            () = signals.next() => {
                tracing::info!("stopped before it was ready");
                return Ok(());
            }
        };
        print(&instance, arguments.output)?;
        instance.run(signals).await
    })
}

fn print(instance: &Instance, format: OutputFormat) -> Result<(), Failure> {
    match format {
        OutputFormat::Json => output::print_json(&Ready::new(instance, None)),
        OutputFormat::Text => {
            for listener in instance.listeners() {
                tracing::info!(
                    name = listener.name,
                    address = %listener.address,
                    spiffe_id = listener.spiffe_id,
                    "listening",
                );
            }
            tracing::info!(
                admin = instance.admin(),
                workload_socket = instance.workload_socket(),
                "ready",
            );
            Ok(())
        }
    }
}
