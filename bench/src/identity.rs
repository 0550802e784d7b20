//! The identity plane: signing, fetches, open streams.

mod fetches;
mod signing;
mod streams;

use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;

use crate::report::Report;

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// X.509-SVIDs signed by the embedded CA
    Signing,
    /// Fetches from the Workload API
    Fetches,
    /// Memory of open streams, and how fast a change reaches them
    Streams,
}

/// Measures `only` or everything. `descriptors`: how many a process may have open.
pub(crate) fn measure(binary: &Path, only: Option<Part>, descriptors: u64) -> Result<Report> {
    let mut report = Report::default();
    let wanted = |part| only.is_none_or(|only| only == part);
    if wanted(Part::Signing) {
        signing::measure(&mut report)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if wanted(Part::Fetches) {
        runtime.block_on(fetches::measure(binary, &mut report))?;
    }
    if wanted(Part::Streams) {
        runtime.block_on(streams::measure(binary, descriptors, &mut report))?;
    }
    Ok(report)
}
