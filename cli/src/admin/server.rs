//! Serving the admin API.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::unistd::geteuid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sidegate_identity::TrustDomain;
use sidegate_identity::embedded::{AuthorityKind, Blame, EmbeddedError, EmbeddedSource};
use sidegate_identity::received::ReceivedError;
use sidegate_identity::registry::Registration;
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, info_span, warn};

use super::{
    Bundle, BundleList, Chosen, EntryDocument, EntryList, Level, NewEntry, Nothing, Refusal,
    Removed, Rotate, Selected,
};
use crate::failure::chain;
use crate::instance::{ChangeError, NoIdentities, PolicyManager, Source};
use crate::table::Table;
use crate::telemetry::LogLevel;

/// The largest request.
const LARGEST: usize = 4 << 20;

/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(10);

/// What a source that cannot is asked for.
const ROTATE: &str = "rotate authorities";

/// Serves the admin API of one instance.
pub(crate) struct AdminServer {
    source: Source,
    policy: Arc<PolicyManager>,
    level: LogLevel,
    status: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
}

/// What a request comes to.
type Answer = Result<Response<Full<Bytes>>, Refused>;

/// A request that is not done.
struct Refused {
    status: StatusCode,
    refusal: Refusal,
}

impl AdminServer {
    /// `status` tells what `check` shows.
    pub(crate) fn new(
        source: Source,
        policy: Arc<PolicyManager>,
        level: LogLevel,
        status: impl Fn() -> serde_json::Value + Send + Sync + 'static,
    ) -> Self {
        Self {
            source,
            policy,
            level,
            status: Arc::new(status),
        }
    }

    /// Serves until told to stop.
    pub(crate) async fn serve(self, listener: UnixListener, stop: CancellationToken) {
        let server = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    if let Some(caller) = allowed(&stream) {
                        // Whatever is logged of its requests says who asked.
                        let span = info_span!("admin", uid = caller.uid(), pid = caller.pid());
                        let connection = Arc::clone(&server).connection(stream, stop.clone());
                        tokio::spawn(connection.instrument(span));
                    }
                }
                Err(error) => {
                    // Out of descriptors, most often: others must end first.
                    debug!(%error, "an admin connection is not accepted");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: UnixStream, stop: CancellationToken) {
        // A task of its own, which a client that hangs up does not leave half done.
        let service =
            service_fn(|request| tokio::spawn(Arc::clone(&self).answer(request).in_current_span()));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            served = connection => if let Err(error) = served {
                debug!(%error, "an admin connection broke");
            },
            () = stop.cancelled() => {}
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let answer = match (&parts.method, segments.as_slice()) {
            _ if parts.uri.query().is_some() => Err(bad(format!("`{path}` takes no query"))),
            (&Method::GET, ["v1", "status"]) => self.status().await,
            (_, ["v1", "entries" | "authorities" | "bundles", ..]) if self.source.is_off() => {
                Err(NoIdentities.into())
            }
            (&Method::GET, ["v1", "entries"]) => self.list().await,
            (&Method::POST, ["v1", "entries"]) => self.create(body).await,
            (&Method::GET, ["v1", "entries", id]) => self.entry(id).await,
            (&Method::DELETE, ["v1", "entries", id]) => self.delete(id).await,
            (&Method::GET, ["v1", "authorities"]) => self.authorities().await,
            (&Method::GET, ["v1", "bundles"]) => self.bundles().await,
            (&Method::PUT, ["v1", "bundles", name]) => self.set_bundle(name, body).await,
            (&Method::DELETE, ["v1", "bundles", name]) => self.delete_bundle(name).await,
            (&Method::POST, ["v1", "authorities", kind, action]) => {
                self.authority(kind, action, body).await
            }
            (&Method::GET, ["v1", "log", "level"]) => self.log_level(),
            (&Method::POST, ["v1", "log", "level"]) => self.set_log_level(body).await,
            (&Method::POST, ["v1", "policy", "rollback"]) => self.roll_back(body).await,
            (&Method::POST, ["v1", "policy", "promote"]) => self.promote(body).await,
            _ => Err(Refused::new(
                StatusCode::NOT_FOUND,
                "SG0047",
                format!("there is no `{} {path}`", parts.method),
            )),
        };
        answer.unwrap_or_else(|refused| {
            debug!(code = refused.refusal.code, "an admin request is refused");
            let body = serde_json::to_string(&refused.refusal).unwrap_or_default();
            response(refused.status, body + "\n")
        })
    }

    async fn status(&self) -> Answer {
        let status = Arc::clone(&self.status);
        let status = self.ask(move |_| Ok(status())).await?;
        json_document(StatusCode::OK, &status)
    }

    async fn entries(&self) -> Result<Vec<Registration>, Refused> {
        self.ask(|source| Ok(source.entries())).await
    }

    async fn list(&self) -> Answer {
        let entries = self.entries().await?;
        let entries = entries.iter().map(EntryDocument::from).collect();
        json_document(StatusCode::OK, &EntryList { entries })
    }

    async fn entry(&self, id: &str) -> Answer {
        let entries = self.entries().await?;
        match entries.iter().find(|known| known.id == id) {
            Some(known) => json_document(StatusCode::OK, &EntryDocument::from(known)),
            None => Err(Refused::new(
                StatusCode::NOT_FOUND,
                "SG0115",
                format!("there is no entry `{id}`"),
            )),
        }
    }

    async fn create(&self, body: Incoming) -> Answer {
        let NewEntry {
            id,
            entry: Table(entry),
        } = read(body).await?;
        let created = self
            .mint("make entries", move |source| source.create_entry(id, entry))
            .await?;
        info!(id = created.id, spiffe_id = %created.entry.spiffe_id(), "an entry is made");
        json_document(StatusCode::CREATED, &EntryDocument::from(&created))
    }

    async fn delete(&self, id: &str) -> Answer {
        let id = id.to_owned();
        let removed = self
            .mint("remove entries", move |source| source.delete_entry(&id))
            .await?;
        info!(id = removed.id, spiffe_id = %removed.entry.spiffe_id(), "an entry is removed");
        let removed = EntryDocument::from(&removed);
        json_document(StatusCode::OK, &Removed { removed })
    }

    async fn authorities(&self) -> Answer {
        let what = "show authorities of its own";
        let authorities = self.mint(what, |source| Ok(source.authorities())).await?;
        json_document(StatusCode::OK, &authorities)
    }

    async fn bundles(&self) -> Answer {
        let bundles = self.ask(Source::spiffe_bundles).await?.into_iter();
        let bundles = bundles.map(|(trust_domain, bundle)| (trust_domain.to_string(), bundle));
        let list = BundleList {
            own: self.source.watch().borrow().trust_domain.to_string(),
            trust_domains: bundles.collect(),
        };
        json_document(StatusCode::OK, &list)
    }

    async fn set_bundle(&self, name: &str, body: Incoming) -> Answer {
        let trust_domain = trust_domain(name)?;
        let json = bytes(body).await?;
        let of = trust_domain.clone();
        let what = "take bundles from operators";
        self.mint(what, move |source| source.set_bundle(&of, &json))
            .await?;
        info!(%trust_domain, "a foreign bundle is taken");
        let trust_domain = trust_domain.to_string();
        json_document(StatusCode::OK, &Bundle { trust_domain })
    }

    async fn delete_bundle(&self, name: &str) -> Answer {
        let trust_domain = trust_domain(name)?;
        let of = trust_domain.clone();
        let what = "give up bundles for operators";
        self.mint(what, move |source| source.delete_bundle(&of))
            .await?;
        info!(%trust_domain, "a foreign bundle is given up");
        let trust_domain = trust_domain.to_string();
        json_document(StatusCode::OK, &Bundle { trust_domain })
    }

    async fn authority(&self, kind: &str, action: &str, body: Incoming) -> Answer {
        let unknown = |what: &str| {
            Refused::new(
                StatusCode::NOT_FOUND,
                "SG0047",
                format!("there is no {what}"),
            )
        };
        let kind = match kind {
            "x509" => AuthorityKind::X509,
            "jwt" => AuthorityKind::Jwt,
            other => return Err(unknown(&format!("authority of the kind `{other}`"))),
        };
        match action {
            "rotate" => {
                let Rotate { prepare_only } = read(body).await?;
                if prepare_only {
                    self.mint(ROTATE, move |source| source.prepare(kind))
                        .await?;
                } else {
                    let source = Arc::clone(self.source.minting(ROTATE)?);
                    source.rotate_authority(kind).await?;
                }
                info!(?kind, prepare_only, "an authority is rotated");
                self.authorities().await
            }
            "taint" | "revoke" => {
                let Selected { id } = read(body).await?;
                let taints = action == "taint";
                let chosen = self.mint("give up authorities", move |source| match taints {
                    true => source.taint(kind, id.as_deref()),
                    false => source.revoke(kind, id.as_deref()),
                });
                let id = chosen.await?;
                info!(?kind, action, id, "an authority is given up");
                json_document(StatusCode::OK, &Chosen { id })
            }
            other => Err(unknown(&format!("action `{other}`"))),
        }
    }

    fn log_level(&self) -> Answer {
        let level = self.level.get();
        json_document(StatusCode::OK, &Level { level })
    }

    async fn set_log_level(&self, body: Incoming) -> Answer {
        let Level { level } = read(body).await?;
        let before = self.level.get();
        self.level.set(&level).map_err(|problem| {
            Refused::new(StatusCode::BAD_REQUEST, "SG0037", problem.to_string())
        })?;
        info!(level, before, "the log level is changed");
        self.log_level()
    }

    async fn roll_back(&self, body: Incoming) -> Answer {
        let Nothing {} = read(body).await?;
        json_document(StatusCode::OK, &self.policy.rollback().await?)
    }

    async fn promote(&self, body: Incoming) -> Answer {
        let Nothing {} = read(body).await?;
        json_document(StatusCode::OK, &self.policy.promote().await?)
    }

    /// What only a source that mints can do.
    async fn mint<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&EmbeddedSource) -> Result<T, EmbeddedError> + Send + 'static,
    ) -> Result<T, Refused> {
        let source = Arc::clone(self.source.minting(what)?);
        self.ask(move |_| work(&source)).await
    }

    /// The source may be signing or syncing files: what it does, and what it only tells, takes time.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Source) -> Result<T, EmbeddedError> + Send + 'static,
    ) -> Result<T, Refused> {
        let source = self.source.clone();
        match tokio::task::spawn_blocking(move || work(&source)).await {
            Ok(done) => Ok(done?),
            Err(failure) => {
                error!(code = "SG0049", %failure, "an admin request failed");
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Err(Refused::new(status, "SG0049", failure.to_string()))
            }
        }
    }
}

/// Who calls, if it is the owner of this process, or root: they could read its memory anyway.
fn allowed(stream: &UnixStream) -> Option<UCred> {
    match stream.peer_cred() {
        Ok(caller) if caller.uid() == 0 || caller.uid() == geteuid().as_raw() => Some(caller),
        Ok(caller) => {
            warn!(
                code = "SG0048",
                uid = caller.uid(),
                "another user is turned away from the admin API",
            );
            None
        }
        Err(error) => {
            warn!(code = "SG0048", %error, "a caller of the admin API is not known");
            None
        }
    }
}

/// A request's body. None at all stands for an empty document.
async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, Refused> {
    let body = bytes(body).await?;
    let body = if body.is_empty() { b"{}" } else { &body[..] };
    let document = serde_json::from_slice(body).map_err(|error| bad(error.to_string()));
    document.map(|Table(document)| document)
}

async fn bytes(body: Incoming) -> Result<Bytes, Refused> {
    let body = Limited::new(body, LARGEST).collect().await;
    Ok(body.map_err(|error| bad(error.to_string()))?.to_bytes())
}

fn trust_domain(name: &str) -> Result<TrustDomain, Refused> {
    let known = TrustDomain::new(name).ok();
    known
        .filter(|known| known.as_str() == name)
        .ok_or_else(|| bad(format!("`{name}` is not the name of a trust domain")))
}

fn bad(message: String) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, "SG0047", message)
}

fn json_document(status: StatusCode, document: &impl Serialize) -> Answer {
    match serde_json::to_string(document) {
        Ok(body) => Ok(response(status, body + "\n")),
        Err(error) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Err(Refused::new(status, "SG0049", error.to_string()))
        }
    }
}

fn response(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

impl Refused {
    fn new(status: StatusCode, code: &str, message: String) -> Self {
        let refusal = Refusal {
            code: code.to_owned(),
            message,
            hint: None,
        };
        Self { status, refusal }
    }
}

impl From<ChangeError> for Refused {
    fn from(error: ChangeError) -> Self {
        let status = match error {
            ChangeError::NoPrevious
            | ChangeError::NoCandidate
            | ChangeError::CandidateRefused { .. } => StatusCode::CONFLICT,
            ChangeError::Sources(_) | ChangeError::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.code(), chain(&error))
    }
}

impl From<ReceivedError> for Refused {
    fn from(error: ReceivedError) -> Self {
        let mut refused = Self::new(StatusCode::CONFLICT, error.code(), chain(&error));
        refused.refusal.hint = error.hint().map(ToOwned::to_owned);
        refused
    }
}

impl From<NoIdentities> for Refused {
    fn from(error: NoIdentities) -> Self {
        let mut refused = Self::new(StatusCode::CONFLICT, error.code(), error.to_string());
        refused.refusal.hint = Some(error.hint().to_owned());
        refused
    }
}

impl From<EmbeddedError> for Refused {
    fn from(error: EmbeddedError) -> Self {
        let status = match error.blame() {
            Blame::Request => StatusCode::BAD_REQUEST,
            Blame::Absent => StatusCode::NOT_FOUND,
            Blame::Conflict => StatusCode::CONFLICT,
            Blame::Ourselves => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut refused = Self::new(status, error.code(), chain(&error));
        refused.refusal.hint = error.hint().map(ToOwned::to_owned);
        refused
    }
}
