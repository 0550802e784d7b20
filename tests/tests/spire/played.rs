//! A SPIRE server that is played in the test's own process, so that it can be slow, wrong or gone.
//!
//! What passes against it says nothing about interoperation: it was written by those who wrote what
//! it tests, from SPIRE's published protos and the behaviour of its server, and shares no code or
//! proto with it. It shows what Sidegate does. The same scenarios run against the real server
//! wherever there is one; where both are asked, the real one is right.

mod agent;
mod authority;
mod entries;
pub(super) mod fault;
pub(super) mod messages;
mod self_test;
mod state;
mod svids;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;

use super::server::{Entry, Kind, Options, SpireServer, joined};
use crate::support::hexadecimal;
pub(super) use fault::{Fault, Forgery};
use messages::{Bundle, X509Certificate};
pub(super) use state::{Behaviour, Seen};
use state::{Caller, State};

/// How long a message to it may be.
const LARGEST: usize = 64 << 20;

type Answer<T> = Result<T, Status>;

/// The played server.
pub(super) struct Played {
    shared: Shared,
    address: String,
    /// `None` only at the end.
    runtime: Option<Runtime>,
    accepting: Option<JoinHandle<()>>,
}

/// Its state, wherever it is needed.
#[derive(Clone)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Played {
    /// Changes how it behaves from now on.
    pub(super) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.lock().behaviour);
    }

    /// Does this to each call of a method.
    pub(super) fn fault(&self, method: &'static str, fault: Fault) {
        self.behave(|it| it.faults.extend([(method, fault)]));
    }

    /// Does nothing wrong any more.
    pub(super) fn mend(&self) {
        self.behave(|it| it.faults.clear());
    }

    /// What agents did so far.
    pub(super) fn seen(&self) -> Seen {
        self.shared.lock().seen.clone()
    }

    /// How often a method was called.
    pub(super) fn calls(&self, method: &str) -> usize {
        self.seen().calls.get(method).copied().unwrap_or_default()
    }

    fn listen(&mut self, address: SocketAddr) {
        let runtime = self.runtime.as_ref().expect("it runs");
        let _entered = runtime.enter();
        let listener = sidegate_tests::until("the played server's port", || {
            let socket = std::net::TcpListener::bind(address).ok()?;
            socket.set_nonblocking(true).expect("it is a socket");
            TcpListener::from_std(socket).ok()
        });
        self.address = listener.local_addr().expect("an address").to_string();
        let shared = self.shared.clone();
        self.accepting = Some(runtime.spawn(async move {
            // Connections end with the task that accepts them.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(shared.clone(), stream));
                while connections.try_join_next().is_some() {}
            }
        }));
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl SpireServer for Played {
    fn start(_: &str, options: &Options) -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let mut played = Self {
            shared: Shared(Arc::new(Mutex::new(State::new(options.clone())))),
            address: String::new(),
            runtime: Some(runtime.expect("a runtime")),
            accepting: None,
        };
        played.listen(([127, 0, 0, 1], 0).into());
        Some(played)
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn bundle_pem(&self) -> String {
        let state = self.shared.lock();
        let blocks = state.authorities.roots();
        let blocks = blocks.map(|root| pem::encode(&pem::Pem::new("CERTIFICATE", root.to_vec())));
        blocks.collect()
    }

    fn bundle_json(&self) -> String {
        self.shared.lock().authorities.json().to_string()
    }

    fn join_token(&self, alias: Option<&str>) -> String {
        let token = hexadecimal(&authority::random::<16>());
        let mut state = self.shared.lock();
        state.tokens.insert(token.clone());
        if let Some(alias) = alias {
            let agent = joined(&token);
            let entry = Entry {
                spiffe_id: alias.to_owned(),
                selectors: vec![format!("spiffe_id:{agent}")],
                parent: agent,
                ..Entry::default()
            };
            state.register(None, &entry);
        }
        token
    }

    fn create(&self, entry: &Entry) -> String {
        self.shared.lock().register(None, entry)
    }

    fn update(&self, id: &str, entry: &Entry) {
        self.shared.lock().register(Some(id), entry);
    }

    fn delete(&self, id: &str) {
        let entry = self.shared.lock().entries.remove(id);
        entry.expect("there was such an entry");
    }

    fn agents(&self) -> Vec<String> {
        let state = self.shared.lock();
        let agents = state.agents.iter();
        let active = agents.filter(|(_, agent)| agent.active.is_some());
        active.map(|(id, _)| id.clone()).collect()
    }

    fn ban(&self, agent: &str) {
        let mut state = self.shared.lock();
        let agent = state.agents.get_mut(agent).expect("it has attested");
        (agent.active, agent.next) = (None, None);
    }

    fn evict(&self, agent: &str) {
        let agent = self.shared.lock().agents.remove(agent);
        agent.expect("it has attested");
    }

    fn rotate(&self, kind: Kind) {
        self.shared.lock().authorities.rotate(kind);
    }

    fn taint(&self, kind: Kind) {
        self.shared.lock().authorities.taint(kind);
    }

    fn revoke(&self, kind: Kind) {
        self.shared.lock().authorities.revoke(kind);
    }

    fn set_bundle(&self, trust_domain: &str, pem: &str) {
        let blocks = pem::parse_many(pem).expect("it is PEM").into_iter();
        let authorities = blocks.map(|block| X509Certificate {
            asn1: block.into_contents(),
            tainted: false,
        });
        let bundle = Bundle {
            trust_domain: trust_domain.to_owned(),
            x509_authorities: authorities.collect(),
            sequence_number: 1,
            ..Bundle::default()
        };
        let mut state = self.shared.lock();
        state.bundles.insert(trust_domain.to_owned(), bundle);
    }

    fn stop(&mut self) {
        let accepting = self.accepting.take().expect("it runs");
        accepting.abort();
        sidegate_tests::until("its end", || accepting.is_finished().then_some(()));
    }

    fn start_again(&mut self) {
        self.listen(self.address.parse().expect("an address"));
    }

    fn forget(&mut self) {
        let mut state = self.shared.lock();
        let (behaviour, seen) = (state.behaviour.clone(), state.seen.clone());
        *state = State::new(state.options.clone());
        (state.behaviour, state.seen) = (behaviour, seen);
    }
}

/// One connection, until it has its age.
async fn serve(shared: Shared, stream: TcpStream) {
    stream.set_nodelay(true).ok();
    let (acceptor, age) = {
        let mut state = shared.lock();
        state.seen.connections += 1;
        (acceptor(&state), state.behaviour.connection_age)
    };
    // What is no TLS, or shows a certificate of others, is not served.
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let caller = certificates.and_then(<[_]>::first);
    let caller = caller.map(|leaf| Caller::new(leaf));
    let service = service_fn(move |request| {
        let (shared, caller) = (shared.clone(), caller.clone());
        async move { Ok::<_, std::convert::Infallible>(answer(shared, caller, request).await) }
    });
    let connection =
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        () = tokio::time::sleep(age) => connection.as_mut().graceful_shutdown(),
    }
    connection.await.ok();
}

/// TLS with an SVID of this moment. Certificates are not asked of everybody, and verified.
fn acceptor(state: &State) -> TlsAcceptor {
    let mut roots = RootCertStore::empty();
    for root in state.authorities.roots() {
        roots.add(root.clone()).expect("a root");
    }
    let verifier = WebPkiClientVerifier::builder(roots.into()).allow_unauthenticated();
    let (chain, key) = state.authorities.server();
    let mut config = ServerConfig::builder()
        .with_client_cert_verifier(verifier.build().expect("there are roots"))
        .with_single_cert(chain, key)
        .expect("the key fits");
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.send_tls13_tickets = 0;
    Arc::new(config).into()
}

/// One call.
async fn answer(
    shared: Shared,
    caller: Option<Caller>,
    request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let method = path.rsplit('/').next().unwrap_or_default();
    let fault = {
        let mut state = shared.lock();
        *state.seen.calls.entry(method.to_owned()).or_default() += 1;
        state.behaviour.faults.get(method).copied()
    };
    if let Some(fault) = fault
        && let Err(status) = fault.before().await
    {
        return status.into_http();
    }
    let answer = match path.as_str() {
        "/spire.api.server.agent.v1.Agent/AttestAgent" => {
            streaming(request, move |requests, answers| {
                agent::attest(shared, requests, answers)
            })
            .await
        }
        "/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries" => {
            streaming(request, move |requests, answers| {
                entries::sync(shared, caller, requests, answers)
            })
            .await
        }
        "/spire.api.server.agent.v1.Agent/RenewAgent" => {
            unary(shared, caller, request, agent::renew).await
        }
        "/spire.api.server.agent.v1.Agent/PostStatus" => {
            unary(shared, caller, request, agent::post_status).await
        }
        "/spire.api.server.entry.v1.Entry/GetAuthorizedEntries" => {
            unary(shared, caller, request, entries::get).await
        }
        "/spire.api.server.svid.v1.SVID/BatchNewX509SVID" => {
            unary(shared, caller, request, svids::batch).await
        }
        "/spire.api.server.svid.v1.SVID/NewJWTSVID" => {
            unary(shared, caller, request, svids::jwt).await
        }
        "/spire.api.server.bundle.v1.Bundle/GetBundle" => {
            unary(shared, caller, request, svids::bundle).await
        }
        "/spire.api.server.bundle.v1.Bundle/GetFederatedBundle" => {
            unary(shared, caller, request, svids::federated).await
        }
        _ => Status::unimplemented(format!("unknown method {method}")).into_http(),
    };
    match fault {
        Some(fault) => fault.after(answer).await,
        None => answer,
    }
}

async fn unary<Q, A>(
    shared: Shared,
    caller: Option<Caller>,
    request: Request<Incoming>,
    answer: fn(&mut State, Option<&Caller>, Q) -> Answer<A>,
) -> Response<Body>
where
    Q: prost::Message + Default + 'static,
    A: prost::Message + Default + 'static,
{
    let service = tower::service_fn(move |request: tonic::Request<Q>| {
        let answer = answer(&mut shared.lock(), caller.as_ref(), request.into_inner());
        std::future::ready(answer.map(tonic::Response::new))
    });
    Grpc::new(ProstCodec::<A, Q>::default())
        .max_decoding_message_size(LARGEST)
        .unary(service, request)
        .await
}

async fn streaming<Q, A, F>(
    request: Request<Incoming>,
    answer: impl FnOnce(tonic::Streaming<Q>, mpsc::Sender<Answer<A>>) -> F + Send + 'static,
) -> Response<Body>
where
    Q: prost::Message + Default + 'static,
    A: prost::Message + Default + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let mut answer = Some(answer);
    let service = tower::service_fn(move |request: tonic::Request<tonic::Streaming<Q>>| {
        let answer = answer.take().expect("it is called once");
        let (sender, receiver) = mpsc::channel(8);
        tokio::spawn(answer(request.into_inner(), sender));
        let stream = ReceiverStream::new(receiver);
        std::future::ready(Ok(tonic::Response::new(stream)))
    });
    Grpc::new(ProstCodec::<A, Q>::default())
        .max_decoding_message_size(LARGEST)
        .streaming(service, request)
        .await
}
