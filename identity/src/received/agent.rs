//! The `workload-api` source: a client of a SPIRE agent, or of another Sidegate.
//!
//! Each message of `FetchX509SVID` is the whole state: SVIDs, the own bundle and the foreign ones, so
//! that they belong together. JWT bundles are a stream of their own. Whatever ends one of the two ends
//! the conversation, and it begins anew.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use spiffe::transport::{GrpcStatusCode, TransportError};
use spiffe::{JwtBundleSet, TrustDomain, WorkloadApiClient, WorkloadApiError, X509Context};
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::error::ReceivedError;
use super::set::{Raw, ReceivedSet, bundle, foreign_bundle};
use super::{Absence, ReceivedSource};
use crate::jwt::JwtBundle;
use crate::spiffe_bundle::{JwtKey, SpiffeBundle};

/// For the first messages.
const ANSWER: Duration = Duration::from_secs(10);

/// The wait before the second attempt; doubled with each, up to the longest, give or take a half.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Between two looks at what time does.
const IDLE: Duration = Duration::from_secs(1);

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, WorkloadApiError>> + Send>>;

/// The streams of one connection.
struct Conversation {
    x509: Messages<X509Context>,
    /// `None` where the server has no JWT profile.
    jwt: Option<Messages<JwtBundleSet>>,
}

/// The wait before the next attempt.
struct Backoff(Duration);

impl ReceivedSource {
    /// Takes the first messages, and ends the conversation.
    pub(super) async fn first_answer(
        self: &Arc<Self>,
        socket: &str,
        patience: Duration,
    ) -> Result<(), ReceivedError> {
        let deadline = Instant::now() + patience;
        let mut backoff = Backoff::new();
        loop {
            let begun = self.converse(socket).await;
            let error = match begun.and_then(|_| self.check_entries()) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if !error.may_pass() || Instant::now() >= deadline {
                return Err(error);
            }
            self.fail(&error);
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Follows the Workload API until told to stop.
    pub(super) async fn follow_api(self: Arc<Self>, socket: &str, stop: CancellationToken) {
        let mut backoff = Backoff::new();
        loop {
            let begun = Instant::now();
            let error = tokio::select! {
                () = stop.cancelled() => return,
                error = self.talk(socket) => error,
            };
            // One that ends as soon as it has begun is no success.
            if begun.elapsed() > LONGEST {
                backoff = Backoff::new();
            }
            // It says so itself: what it gave is not to be used any more.
            if matches!(error, ReceivedError::NoIdentity { .. }) {
                let _ = self.aside(socket, |source| source.withdraw()).await;
            }
            self.fail(&error);
            let wait = Instant::now() + backoff.next();
            while Instant::now() < wait {
                let _ = self.aside(socket, |source| source.tick()).await;
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep_until(wait.min(Instant::now() + IDLE)) => {}
                }
            }
        }
    }

    /// One conversation, to its end.
    async fn talk(self: &Arc<Self>, socket: &str) -> ReceivedError {
        let mut conversation = match self.converse(socket).await {
            Ok(conversation) => conversation,
            Err(error) => return error,
        };
        loop {
            let taken = tokio::select! {
                message = conversation.x509.next() => {
                    self.take_x509(socket, message).await
                }
                message = next(&mut conversation.jwt) => self.take_jwks(socket, message).await,
                () = tokio::time::sleep(IDLE) => {
                    self.aside(socket, |source| source.tick()).await
                }
            };
            let judged = match taken {
                Ok(()) => self.aside(socket, |source| source.judge()).await,
                Err(error) => Err(error),
            };
            if let Err(error) = judged {
                return error;
            }
        }
    }

    /// Begins a conversation, and takes its first messages.
    async fn converse(self: &Arc<Self>, socket: &str) -> Result<Conversation, ReceivedError> {
        let begun = async {
            let mut conversation = Conversation::begin(socket).await?;
            self.take_x509(socket, conversation.x509.next().await)
                .await?;
            if let Some(jwt) = &mut conversation.jwt {
                match jwt.next().await {
                    // It has none to give.
                    Some(Err(WorkloadApiError::MissingRequiredField { .. })) => {
                        self.aside(socket, |source| source.take_jwt(BTreeMap::new()))
                            .await?;
                    }
                    Some(Err(error)) if has_no_jwt(&error) => conversation.jwt = None,
                    message => self.take_jwks(socket, message).await?,
                }
            }
            if conversation.jwt.is_none() {
                self.aside(socket, |source| source.take_jwt(BTreeMap::new()))
                    .await?;
            }
            self.aside(socket, |source| source.judge()).await?;
            Ok(conversation)
        };
        let begun = tokio::time::timeout(ANSWER, begun).await;
        begun.unwrap_or_else(|late| Err(unreachable(socket, late)))
    }

    async fn take_x509(
        self: &Arc<Self>,
        socket: &str,
        message: Option<Result<X509Context, WorkloadApiError>>,
    ) -> Result<(), ReceivedError> {
        let context = told(socket, message)?;
        self.aside(socket, move |source| {
            let set = source.set(&context)?;
            source.take(set, Absence::Withdrawn)
        })
        .await?
    }

    /// Verifying takes its time, and so may a reload, which holds what is to be changed.
    async fn aside<T: Send + 'static>(
        self: &Arc<Self>,
        socket: &str,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, ReceivedError> {
        let source = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&source)).await;
        done.map_err(|failure| ReceivedError::Message {
            socket: socket.to_owned(),
            source: failure.into(),
        })
    }

    /// It answers; that does not mean that there is an SVID for each entry.
    fn judge(&self) {
        match self.check_entries() {
            Ok(()) => self.is_up(),
            Err(error) => self.fail(&error),
        }
    }

    async fn take_jwks(
        self: &Arc<Self>,
        socket: &str,
        message: Option<Result<JwtBundleSet, WorkloadApiError>>,
    ) -> Result<(), ReceivedError> {
        let bundles = match told(socket, message) {
            // The X.509 stream says whether there is an identity.
            Err(ReceivedError::NoIdentity { socket }) => {
                return Err(ReceivedError::Ended { socket });
            }
            told => told?,
        };
        let bundles = bundles
            .iter()
            .map(|(trust_domain, bundle)| {
                let bundle = jwt_bundle(trust_domain, bundle);
                let bundle = bundle.map_err(|source| ReceivedError::Message {
                    socket: socket.to_owned(),
                    source,
                })?;
                Ok((trust_domain.clone(), Arc::new(bundle)))
            })
            .collect::<Result<_, ReceivedError>>()?;
        self.aside(socket, move |source| source.take_jwt(bundles))
            .await
    }

    /// What a message holds, checked.
    fn set(&self, context: &X509Context) -> Result<ReceivedSet, ReceivedError> {
        let (own, now) = (self.trust_domain(), self.clock.now());
        let roots = |bundle: &spiffe::X509Bundle| -> Vec<_> {
            let roots = bundle.authorities().iter();
            roots.map(|root| der(root.as_bytes())).collect()
        };
        let mut set = ReceivedSet::default();
        for (trust_domain, given) in context.bundle_set().iter() {
            let what = format!("the bundle of `{trust_domain}`");
            let checked = match trust_domain == own {
                true => bundle(&what, trust_domain, roots(given), now)?,
                false => foreign_bundle(&what, trust_domain, roots(given), now)?,
            };
            set.bundles.insert(trust_domain.clone(), Arc::new(checked));
        }
        for svid in context.svids() {
            let raw = Raw {
                what: format!("the SVID of `{}`", svid.spiffe_id()),
                chain: svid
                    .cert_chain()
                    .iter()
                    .map(|it| der(it.as_bytes()))
                    .collect(),
                key: Zeroizing::new(svid.private_key().as_bytes().to_vec()),
            };
            set.svids.push(Arc::new(raw.svid(own, &set.bundles, now)?));
        }
        Ok(set)
    }
}

impl Conversation {
    async fn begin(socket: &str) -> Result<Self, ReceivedError> {
        let client = WorkloadApiClient::connect_to(socket).await;
        let client = client.map_err(|error| said(socket, error))?;
        let x509 = client.stream_x509_contexts().await;
        let x509 = x509.map_err(|error| said(socket, error))?;
        let jwt: Option<Messages<_>> = match client.stream_jwt_bundles().await {
            Ok(jwt) => Some(Box::pin(jwt)),
            Err(error) if has_no_jwt(&error) => None,
            Err(error) => return Err(said(socket, error)),
        };
        Ok(Self {
            x509: Box::pin(x509),
            jwt,
        })
    }
}

impl Backoff {
    fn new() -> Self {
        Self(SHORTEST)
    }

    fn next(&mut self) -> Duration {
        let wait = self.0.mul_f64(rand::random_range(0.5..=1.5));
        self.0 = (self.0 * 2).min(LONGEST);
        wait
    }
}

/// The next JWT bundles; never any without the stream.
async fn next(
    jwt: &mut Option<Messages<JwtBundleSet>>,
) -> Option<Result<JwtBundleSet, WorkloadApiError>> {
    match jwt {
        Some(jwt) => jwt.next().await,
        None => std::future::pending().await,
    }
}

fn told<T>(socket: &str, message: Option<Result<T, WorkloadApiError>>) -> Result<T, ReceivedError> {
    match message {
        None => Err(ReceivedError::Ended {
            socket: socket.to_owned(),
        }),
        Some(message) => message.map_err(|error| said(socket, error)),
    }
}

/// What an error of the Workload API means.
fn said(socket: &str, error: WorkloadApiError) -> ReceivedError {
    let socket = socket.to_owned();
    match error {
        WorkloadApiError::NoIdentityIssued | WorkloadApiError::PermissionDenied(_) => {
            ReceivedError::NoIdentity { socket }
        }
        WorkloadApiError::Transport(_) | WorkloadApiError::Endpoint(_) => {
            unreachable(&socket, error)
        }
        _ => ReceivedError::Message {
            socket,
            source: error.into(),
        },
    }
}

fn unreachable(
    socket: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> ReceivedError {
    ReceivedError::Unreachable {
        socket: socket.to_owned(),
        source: source.into(),
    }
}

/// Whether a server says that it has no JWT profile, or nothing of it for us.
fn has_no_jwt(error: &WorkloadApiError) -> bool {
    match error {
        WorkloadApiError::Transport(TransportError::Status(status)) => {
            status.code() == GrpcStatusCode::Unimplemented
        }
        WorkloadApiError::NoIdentityIssued | WorkloadApiError::PermissionDenied(_) => true,
        _ => false,
    }
}

/// The keys in the order of their ids, as the client does not keep the one in which they came, and with
/// the `use` that SPIRE leaves out.
fn jwt_bundle(
    trust_domain: &TrustDomain,
    bundle: &spiffe::JwtBundle,
) -> Result<JwtBundle, Box<dyn std::error::Error + Send + Sync>> {
    let keys = bundle.jwt_authorities();
    let mut keys = keys
        .filter_map(|key| JwtKey::parse(key.jwk_json()).transpose())
        .collect::<Result<Vec<_>, _>>()?;
    keys.sort_by(|one, other| one.id().cmp(other.id()));
    let bundle = SpiffeBundle {
        jwt_authorities: keys,
        ..SpiffeBundle::default()
    };
    Ok(JwtBundle::new(trust_domain, bundle.jwks())?)
}

fn der(bytes: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from(bytes.to_vec())
}
