//! Diagnostics: events of all rooms, on standard error, at a level that can be changed meanwhile. And
//! spans, for a collector.

mod exporter;
mod variables;

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::{EnvFilter, reload};

use crate::config::{Log, LogFormat, directives};
use crate::failure::Failure;

pub(crate) use exporter::Exporter;
pub(crate) use variables::TraceSettings;

/// Which events are written. Its copies are one.
#[derive(Clone)]
pub(crate) struct LogLevel {
    directives: Arc<Mutex<String>>,
    replace: Arc<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
}

/// Directives that are no filter.
#[derive(Debug, thiserror::Error)]
#[error("not a log filter: {0}")]
pub(crate) struct BadLevel(String);

/// Begins to write events. Called once.
pub(crate) fn start(log: &Log) -> Result<LogLevel, Failure> {
    let filter = EnvFilter::try_new(&log.level).map_err(|error| Failure::new("SG0037", &error))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(crate::output::colored(std::io::stderr().is_terminal()));
    let (started, replace): (_, Arc<dyn Fn(_) -> _ + Send + Sync>) = match log.format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            let replace = Arc::new(move |filter| handle.reload(filter));
            (builder.try_init(), replace)
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            let replace = Arc::new(move |filter| handle.reload(filter));
            (builder.try_init(), replace)
        }
    };
    started.map_err(|error| Failure::new("SG0037", error.as_ref()))?;
    // In the form of all other events, also where that is JSON.
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(code = "SG0308", %panic, "a panic");
    }));
    Ok(LogLevel {
        directives: Arc::new(Mutex::new(log.level.clone())),
        replace,
    })
}

impl LogLevel {
    /// The directives that count.
    pub(crate) fn get(&self) -> String {
        let directives = self.directives.lock();
        directives.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has others count from now on.
    ///
    /// # Errors
    /// When they are no filter; then nothing changes.
    pub(crate) fn set(&self, text: &str) -> Result<(), BadLevel> {
        let directives = directives(text).map_err(BadLevel)?;
        let filter = EnvFilter::try_new(&directives);
        let filter = filter.map_err(|error| BadLevel(error.to_string()))?;
        // Held over both, so that what is told is what counts.
        let mut told = self
            .directives
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        (self.replace)(filter).map_err(|error| BadLevel(error.to_string()))?;
        *told = directives;
        Ok(())
    }
}
