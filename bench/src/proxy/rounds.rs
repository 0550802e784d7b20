//! The rounds: each case through each proxy, one after the other, and again.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use super::cases::{Case, Group, IDLE_CONNECTIONS};
use super::credentials::Credentials;
use super::load::{self, Target};
use super::metrics::Decisions;
use super::proxies::{Proxy, Running};
use super::report::{Figures, ProxyReport, Sample};
use super::{Options, upstream};
use crate::report::say;

/// Files that a proxy has open besides the idle connections. For each of those haproxy wants room for
/// two.
const OTHER_DESCRIPTORS: u64 = 1_200;

/// Measures everything that is wanted.
pub(super) async fn run(options: &Options, descriptors: u64) -> Result<ProxyReport> {
    let folder = tempfile::tempdir()?;
    let credentials = Credentials::mint(folder.path())?;
    let mut report = ProxyReport::new(options.workers, options.rounds);
    for group in Group::ALL {
        let wanted = group.cases().iter().filter(|case| options.wants(**case));
        let cases: Vec<Case> = wanted.copied().collect();
        if !cases.is_empty() {
            measure(
                options,
                descriptors,
                &credentials,
                group,
                &cases,
                &mut report,
            )
            .await?;
        }
    }
    Ok(report)
}

/// One group: its proxies run at once, and are killed at the end of it.
async fn measure(
    options: &Options,
    descriptors: u64,
    credentials: &Credentials,
    group: Group,
    cases: &[Case],
    report: &mut ProxyReport,
) -> Result<()> {
    let upstream = upstream::start(group, options.workers)?;
    let running = start(options, credentials, group, upstream, cases, report).await?;
    let mut served = Vec::new();
    for case in cases {
        for proxy in &running {
            let target = Target::new(proxy.address, credentials, *case)?;
            match load::probe(*case, &target).await {
                Ok(()) => served.push((*case, proxy, target)),
                Err(error) => report.skip(format!("{}, {case}: {error:#}", proxy.proxy)),
            }
        }
    }
    // Memory that was used in one round would be used again in the next.
    let rounds = match group {
        Group::Memory => 1,
        Group::Http1 | Group::Http2 => options.rounds,
    };
    for round in 0..rounds {
        for case in cases {
            let mut turns: Vec<_> = served.iter().filter(|(of, _, _)| of == case).collect();
            // Who comes right after whom changes nothing in the middle of the rounds.
            if round % 2 == 1 {
                turns.reverse();
            }
            for (_, proxy, target) in turns {
                let name = proxy.proxy;
                say(&format!("round {} of {rounds}: {case}, {name}", round + 1));
                match one(options, descriptors, *case, proxy, target).await {
                    Ok(figures) => report.add(Sample {
                        proxy: name,
                        case: *case,
                        round,
                        figures,
                    }),
                    // What the others cost is still worth knowing.
                    Err(error) => {
                        report.skip(format!("{name}, {case}, round {}: {error:#}", round + 1));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Starts the proxies that are wanted. What cannot be started is named in the report.
async fn start(
    options: &Options,
    credentials: &Credentials,
    group: Group,
    upstream: SocketAddr,
    cases: &[Case],
    report: &mut ProxyReport,
) -> Result<Vec<Running>> {
    let mut running: Vec<Running> = Vec::new();
    let wanted = Proxy::ALL.into_iter();
    for proxy in wanted.filter(|proxy| options.wants_proxy(*proxy)) {
        let Some(program) = proxy.program(options)? else {
            report.skip(format!("{proxy}: this machine has none"));
            continue;
        };
        let program: &Path = &program;
        let started = Running::start(
            proxy,
            program,
            credentials,
            upstream,
            group,
            options.workers,
        )
        .await;
        match started {
            Ok(started) => {
                if let Some(admin) = started.admin
                    && Decisions::read(admin).await?.is_none()
                {
                    report.note(format!(
                        "{proxy} does not tell how many decisions were remembered"
                    ));
                }
                // The floor comes first.
                let agreed = running.first().map(|first| &first.negotiated);
                if let Some(agreed) = agreed
                    && *agreed != started.negotiated
                {
                    report.note(format!(
                        "{proxy} agrees on {} and {}, the first on {} and {}",
                        started.negotiated.key_exchange,
                        started.negotiated.cipher,
                        agreed.key_exchange,
                        agreed.cipher,
                    ));
                }
                running.push(started);
            }
            Err(error) => {
                let cases: Vec<_> = cases.iter().map(ToString::to_string).collect();
                report.skip(format!("{proxy}, {}: {error:#}", cases.join(", ")));
            }
        }
    }
    Ok(running)
}

/// One case through one proxy.
async fn one(
    options: &Options,
    descriptors: u64,
    case: Case,
    running: &Running,
    target: &Target,
) -> Result<Figures> {
    let process = &running.process;
    if case == Case::Idle {
        let most = descriptors.saturating_sub(OTHER_DESCRIPTORS) / 2;
        let connections = IDLE_CONNECTIONS.min(usize::try_from(most)?);
        return load::idle::measure(target, connections, || process.memory()).await;
    }
    let before = decisions(running).await?;
    let mut figures = load::measure(case, target, options.workers, options.window(), || {
        process.cpu()
    })
    .await?;
    let after = decisions(running).await?;
    if let (Some(before), Some(after)) = (before, after) {
        figures.cache_hit_rate = after.rate_since(before);
    }
    Ok(figures)
}

async fn decisions(running: &Running) -> Result<Option<Decisions>> {
    match running.admin {
        Some(admin) => Decisions::read(admin).await,
        None => Ok(None),
    }
}
