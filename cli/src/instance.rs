//! A running Sidegate: the one place that joins all rooms.
//!
//! ```text
//! Config ─ entries ─ policy ─ components ─ own sockets ─▶ all checked
//!        ─ CA ─ first SVIDs ─▶ who serves as whom is known
//!        ─ listeners bound ─▶ nothing can be refused any more
//!        ─ workers, control tasks ─▶ running
//! ```
//! What fails, fails before anything is served.

mod access_output;
mod bundles;
mod components;
mod decision_log;
mod descriptors;
mod examine;
mod health;
mod identity;
mod listeners;
mod metrics;
mod policy;
mod reload;
mod services;
mod socket;
mod source;
mod spire;
mod state;
mod status;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use sidegate_host::HostMetrics;
use sidegate_identity::attestation::UnixListenerStream;
use sidegate_identity::clock::{Clock, SystemClock};
use sidegate_policy::decision_log::DecisionLogWriter;
use sidegate_policy::shadow::ShadowMetrics;
use sidegate_policy::{Policy, PolicyError, PolicyMetrics, PolicyOptions, PolicySources};
use sidegate_proxy::access_log::{AccessLog, AccessLogWriter};
use sidegate_proxy::trace::Tracer;
use sidegate_proxy::{Proxy, ProxyConfig, ProxyMetrics};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::admin::{self, AdminServer};
use crate::config::{Config, ConfigSource, Key};
use crate::failure::Failure;
use crate::systemd::{Inherited, Systemd};
use crate::telemetry::{Exporter, LogLevel, TraceSettings};
use access_output::{AccessOutput, AccessOutputHandle, Opened};
use components::Components;
use health::{Admin, Gate, Health};
use identity::IdentityPlane;
use policy::{
    EvaluatorParts, GenerationMetrics, PolicyFiles, PolicyOrigin, PolicyParts, load_candidate,
};
use reload::{Outcome, Reload, ReloadParts, Running};
use socket::{BoundSocket, Purpose};
use status::{Changing, Facts};

pub(crate) use bundles::BundleStatus;
pub(crate) use components::component_digest;
pub(crate) use descriptors::Descriptors;
pub(crate) use examine::examine;
pub(crate) use metrics::every_metric;
pub(crate) use policy::{ChangeError, PolicyManager};
pub(crate) use source::{NoIdentities, Source};
pub(crate) use state::{Found, StateDirectory};

/// What systemd shows.
const SERVING: &str = "serving";

/// How long a reader of the access log may take for its last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

/// How long the decision log may take for its last events.
const LAST_EVENTS: Duration = Duration::from_secs(5);

/// Everything that runs.
pub(crate) struct Instance {
    state: StateDirectory,
    /// None without identities.
    socket: Option<BoundSocket>,
    _admin_socket: BoundSocket,
    admin: String,
    listeners: Vec<ListenerStatus>,
    health: Arc<Health>,
    proxy: Proxy,
    access_log: AccessLogWriter,
    decision_log: Option<DecisionLogWriter>,
    systemd: Arc<Systemd>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What tells a running instance to reload, and is told how it goes.
#[derive(Default)]
pub(crate) struct Supervisor {
    hangup: Option<Signal>,
    systemd: Systemd,
    inherited: Inherited,
}

/// A listener as it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ListenerStatus {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// None where it speaks no TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) spiffe_id: Option<String>,
    /// Its connections are no more than bytes: the policy has to decide on each.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_tcp: bool,
}

impl Instance {
    /// Starts what the configuration says. `source` is its file, if there is one, so that what is
    /// refused is shown at its place, and so that it is read again with each SIGHUP.
    pub(crate) async fn start(
        config: &Config,
        source: Option<&ConfigSource>,
        state: StateDirectory,
        level: LogLevel,
        supervisor: Supervisor,
    ) -> Result<Self, Failure> {
        let Supervisor {
            hangup,
            systemd,
            inherited,
        } = supervisor;
        let systemd = Arc::new(systemd);
        let limit = descriptors::raise().map_err(|error| Failure::new("SG0008", &error))?;
        let mut metrics = Registry::default();
        let proxy_metrics = ProxyMetrics::register(&mut metrics);
        let traces = TraceSettings::from_environment()?;
        let traces = traces.map(|settings| Exporter::new(settings, proxy_metrics.traces()));
        let (exporter, tracer) = traces.transpose()?.unzip();
        let registry = metrics.sub_registry_with_prefix(metrics::PREFIX);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let entries = identity::entries(config, source)?;
        let (policy, origin) = load_policy(config, source, state.path(), &clock).await?;
        let candidate = load_candidate(config, source)?;
        let host_metrics = HostMetrics::register(registry);
        let components = components::load(config, source, &host_metrics, &Components::new())?;
        let admin = Admin::bind(config.admin.listen)?;
        let socket = config.workload_api.as_ref();
        let socket = socket.map(|it| BoundSocket::bind(&it.socket, Purpose::WorkloadApi));
        let socket = socket.transpose()?;
        let admin_socket = BoundSocket::bind(&state.path().join(admin::SOCKET), Purpose::Admin)?;
        let needs = listeners::needs(config, &components)?;
        let plane = IdentityPlane::open(config, entries, &needs, &state, &clock, registry).await?;
        if plane.source.is_off() && matches!(origin, PolicyOrigin::Stock) {
            warn!(
                code = "SG0189",
                "the stock policy decides, and allows nobody who has no identity: set `policy.path`"
            );
        }
        let identities = plane.source.watch();

        let gate = config.admin.clients.as_ref();
        let gate = gate.map(|clients| Gate::new(clients, &identities));
        let gate = gate.transpose()?;

        let workers = workers(config);
        let made = {
            let parts = listeners::Parts {
                workers,
                components: &components,
                identities: &identities,
                inherited: &inherited,
                clock: &clock,
                descriptors: limit,
            };
            let issued = Arc::clone(&identities.borrow());
            let entries: Vec<_> = issued
                .issued()
                .iter()
                .map(|it| Arc::clone(&it.entry))
                .collect();
            listeners::make(config, source, &parts, &entries, &[])?
        };
        made.descriptors.warn();
        listeners::warn_unused(&inherited, &made.served);
        let files = plane.write_files(&config.svid_files)?;

        let (decision_log, decision_writer) =
            decision_log::start(config, source, registry)?.unzip();
        let (shadow, candidate, candidate_files) = match candidate {
            Some(loaded) => {
                let metrics = ShadowMetrics::register(registry);
                let (shadow, candidate, files) = loaded.start(metrics, &clock)?;
                (Some(shadow), Some(candidate), Some(files))
            }
            None => (None, None, None),
        };
        let bundles = match &origin {
            PolicyOrigin::Bundles(bundles) => Some(bundles.handle()),
            PolicyOrigin::Stock | PolicyOrigin::Files(_) => None,
        };
        if let Some(bundles) = &bundles {
            bundles.register(registry);
        }
        let parts = EvaluatorParts {
            decisions: PolicyMetrics::register(registry),
            log: decision_log,
            shadow,
        };
        let evaluators = (0..workers.get())
            .map(|_| parts.evaluator(&policy))
            .collect::<Result<Vec<_>, PolicyError>>()
            .map_err(|error| Failure::new(error.code(), &error))?;
        let (access_log, writer, access) = access_log(config, source)?;
        let access_format = access_log.format();
        let status: Vec<_> = made.served.iter().map(|it| it.status.clone()).collect();
        let proxy = Proxy::start(ProxyConfig {
            evaluators,
            identities: identities.clone(),
            access_log,
            tracer: tracer.unwrap_or_else(Tracer::off),
            metrics: proxy_metrics,
            clock: Arc::clone(&clock),
            drain_timeout: config.proxy.drain_timeout,
        })
        .map_err(|error| Failure::new(error.code(), &error))?;
        let parts = PolicyParts {
            options: policy_options(config),
            path: status::policy_origin(config),
            evaluators: parts,
            metrics: GenerationMetrics::register(registry),
            clock: Arc::clone(&clock),
            candidate,
            bundles,
        };
        let policy = Arc::new(PolicyManager::new(policy, parts, proxy.policy()));
        let swap = proxy.listeners();
        let prepared = swap.prepare(made.next).map_err(|error| unwatched(&error))?;

        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let outcome = Arc::new(Outcome::register(registry));
        let health = Arc::new(Health::new(
            identities.clone(),
            Arc::clone(&clock),
            proxy.health(),
            {
                let (source, outcome) = (plane.source.clone(), Arc::clone(&outcome));
                move || {
                    source
                        .failing()
                        .into_iter()
                        .chain(outcome.failing())
                        .collect()
                }
            },
        ));
        health.serve(made.served.iter().flat_map(listeners::Served::shown));
        policy.serves_tcp(listeners::tcp(&made.served));
        let changing = Arc::new(Mutex::new(Changing {
            components: components::status(&components),
            descriptors: made.descriptors,
        }));
        swap.put(prepared).await;
        let facts = Facts {
            source: plane.source.clone(),
            clock: Arc::clone(&clock),
            health: Arc::clone(&health),
            brought: config.identity.embedded.brought.clone(),
            policy: Arc::clone(&policy),
            changing: Arc::clone(&changing),
            workload_socket: socket.as_ref().map(BoundSocket::endpoint),
            admin: admin.address(),
            admin_tls: gate.is_some(),
            reload: Arc::clone(&outcome),
        };
        if let Some((source, hangup)) = source.zip(hangup) {
            let parts = ReloadParts {
                level: level.clone(),
                access,
                access_format,
                clock: Arc::clone(&clock),
                source: plane.source.clone(),
                swap,
                health: Arc::clone(&health),
                policy: Arc::clone(&policy),
                status: changing,
                host_metrics,
                workers,
                inherited,
                descriptors: limit,
            };
            let running = Running {
                config: config.clone(),
                components,
                listeners: made.served,
            };
            let reload = Reload::new(source.path(), parts, outcome, running);
            let mut files = reload.files();
            if !source.is_current() {
                files.have_changed();
            }
            let systemd = Arc::clone(&systemd);
            tasks.spawn(Arc::new(reload).run(hangup, files, systemd, stop.clone()));
        }
        let scheme = if gate.is_some() { "https" } else { "http" };
        let admin_url = format!("{scheme}://{}", admin.address());
        tasks.spawn(admin.serve(Arc::clone(&health), metrics, gate, stop.clone()));
        if let Some(exporter) = exporter {
            tasks.spawn(exporter.run(stop.clone()));
        }
        tasks.spawn(plane.source.clone().run(stop.clone()));
        tasks.spawn(Arc::clone(&policy).run(origin, candidate_files, stop.clone()));
        for (file, written) in files {
            tasks.spawn(file.run(written, identities.clone(), stop.clone()));
        }
        let server = AdminServer::new(plane.source.clone(), policy, level, move || {
            serde_json::to_value(facts.status()).unwrap_or_default()
        });
        tasks.spawn(server.serve(admin_socket.listener()?, stop.clone()));
        if let Some(socket) = &socket {
            let incoming = UnixListenerStream::new(socket.listener()?, plane.metrics.clone());
            let services = services::serve(plane, identities, clock, incoming, stop.clone());
            let stopped = stop.clone();
            tasks.spawn(async move {
                // Streams stay open as long as their clients like: they end with the process.
                tokio::select! {
                    served = services => if let Err(error) = served {
                        error!(code = "SG0052", %error, "the Workload API ended");
                    },
                    () = stopped.cancelled() => {}
                }
            });
        }
        Ok(Self {
            state,
            socket,
            _admin_socket: admin_socket,
            admin: admin_url,
            listeners: status,
            health,
            proxy,
            access_log: writer,
            decision_log: decision_writer,
            systemd,
            tasks,
            stop,
        })
    }

    /// Waits for SIGTERM or SIGINT, then drains. A second one ends the wait at once.
    ///
    /// # Errors
    /// A worker has failed. It is drained as well, and its supervisor is to start it again.
    pub(crate) async fn run(self, mut signals: StopSignals) -> Result<(), Failure> {
        self.systemd.ready(SERVING);
        if let Some(period) = self.systemd.watchdog() {
            let (systemd, health) = (Arc::clone(&self.systemd), Arc::clone(&self.health));
            self.tasks
                .spawn(keep_alive(systemd, health, period / 2, self.stop.clone()));
        }
        let (reason, ended) = tokio::select! {
            () = signals.next() => ("draining", Ok(())),
            () = self.proxy.failed() => {
                let text = "a worker has failed: what it watched over may not be watched any more";
                let help = "it is drained and ends; what supervises it should start it again";
                ("draining: a worker has failed", Err(Failure::message("SG0380", text).help(help)))
            }
        };
        tokio::select! {
            () = self.drain(reason) => info!("stopped"),
            () = signals.next() => info!("stopped without waiting for what was under way"),
        }
        ended
    }

    async fn drain(self, reason: &'static str) {
        info!("{reason}");
        self.systemd.stopping();
        self.health.drain(reason);
        let proxy = self.proxy;
        let drained = tokio::task::spawn_blocking(move || proxy.drain());
        if let Err(error) = drained.await {
            error!(code = "SG0380", %error, "the drain failed");
        }
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(log) = self.decision_log {
            let finished = tokio::task::spawn_blocking(move || log.finish(LAST_EVENTS));
            if let Ok(Err(error)) = finished.await {
                error!(code = error.code(), %error, "the decision log is cut");
            }
        }
        let log = self.access_log;
        let finished = tokio::task::spawn_blocking(move || log.finish());
        if tokio::time::timeout(LAST_LINES, finished).await.is_err() {
            error!(
                code = "SG0331",
                "nobody reads the access log: its last lines are lost"
            );
        }
    }

    /// The listeners, with their real ports.
    pub(crate) fn listeners(&self) -> &[ListenerStatus] {
        &self.listeners
    }

    /// The admin server's URL, with its real port and without a path.
    pub(crate) fn admin(&self) -> &str {
        &self.admin
    }

    /// The Workload API's address, as `SPIFFE_ENDPOINT_SOCKET` takes it; none without identities.
    pub(crate) fn workload_socket(&self) -> Option<String> {
        self.socket.as_ref().map(BoundSocket::endpoint)
    }

    /// The state directory, absolute.
    pub(crate) fn state(&self) -> &Path {
        self.state.path()
    }
}

/// SIGTERM and SIGINT. Listened for before anything is started, so that none of them ends the
/// process without a drain.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Begins to listen. Needs a runtime.
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            terminate: listen_for(SignalKind::terminate())?,
            interrupt: listen_for(SignalKind::interrupt())?,
        })
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Supervisor {
    /// Begins to listen for SIGHUP, and finds out about systemd. Needs a runtime.
    pub(crate) fn listen(inherited: Inherited) -> Result<Self, Failure> {
        Ok(Self {
            hangup: Some(listen_for(SignalKind::hangup())?),
            systemd: Systemd::from_environment()?,
            inherited,
        })
    }
}

/// Tells systemd that all is well, for as long as it is.
async fn keep_alive(
    systemd: Arc<Systemd>,
    health: Arc<Health>,
    period: Duration,
    stop: CancellationToken,
) {
    // Asked for more often, it would be a load of its own.
    let mut ticks = tokio::time::interval(period.max(Duration::from_millis(1)));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if health.is_alive() {
            systemd.alive();
        }
    }
}

fn listen_for(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new("SG0008", &error))
}

fn workers(config: &Config) -> NonZeroUsize {
    let configured = config.proxy.workers.and_then(NonZeroUsize::new);
    configured
        .or_else(|| std::thread::available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN)
}

/// The first policy, and where it comes from.
async fn load_policy(
    config: &Config,
    source: Option<&ConfigSource>,
    state: &Path,
    clock: &Arc<dyn Clock>,
) -> Result<(Policy, PolicyOrigin), Failure> {
    if config.policy.bundles.is_empty() {
        // Looked at before they are read, so that no change in between is missed.
        let origin = match &config.policy.path {
            Some(path) => PolicyOrigin::Files(PolicyFiles::new(path)),
            None => PolicyOrigin::Stock,
        };
        return load_files(config, source).map(|policy| (policy, origin));
    }
    let options = policy_options(config);
    let load = |sources| Policy::load(sources, &options);
    let (bundles, policy) = bundles::start(config, source, state, clock, load).await?;
    Ok((policy, PolicyOrigin::Bundles(bundles)))
}

/// The policy that [`load_policy`] would load. Nothing is changed.
async fn examine_policy(config: &Config, source: &ConfigSource) -> Result<Policy, Failure> {
    if config.policy.bundles.is_empty() {
        return load_files(config, Some(source));
    }
    let options = policy_options(config);
    let load = |sources| Policy::load(sources, &options);
    bundles::examine(config, Some(source), load).await
}

fn load_files(config: &Config, source: Option<&ConfigSource>) -> Result<Policy, Failure> {
    let sources = match &config.policy.path {
        Some(path) => PolicySources::read(path),
        None => PolicySources::stock(),
    };
    sources
        .and_then(|sources| Policy::load(sources, &policy_options(config)))
        .map_err(|error| {
            let key = Key::of("policy").child("path");
            refused(source, &key, error.code(), &error)
        })
}

fn policy_options(config: &Config) -> PolicyOptions {
    PolicyOptions {
        entrypoint: config.policy.entrypoint.clone(),
        decision_timeout: config.policy.timeout,
        egress: config.listeners.iter().any(|it| it.outbound.is_some()),
        ..PolicyOptions::default()
    }
}

/// With what has it go elsewhere.
fn access_log(
    config: &Config,
    source: Option<&ConfigSource>,
) -> Result<(AccessLog, AccessLogWriter, AccessOutputHandle), Failure> {
    let opened = Opened::at(&config.log.access);
    let opened = opened.map_err(|error| access_log_unwritable(source, &error))?;
    let (output, handle) = AccessOutput::new(opened);
    let started = AccessLog::start(output, config.log.access_format);
    let (log, writer) = started.map_err(|error| Failure::new("SG0008", &error))?;
    Ok((log, writer, handle))
}

/// The kernel does not watch a listener's socket.
fn unwatched(error: &io::Error) -> Failure {
    Failure::message(
        "SG0078",
        format!("the kernel cannot watch a listener's socket: {error}"),
    )
}

fn access_log_unwritable(source: Option<&ConfigSource>, error: &io::Error) -> Failure {
    let key = Key::of("log").child("access_path");
    let error = AccessLogUnwritable(error.to_string());
    refused(source, &key, "SG0071", &error)
}

/// The access log's file cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the access log cannot be written: {0}")]
struct AccessLogUnwritable(String);

/// An error about what a key of the configuration says, shown there if there is a file.
fn refused(
    source: Option<&ConfigSource>,
    key: &Key,
    code: &'static str,
    error: &dyn std::error::Error,
) -> Failure {
    match source {
        Some(source) => {
            let problem = source.diagnostic(key, code, crate::failure::chain(error));
            Failure::Config(source.diagnostics(vec![problem]))
        }
        None => Failure::new(code, error),
    }
}
