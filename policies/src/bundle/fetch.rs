//! OPA's bundle API over a transport: one request, and when to make the next.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

use super::error::{BundleError, Cause};
use super::files::Limits;

const PREFER: HeaderName = HeaderName::from_static("prefer");

/// What a server must say that its answers are, for long polling to be used.
const LONG_POLLING: &str = "application/vnd.openpolicyagent.bundles";

/// The shortest time between two requests, also where the server does not wait as it was asked to.
const LEAST_DELAY: Duration = Duration::from_millis(100);

/// The body of an answer, as it streams in.
pub type FetchBody = UnsyncBoxBody<Bytes, Cause>;

/// An answer to come.
pub type Fetching<'a> =
    Pin<Box<dyn Future<Output = Result<Response<FetchBody>, Cause>> + Send + 'a>>;

/// A way to get one bundle: it knows the URL, the credentials and whom to trust.
pub trait Fetch: Send + Sync {
    /// Asks with `GET` and these headers besides its own. The server may take `wait` longer to
    /// answer than it otherwise may. A redirect is an answer like any other.
    fn fetch(&self, headers: HeaderMap, wait: Duration) -> Fetching<'_>;
}

/// When to ask for a newer bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Polling {
    /// The shortest time between two requests, while all is well.
    pub min: Duration,
    /// The longest, also between attempts that fail.
    pub max: Duration,
    /// How long the server may wait for a newer bundle; without it, it is not asked to wait.
    pub long_poll: Option<Duration>,
}

impl Default for Polling {
    /// OPA's: every one to two minutes.
    fn default() -> Self {
        Self {
            min: Duration::from_secs(60),
            max: Duration::from_secs(120),
            long_poll: None,
        }
    }
}

impl Polling {
    /// How long to wait after something failed `failures` times in a row, at least once. `chance`
    /// is from 0 to 1.
    #[must_use]
    pub fn after_failure(&self, failures: u32, chance: f64) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
        let longest = LEAST_DELAY.saturating_mul(doubled).min(self.max);
        longest.mul_f64(0.5 + chance / 2.0).max(LEAST_DELAY)
    }

    fn after_success(&self, chance: f64) -> Duration {
        let spread = self.max.saturating_sub(self.min);
        (self.min + spread.mul_f64(chance)).max(LEAST_DELAY)
    }
}

/// A bundle on a server.
pub struct Remote {
    fetch: Arc<dyn Fetch>,
    polling: Polling,
    /// That of the bundle that was accepted last.
    etag: Option<HeaderValue>,
    /// Whether the server has not yet shown that it does not wait.
    long_polls: bool,
}

/// A bundle that is not read yet.
#[derive(Debug)]
pub struct Fetched {
    /// The tarball.
    pub compressed: Vec<u8>,
    /// What the server calls it.
    pub etag: Option<HeaderValue>,
}

impl Remote {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(fetch: Arc<dyn Fetch>, polling: Polling) -> Self {
        Self {
            fetch,
            polling,
            etag: None,
            long_polls: true,
        }
    }

    /// When it is asked.
    #[must_use]
    pub fn polling(&self) -> &Polling {
        &self.polling
    }

    /// Asks only for what is newer than this from now on.
    pub fn accepted(&mut self, etag: Option<HeaderValue>) {
        self.etag = etag;
    }

    /// How long to wait before the next request, while all is well. `chance` is from 0 to 1.
    #[must_use]
    pub fn next_delay(&self, chance: f64) -> Duration {
        match self.waits() {
            Some(_) => LEAST_DELAY,
            None => self.polling.after_success(chance),
        }
    }

    /// How long the server is to wait. It can only wait for what is newer than something.
    #[must_use]
    pub fn waits(&self) -> Option<Duration> {
        let can_wait = self.long_polls && self.etag.is_some();
        self.polling.long_poll.filter(|_| can_wait)
    }

    /// The bundle, or `None` where the server has none newer than the accepted one.
    ///
    /// # Errors
    /// A transport that fails, any other answer than a bundle or 304, and a body that is too large.
    pub async fn get(&mut self, limits: &Limits) -> Result<Option<Fetched>, BundleError> {
        let wait = self.waits();
        let mut headers = HeaderMap::new();
        headers.extend(self.etag.clone().map(|etag| (IF_NONE_MATCH, etag)));
        headers.insert(PREFER, prefer(wait));
        let answer = self.fetch.fetch(headers, wait.unwrap_or_default()).await;
        let answer = answer.map_err(|source| BundleError::Fetch { source })?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if self.etag.is_some() => return Ok(None),
            status => return Err(BundleError::Status { status }),
        }
        let kind = answer.headers().get(CONTENT_TYPE);
        self.long_polls = kind.is_some_and(|kind| kind == LONG_POLLING);
        let etag = answer.headers().get(ETAG).cloned();
        let compressed = collect(answer, limits).await?;
        Ok(Some(Fetched { compressed, etag }))
    }
}

fn prefer(wait: Option<Duration>) -> HeaderValue {
    let snapshot = HeaderValue::from_static("modes=snapshot");
    match wait {
        None => snapshot,
        Some(wait) => {
            let text = format!("modes=snapshot;wait={}", wait.as_secs());
            HeaderValue::try_from(text).unwrap_or(snapshot)
        }
    }
}

/// The whole body, if it is not too large: what is, is left where it is.
async fn collect(answer: Response<FetchBody>, limits: &Limits) -> Result<Vec<u8>, BundleError> {
    let announced = answer.headers().get(CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    Limits::check(
        Limits::COMPRESSED,
        announced.unwrap_or_default(),
        limits.compressed,
    )?;
    let mut body = answer.into_body();
    let mut collected = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| BundleError::Fetch { source })?;
        if let Ok(data) = frame.into_data() {
            let length = collected.len().saturating_add(data.len());
            Limits::check(Limits::COMPRESSED, length, limits.compressed)?;
            collected.extend_from_slice(&data);
        }
    }
    Ok(collected)
}

#[cfg(test)]
mod tests;
