//! The host: one engine, its limits, and the thread that keeps its time.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmtime::component::Linker;
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails,
};

use crate::component::Component;
use crate::config::{HostConfig, WASM_PAGE};
use crate::error::HostError;
use crate::guest::{self, Guest};
use crate::limits::{CORE_INSTANCES, MEMORIES, TABLES};
use crate::load::{self, LoadError};
use crate::metrics::HostMetrics;

/// Where components run. Clones share everything; components keep what they need of it alive.
#[derive(Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

/// What a host and its components share.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<Guest>,
    pub(crate) config: HostConfig,
    pub(crate) metrics: HostMetrics,
    /// One permit for each instance that may run.
    pub(crate) slots: Arc<Semaphore>,
    _ticker: Ticker,
}

impl Host {
    /// Sets up the engine and reserves address space for `max_concurrency` instances.
    ///
    /// # Errors
    ///
    /// When a limit cannot work, or the engine or its clock thread cannot be set up.
    pub fn new(config: HostConfig, metrics: HostMetrics) -> Result<Self, HostError> {
        config.validate()?;
        let engine = Engine::new(&engine_config(&config)?).map_err(engine_error)?;
        let shared = Shared {
            linker: guest::linker(&engine).map_err(engine_error)?,
            metrics,
            slots: Arc::new(Semaphore::new(config.max_concurrency)),
            _ticker: Ticker::start(&engine, config.epoch_tick)?,
            engine,
            config,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Compiles a component and links it, once for all of its instances. `name` is its label in
    /// logs and metrics.
    ///
    /// This uses the processor for as long as it takes (well under a second for a small
    /// component, seconds for a large one): call it where blocking is allowed.
    ///
    /// A component exports `wasi:http/incoming-handler` and may import WASI 0.2's `wasi:cli`,
    /// `wasi:clocks`, `wasi:filesystem`, `wasi:http`, `wasi:io`, `wasi:random` and `wasi:sockets`.
    /// It sees no environment variables, arguments or files, its stdin is closed, its stdout and
    /// stderr are log lines (target `component`), sockets are refused with `access-denied` and
    /// outgoing requests with `HTTP-request-denied`. What it imports beyond that is an error.
    ///
    /// # Errors
    ///
    /// When the bytes are not a component that this host can run; each error says what they are.
    pub fn load(&self, name: &str, bytes: &[u8]) -> Result<Component, LoadError> {
        let pre = load::compile(&self.shared.engine, &self.shared.linker, bytes)?;
        Ok(Component::new(
            name,
            load::digest(bytes),
            pre,
            Arc::clone(&self.shared),
        ))
    }

    /// The limits that this host was built with.
    pub fn config(&self) -> &HostConfig {
        &self.shared.config
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Host")
            .field("config", self.config())
            .finish_non_exhaustive()
    }
}

fn engine_config(config: &HostConfig) -> Result<Config, HostError> {
    let too_many = || HostError::Config {
        field: "max_concurrency",
        reason: "is more than the engine can count",
    };
    let instances = u32::try_from(config.max_concurrency).map_err(|_| too_many())?;
    let times = |count: u32| instances.checked_mul(count).ok_or_else(too_many);
    let memory_pages = config.memory_limit.div_ceil(WASM_PAGE);

    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances)
        .total_stacks(instances)
        .total_core_instances(times(CORE_INSTANCES)?)
        .total_memories(times(MEMORIES)?)
        .total_tables(times(TABLES)?)
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .max_memory_size(memory_pages.saturating_mul(WASM_PAGE))
        .table_elements(config.table_elements);

    let mut engine = Config::new();
    engine
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .memory_init_cow(true)
        .epoch_interruption(true)
        // Set, so that the engine does not ask the environment.
        .wasm_backtrace_details(WasmBacktraceDetails::Enable);
    Ok(engine)
}

fn engine_error(error: wasmtime::Error) -> HostError {
    HostError::Engine(error.into())
}

/// The thread that advances the engine's epoch. It ends when this is dropped.
struct Ticker {
    _running: Sender<Infallible>,
}

impl Ticker {
    fn start(engine: &Engine, tick: Duration) -> Result<Self, HostError> {
        let (running, stopped) = mpsc::channel::<Infallible>();
        let engine = engine.clone();
        let advance = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(tick) {
                engine.increment_epoch();
            }
        };
        std::thread::Builder::new()
            .name("component-clock".to_owned())
            .spawn(advance)
            .map_err(HostError::Ticker)?;
        Ok(Self { _running: running })
    }
}
