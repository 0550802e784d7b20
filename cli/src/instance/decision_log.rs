//! The decision log, as the configuration wants it.

mod losses;
mod receiver;

use std::io;
use std::path::Path;

use nix::unistd::{AccessFlags, eaccess};
use prometheus_client::registry::Registry;
use sidegate_policy::decision_log::{
    CREDENTIAL_HEADERS, DecisionLog, DecisionLogError, DecisionLogMetrics, DecisionLogOptions,
    DecisionLogOutput, DecisionLogWriter,
};
use uuid::Uuid;

use super::refused;
use crate::config::{self, Config, ConfigSource, Credentials, Key};
use crate::failure::Failure;
pub(super) use losses::Losses;
use receiver::Post;

/// Starts it, if there is one. Needs a runtime.
pub(super) fn start(
    config: &Config,
    source: Option<&ConfigSource>,
    registry: &mut Registry,
) -> Result<Option<(DecisionLog, DecisionLogWriter)>, Failure> {
    let Some(log) = &config.decision_log else {
        return Ok(None);
    };
    let output = match &log.output {
        config::DecisionLogOutput::Stdout => DecisionLogOutput::Stream(Box::new(io::stdout())),
        config::DecisionLogOutput::File(options) => DecisionLogOutput::File(options.clone()),
        config::DecisionLogOutput::Http(receiver) => {
            let post = post(receiver, source)?;
            DecisionLogOutput::Upload(Box::new(post), receiver.upload)
        }
    };
    let mut erased_headers = log.mask_headers.clone();
    if log.credentials == Credentials::Erased {
        erased_headers.extend(CREDENTIAL_HEADERS);
    }
    let mut labels = log.labels.clone();
    labels.insert("id".to_owned(), Uuid::new_v4().to_string());
    labels.insert("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    let options = DecisionLogOptions {
        labels,
        erased_headers,
        max_decisions_per_second: log.max_decisions_per_second,
        output,
    };
    let started = DecisionLog::start(options, DecisionLogMetrics::register(registry));
    started
        .map(Some)
        .map_err(|error| unwritable(source, &error))
}

/// Where the log goes, and whether [`start`] would succeed; nothing where there is none. Nothing is
/// made or changed. Needs a runtime.
pub(super) fn examine(
    config: &Config,
    source: &ConfigSource,
) -> Option<(String, Result<(), Failure>)> {
    let log = config.decision_log.as_ref()?;
    Some(match &log.output {
        config::DecisionLogOutput::Stdout => ("standard output".to_owned(), Ok(())),
        config::DecisionLogOutput::File(options) => {
            let writable = writable(&options.path).map_err(DecisionLogError::Open);
            let writable = writable.map_err(|error| unwritable(Some(source), &error));
            (options.path.display().to_string(), writable)
        }
        config::DecisionLogOutput::Http(receiver) => {
            let post = post(receiver, Some(source));
            (receiver.uri.to_string(), post.map(drop))
        }
    })
}

fn post(receiver: &config::Receiver, source: Option<&ConfigSource>) -> Result<Post, Failure> {
    Post::new(receiver).map_err(|error| {
        let key = Key::of("decision_log").child(error.key());
        refused(source, &key, error.code(), &error)
    })
}

fn unwritable(source: Option<&ConfigSource>, error: &DecisionLogError) -> Failure {
    match error {
        DecisionLogError::Open(_) => {
            let key = Key::of("decision_log").child("path");
            refused(source, &key, error.code(), error)
        }
        _ => Failure::new(error.code(), error),
    }
}

/// Whether a file can be written, or made.
pub(super) fn writable(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    match std::fs::metadata(&path) {
        Ok(found) if !found.is_file() => Err(io::Error::other("it is not a regular file")),
        Ok(_) => Ok(eaccess(&path, AccessFlags::W_OK)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(&path);
            Ok(eaccess(folder, AccessFlags::W_OK | AccessFlags::X_OK)?)
        }
        Err(error) => Err(error),
    }
}
