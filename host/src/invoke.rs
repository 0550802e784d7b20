//! One request, in one instance: get a slot, instantiate, call the handler, pass on its response.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use wasmtime::Store;
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::body::{GuestBody, ResponseBody};
use crate::component::Loaded;
use crate::ending::Ending;
use crate::error::InvokeError;
use crate::guest::Guest;

/// What a guest hands over as its response.
type Answer = Result<Response<HyperOutgoingBody>, ErrorCode>;

/// Answers a request with a new instance.
pub(crate) async fn invoke<B>(
    loaded: Arc<Loaded>,
    request: Request<B>,
) -> Result<Response<ResponseBody>, InvokeError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let started = Instant::now();
    let host = &loaded.host;
    let ending = Arc::new(Ending::new(&loaded.name, &host.metrics));
    let slots = Arc::clone(&host.slots);
    let Ok(Ok(slot)) = timeout(host.config.queue_wait, slots.acquire_owned()).await else {
        ending.failed(InvokeError::Saturated);
        return Err(InvokeError::Saturated);
    };

    let head_only = request.method() == Method::HEAD;
    let request = request.map(|body| body.map_err(request_body_error));
    let count = host.metrics.instance(&loaded.name, started);
    let (sender, answer) = oneshot::channel();
    let run = {
        let (loaded, ending) = (Arc::clone(&loaded), Arc::clone(&ending));
        async move {
            // Let go of last: the pool has room for as many instances as there are slots.
            let _held = (count, slot);
            run(&loaded, request, started, sender, &ending).await;
        }
    };
    let instance = AbortOnDropHandle::new(tokio::spawn(run));

    match answer.await {
        Ok(Ok(response)) => return GuestBody::respond(response, head_only, ending, instance),
        // An error code is an answer too: the guest may go on after it.
        Ok(Err(_)) => {
            instance.detach();
        }
        // The guest has ended without an answer, or will without being able to give one.
        Err(_) => {
            // Why its task failed, if it did, is in the ending.
            let _ = instance.await;
        }
    }
    Err(ending.failure().unwrap_or(InvokeError::NoResponse))
}

/// The instance's task.
async fn run<B>(
    loaded: &Loaded,
    request: Request<B>,
    started: Instant,
    sender: oneshot::Sender<Answer>,
    ending: &Arc<Ending>,
) where
    B: Body<Data = Bytes, Error = wasmtime_wasi_http::Error> + Send + 'static,
{
    let mut store = Guest::store(&loaded.host.engine, &loaded.host.config, &loaded.name);
    // Dropped before the store, also when the task is stopped: see `Ending`.
    let _stopped = StoppedOnDrop(ending);
    match within_deadlines(loaded, &mut store, request, started, sender, ending).await {
        Ok(()) => ending.returned(),
        Err(error) => ending.failed(error),
    }
}

/// Runs the guest until it returns or is out of time.
async fn within_deadlines<B>(
    loaded: &Loaded,
    store: &mut Store<Guest>,
    request: Request<B>,
    started: Instant,
    sender: oneshot::Sender<Answer>,
    ending: &Arc<Ending>,
) -> Result<(), InvokeError>
where
    B: Body<Data = Bytes, Error = wasmtime_wasi_http::Error> + Send + 'static,
{
    let config = &loaded.host.config;
    let answered = Arc::new(AtomicBool::new(false));
    let on_answer = {
        let (answered, ending) = (Arc::clone(&answered), Arc::clone(ending));
        move |answer: Answer| {
            answered.store(true, Ordering::Release);
            if let Err(code) = &answer {
                ending.failed(InvokeError::GuestErrorCode {
                    error: format!("{code:?}"),
                });
            }
            // Where nobody waits any more, the instance is about to be stopped.
            let _ = sender.send(answer);
        }
    };

    let mut current = config.request_deadline;
    let mut deadline = std::pin::pin!(sleep_until(started + current));
    let mut guest = std::pin::pin!(call(loaded, store, request, on_answer));
    loop {
        tokio::select! {
            biased;
            result = &mut guest => {
                result?;
                let answered = answered.load(Ordering::Acquire);
                return if answered { Ok(()) } else { Err(InvokeError::NoResponse) };
            }
            () = &mut deadline => {
                if current == config.total_deadline || !answered.load(Ordering::Acquire) {
                    return Err(InvokeError::DeadlineExceeded { after: current });
                }
                current = config.total_deadline;
                deadline.as_mut().reset(started + current);
            }
        }
    }
}

/// Instantiates the component and calls its handler.
async fn call<B>(
    loaded: &Loaded,
    store: &mut Store<Guest>,
    request: Request<B>,
    on_answer: impl FnOnce(Answer) + Send + Sync + 'static,
) -> Result<(), InvokeError>
where
    B: Body<Data = Bytes, Error = wasmtime_wasi_http::Error> + Send + 'static,
{
    let limit = loaded.host.config.memory_limit;
    let proxy = loaded.pre.instantiate_async(&mut *store).await;
    let proxy = proxy.map_err(|error| {
        failure(error, store, limit, |reason, detail| {
            InvokeError::Instantiation { reason, detail }
        })
    })?;

    let scheme = match request.uri().scheme_str() {
        Some("https") => Scheme::Https,
        Some("http") | None => Scheme::Http,
        Some(other) => Scheme::Other(other.to_owned()),
    };
    let mut http = store.data_mut().http();
    let request = http
        .new_incoming_request(scheme, request)
        .map_err(|_| InvokeError::InvalidRequest)?;
    let response = http
        .new_response_outparam_from_callback(on_answer)
        .map_err(|error| InvokeError::Instantiation {
            reason: format!("{error:#}"),
            detail: format!("{error:?}"),
        })?;

    match proxy
        .wasi_http_incoming_handler()
        .call_handle(&mut *store, request, response)
        .await
    {
        Ok(()) => Ok(()),
        // Leaving by `exit(0)` is returning.
        Err(error)
            if error
                .downcast_ref::<I32Exit>()
                .is_some_and(|exit| exit.0 == 0) =>
        {
            Ok(())
        }
        Err(error) => Err(failure(error, store, limit, |reason, detail| {
            InvokeError::Trap { reason, detail }
        })),
    }
}

/// Tells a lack of memory from other failures.
fn failure(
    error: wasmtime::Error,
    store: &Store<Guest>,
    limit: usize,
    otherwise: impl FnOnce(String, String) -> InvokeError,
) -> InvokeError {
    let detail = format!("{error:?}");
    if store.data().limits().memory_refused() {
        InvokeError::MemoryLimit { limit, detail }
    } else {
        otherwise(error.root_cause().to_string(), detail)
    }
}

/// A request body that breaks off: the guest learns that the connection ended, not why.
fn request_body_error(
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> wasmtime_wasi_http::Error {
    tracing::debug!(error = %error.into(), "a request's body broke off");
    wasmtime_wasi_http::Error::ConnectionTerminated
}

/// Notes that an instance was stopped, unless it has said how it ended.
struct StoppedOnDrop<'a>(&'a Ending);

impl Drop for StoppedOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stopped();
    }
}
