//! The world of a guest: what it may import, and what each instance carries.

use std::sync::Arc;

use wasmtime::component::{Linker, ResourceTable};
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::add_only_http_to_linker_async;
use wasmtime_wasi_http::{
    Error, RequestOptions, Result as HttpResult, WasiBody, WasiHttpCtx, WasiHttpCtxView,
    WasiHttpHooks, WasiHttpView,
};

use crate::config::HostConfig;
use crate::limits::Limits;
use crate::output::{Output, Stream};

/// The interfaces of WASI 0.2 that a component may import, in any 0.2 version. Behind most of them
/// is nothing: they are there because the standard libraries of common languages import them
/// whether a program uses them or not.
pub(crate) const PROVIDED: [&str; 29] = [
    "wasi:cli/environment", // no variables, no arguments
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin", // closed
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens", // none
    "wasi:filesystem/types",
    "wasi:http/outgoing-handler", // every request is denied
    "wasi:http/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup", // denied, as are all sockets
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// Host-side objects (streams, headers, timers) that one instance may hold at once.
const RESOURCES_LIMIT: usize = 1024;

/// Bytes that a guest may hand over in one call.
const HOSTCALL_LIMIT: usize = 4 * 1024 * 1024;

/// Bytes of randomness that a guest may ask for in one call.
const RANDOM_LIMIT: u64 = 1024 * 1024;

/// What one instance carries.
pub(crate) struct Guest {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    hooks: Hooks,
    limits: Limits,
}

impl Guest {
    /// A store for one instance. Nothing is granted: see [`PROVIDED`].
    pub(crate) fn store(engine: &Engine, config: &HostConfig, component: &Arc<str>) -> Store<Self> {
        let mut wasi = WasiCtx::builder();
        wasi.stdout(Output::new(component, Stream::Stdout));
        wasi.stderr(Output::new(component, Stream::Stderr));
        wasi.allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        wasi.max_random_size(RANDOM_LIMIT);

        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_LIMIT);

        let guest = Self {
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            table,
            hooks: Hooks,
            limits: Limits::new(config.memory_limit, config.table_elements),
        };
        let mut store = Store::new(engine, guest);
        store.limiter(|guest| &mut guest.limits);
        store.set_hostcall_fuel(HOSTCALL_LIMIT);

        // Tokio's own yield lets the runtime poll sockets and timers before the guest goes on. A
        // future that only wakes itself would stay in the run queue, and a current-thread runtime
        // looks up from that queue every 61 polls: with ticks of 10 ms, every 0.6 s.
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|_| {
            Ok(UpdateDeadline::YieldCustom(
                1,
                Box::pin(tokio::task::yield_now()),
            ))
        });
        store
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http,
            table: &mut self.table,
            hooks: &mut self.hooks,
        }
    }
}

/// Decides what leaves a component: nothing does.
struct Hooks;

type Sent = HttpResult<(http::Response<WasiBody>, Transfer)>;
type Transfer = Box<dyn Future<Output = HttpResult<()>> + Send>;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        _request: http::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _processed: Transfer,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        Box::new(std::future::ready(Err(Error::HttpRequestDenied)))
    }
}

/// Links every interface of [`PROVIDED`].
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    add_only_http_to_linker_async(&mut linker)?;
    Ok(linker)
}

#[cfg(test)]
mod tests {
    use wasmtime::component::Component;

    use super::*;

    #[test]
    fn every_interface_that_is_called_provided_is_linked() {
        let engine = Engine::default();
        let linker = linker(&engine).unwrap();
        for interface in PROVIDED {
            let text = format!(r#"(component (import "{interface}@0.2.0" (instance)))"#);
            let component = Component::from_binary(&engine, &wat::parse_str(text).unwrap());
            assert!(
                linker.instantiate_pre(&component.unwrap()).is_ok(),
                "{interface}"
            );
        }
    }
}
