//! File descriptors: how many there may be, and how many the listeners could need.

use std::io;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::config::{Limits, Listener};

/// What is open besides connections: sockets, files, and the Workload API's clients.
const RESERVE: u64 = 1024;

/// Of one connection: its own, and its upstream's.
const OF_A_CONNECTION: u64 = 2;

/// A listener without a cap of its own is worth starting with so many connections.
const FEWEST: u64 = 256;

/// How many descriptors there are, and how many there should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Descriptors {
    /// RLIMIT_NOFILE.
    pub(crate) limit: u64,
    /// What the listeners need when they are full.
    pub(crate) needed: u64,
}

/// Raises the soft limit to the hard one, and tells it.
pub(super) fn raise() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    info!(limit = hard, before = soft, "file descriptors");
    Ok(known(hard))
}

/// What [`raise`] would raise it to.
pub(super) fn hard_limit() -> io::Result<u64> {
    Ok(known(getrlimit(Resource::RLIMIT_NOFILE)?.1))
}

#[expect(
    clippy::useless_conversion,
    reason = "it has another width on other systems"
)]
fn known(limit: rlim_t) -> u64 {
    limit.into()
}

/// Gives listeners without a cap of their own one that the descriptors suffice for.
pub(super) fn fit(listeners: &mut [Listener], limit: u64) -> Descriptors {
    let capped = listeners.iter().filter(|it| it.has_own_cap);
    let taken = capped.map(|it| descriptors_of(it.limits.max_connections));
    let taken = taken.fold(RESERVE, u64::saturating_add);
    let uncapped = listeners.iter().filter(|it| !it.has_own_cap).count();
    let uncapped = u64::try_from(uncapped).unwrap_or(u64::MAX).max(1);
    let fitting = limit.saturating_sub(taken) / OF_A_CONNECTION / uncapped;
    let fitting = usize::try_from(fitting.max(FEWEST)).unwrap_or(usize::MAX);
    for listener in listeners.iter_mut().filter(|it| !it.has_own_cap) {
        listener.limits.max_connections = fitting.min(Limits::default().max_connections);
    }
    let all = listeners.iter().map(|it| it.limits.max_connections);
    Descriptors {
        limit,
        needed: all.map(descriptors_of).fold(RESERVE, u64::saturating_add),
    }
}

fn descriptors_of(connections: usize) -> u64 {
    let connections = u64::try_from(connections).unwrap_or(u64::MAX);
    connections.saturating_mul(OF_A_CONNECTION)
}

impl Descriptors {
    /// What to do where there are too few.
    pub(crate) const HINT: &str =
        "raise the hard limit (systemd: LimitNOFILE=, else ulimit -Hn), or lower `max_connections`";

    /// What is wrong, if there are too few.
    pub(crate) fn shortage(&self) -> Option<String> {
        let Self { limit, needed } = self;
        (limit < needed).then(|| {
            format!(
                "the hard limit is {limit} file descriptors, and the listeners could need {needed}: \
                 {OF_A_CONNECTION} for each of `max_connections`, and {RESERVE}"
            )
        })
    }

    pub(super) fn warn(&self) {
        if let Some(shortage) = self.shortage() {
            warn!(code = "SG0070", hint = Self::HINT, "{shortage}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// Listeners with these caps.
    fn listeners(caps: &[Option<usize>]) -> Vec<Listener> {
        let sections = caps.iter().enumerate().map(|(index, cap)| {
            let cap = cap.map(|cap| format!("[listener.limits]\nmax_connections = {cap}\n"));
            format!(
                "[[listener]]\nname = \"l{index}\"\nlisten = \"127.0.0.1:0\"\n\
                 upstream = \"http://127.0.0.1:1\"\n{}",
                cap.unwrap_or_default()
            )
        });
        let text =
            "[identity]\ntrust_domain = \"a\"\nstate = \"s\"\n[workload_api]\nsocket = \"w\"\n"
                .to_owned()
                + &sections.collect::<String>();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sidegate.toml");
        std::fs::write(&path, text).unwrap();
        config::load(&path).unwrap().0.listeners
    }

    /// The caps that come out, and what is needed.
    fn fitted(caps: &[Option<usize>], limit: u64) -> (Vec<usize>, u64) {
        let mut listeners = listeners(caps);
        let needed = fit(&mut listeners, limit).needed;
        let caps = listeners.iter().map(|it| it.limits.max_connections);
        (caps.collect(), needed)
    }

    #[test]
    fn a_cap_that_nobody_set_makes_way_and_one_that_was_set_does_not() {
        assert_eq!(fitted(&[None], 1 << 20), (vec![65_536], 132_096));
        assert_eq!(fitted(&[None], 21_024), (vec![10_000], 21_024));
        assert_eq!(
            fitted(&[Some(4000), None, None], 21_024),
            (vec![4000, 3000, 3000], 21_024)
        );
        assert_eq!(fitted(&[Some(20_000)], 21_024), (vec![20_000], 41_024));
        assert_eq!(fitted(&[None], 1024), (vec![256], 1536));
        assert_eq!(fitted(&[], 1024), (vec![], 1024));
    }

    #[test]
    fn only_too_few_are_a_shortage() {
        let of = |limit, needed| Descriptors { limit, needed }.shortage();
        assert_eq!(of(10, 10), None);
        let shortage = of(10, 11).unwrap();
        assert!(shortage.contains("is 10 file"), "{shortage}");
        assert!(shortage.contains("need 11:"), "{shortage}");
    }
}
