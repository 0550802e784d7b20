//! OpenTelemetry's standard variables, as far as they are about traces:
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>.
//!
//! Without an endpoint nothing is exported, and no other variable is looked at. With one, what is not
//! understood is an error: spans that go nowhere would be noticed too late.

use std::fmt::Display;
use std::num::NonZeroUsize;
use std::ops::RangeBounds;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use sidegate_proxy::trace::{RootSampler, Sampler};

use crate::failure::Failure;

/// What a process is called that was given no name.
const SERVICE_NAME: &str = "sidegate";

/// Where a collector takes traces over HTTP, below the endpoint of all signals.
const TRACES_PATH: &str = "/v1/traces";

/// Where spans go, and which.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TraceSettings {
    /// Of HTTP with its path.
    pub(super) endpoint: Uri,
    pub(super) protocol: Protocol,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// For one export, with what is tried again.
    pub(super) timeout: Duration,
    /// Roots that the collector's certificate is verified with.
    pub(super) ca_file: Option<PathBuf>,
    /// What is said of this process.
    pub(super) resource: Vec<(String, String)>,
    pub(crate) sampler: Sampler,
    pub(super) schedule_delay: Duration,
    pub(super) export_timeout: Duration,
    pub(super) max_queue_size: NonZeroUsize,
    pub(super) max_export_batch_size: NonZeroUsize,
}

/// How a collector is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    HttpProtobuf,
}

/// A variable that is not what it should be. Its value is not shown: it may be a secret.
#[derive(Debug, thiserror::Error)]
#[error("{variable} {problem}")]
pub(crate) struct BadVariable {
    variable: String,
    problem: String,
    code: &'static str,
}

type Result<T> = std::result::Result<T, BadVariable>;

/// Looks variables up; those that are empty are not there.
struct Variables<F>(F);

impl TraceSettings {
    /// What the environment says; nothing where it names no collector.
    #[expect(
        clippy::disallowed_methods,
        reason = "the cli is where the environment is read"
    )]
    pub(crate) fn from_environment() -> std::result::Result<Option<Self>, Failure> {
        let lookup = |name: &str| match std::env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err(malformed(name, "is not text")),
        };
        let settings = Self::read(&Variables(lookup));
        settings.map_err(|error| {
            Failure::new(error.code, &error).help("unset it, or see docs/tracing.md")
        })
    }

    fn read<F: Fn(&str) -> Result<Option<String>>>(
        variables: &Variables<F>,
    ) -> Result<Option<Self>> {
        let specific = variables.text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")?;
        let general = variables.text("OTEL_EXPORTER_OTLP_ENDPOINT")?;
        if specific.is_none() && general.is_none() || variables.is_off()? {
            return Ok(None);
        }
        let protocol = variables.protocol()?;
        let endpoint = match (specific, general) {
            (Some(specific), _) => endpoint("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &specific, None)?,
            (None, general) => {
                let path = Some(TRACES_PATH).filter(|_| protocol == Protocol::HttpProtobuf);
                let general = general.unwrap_or_default();
                endpoint("OTEL_EXPORTER_OTLP_ENDPOINT", &general, path)?
            }
        };
        let max_queue_size = variables.number("OTEL_BSP_MAX_QUEUE_SIZE", 2048)?;
        let batch = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";
        let max_export_batch_size = variables.number(batch, 512.min(max_queue_size.get()))?;
        if max_export_batch_size > max_queue_size {
            let problem = format!("must be at most OTEL_BSP_MAX_QUEUE_SIZE, {max_queue_size}");
            return Err(malformed(batch, problem));
        }
        Ok(Some(Self {
            protocol,
            headers: variables.headers()?,
            timeout: variables.milliseconds(&variables.name_of("TIMEOUT")?, 10_000, 1..)?,
            ca_file: variables.ca_file(&endpoint)?,
            resource: variables.resource()?,
            sampler: variables.sampler()?,
            schedule_delay: variables.milliseconds("OTEL_BSP_SCHEDULE_DELAY", 5_000, 0..)?,
            export_timeout: variables.milliseconds("OTEL_BSP_EXPORT_TIMEOUT", 30_000, 1..)?,
            max_queue_size,
            max_export_batch_size,
            endpoint,
        }))
    }
}

impl<F: Fn(&str) -> Result<Option<String>>> Variables<F> {
    fn text(&self, name: &str) -> Result<Option<String>> {
        let value = (self.0)(name)?.map(|value| value.trim().to_owned());
        Ok(value.filter(|value| !value.is_empty()))
    }

    /// The name of the variable that counts: that of traces, if it is there, or else that of all
    /// signals.
    fn name_of(&self, what: &str) -> Result<String> {
        let specific = format!("OTEL_EXPORTER_OTLP_TRACES_{what}");
        Ok(match self.text(&specific)? {
            Some(_) => specific,
            None => format!("OTEL_EXPORTER_OTLP_{what}"),
        })
    }

    /// Whether there is to be no export although there is an endpoint.
    fn is_off(&self) -> Result<bool> {
        let disabled = "OTEL_SDK_DISABLED";
        match self.text(disabled)?.map(|text| text.to_ascii_lowercase()) {
            None => {}
            Some(text) if text == "false" => {}
            Some(text) if text == "true" => return Ok(true),
            Some(_) => return Err(malformed(disabled, "is neither `true` nor `false`")),
        }
        let exporter = "OTEL_TRACES_EXPORTER";
        match self.text(exporter)?.as_deref() {
            None | Some("otlp") => Ok(false),
            Some("none") => Ok(true),
            Some(_) => Err(unsupported(exporter, "`otlp` and `none`")),
        }
    }

    fn protocol(&self) -> Result<Protocol> {
        let name = self.name_of("PROTOCOL")?;
        match self.text(&name)?.as_deref() {
            None | Some("grpc") => Ok(Protocol::Grpc),
            Some("http/protobuf") => Ok(Protocol::HttpProtobuf),
            Some(_) => Err(unsupported(&name, "`grpc` and `http/protobuf`")),
        }
    }

    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>> {
        let name = self.name_of("HEADERS")?;
        let pairs = self.pairs(&name)?.into_iter();
        let headers = pairs.map(|(key, value)| {
            let key = HeaderName::try_from(key.to_ascii_lowercase());
            let value = HeaderValue::try_from(value);
            match (key, value) {
                (Ok(key), Ok(mut value)) => {
                    value.set_sensitive(true);
                    Ok((key, value))
                }
                _ => Err(malformed(&name, "has what is no header of HTTP")),
            }
        });
        headers.collect()
    }

    /// The roots, which an endpoint with TLS needs.
    fn ca_file(&self, endpoint: &Uri) -> Result<Option<PathBuf>> {
        for what in ["CLIENT_CERTIFICATE", "CLIENT_KEY"] {
            let name = self.name_of(what)?;
            if self.text(&name)?.is_some() {
                let problem = "is not supported: the exporter shows no certificate";
                return Err(bad(&name, "SG0081", problem));
            }
        }
        let name = self.name_of("COMPRESSION")?;
        if !matches!(self.text(&name)?.as_deref(), None | Some("none" | "gzip")) {
            return Err(unsupported(&name, "`gzip` and `none`"));
        }
        let name = self.name_of("CERTIFICATE")?;
        let ca_file = self.text(&name)?.map(PathBuf::from);
        let has_tls = endpoint.scheme_str() == Some("https");
        match ca_file {
            None if has_tls => Err(malformed(
                &name,
                "must name the roots that the collector's certificate is verified with: the \
                 endpoint is `https`",
            )),
            ca_file => Ok(ca_file.filter(|_| has_tls)),
        }
    }

    fn resource(&self) -> Result<Vec<(String, String)>> {
        const NAME: &str = "service.name";
        let mut resource = self.pairs("OTEL_RESOURCE_ATTRIBUTES")?;
        if let Some(name) = self.text("OTEL_SERVICE_NAME")? {
            resource.retain(|(key, _)| key != NAME);
            resource.push((NAME.to_owned(), name));
        }
        for (key, value) in [
            (NAME, SERVICE_NAME),
            ("service.version", env!("CARGO_PKG_VERSION")),
        ] {
            if !resource.iter().any(|(known, _)| known == key) {
                resource.push((key.to_owned(), value.to_owned()));
            }
        }
        Ok(resource)
    }

    fn sampler(&self) -> Result<Sampler> {
        let name = "OTEL_TRACES_SAMPLER";
        let ratio = || self.ratio("OTEL_TRACES_SAMPLER_ARG");
        let sampler = self.text(name)?;
        let sampler = sampler.as_deref().unwrap_or("parentbased_always_on");
        let (root, is_parent_based) = match sampler.strip_prefix("parentbased_") {
            Some(root) => (root, true),
            None => (sampler, false),
        };
        let root = match root {
            "always_on" => RootSampler::AlwaysOn,
            "always_off" => RootSampler::AlwaysOff,
            "traceidratio" => RootSampler::TraceIdRatio(ratio()?),
            _ => {
                return Err(unsupported(
                    name,
                    "`always_on`, `always_off` and `traceidratio`, each also with `parentbased_` \
                     before it,",
                ));
            }
        };
        Ok(match is_parent_based {
            true => Sampler::ParentBased(root),
            false => Sampler::Always(root),
        })
    }

    fn ratio(&self, name: &str) -> Result<f64> {
        let Some(text) = self.text(name)? else {
            return Ok(1.0);
        };
        let ratio = text
            .parse()
            .ok()
            .filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.ok_or_else(|| malformed(name, "is not a number from 0 to 1"))
    }

    fn number(&self, name: &str, default: usize) -> Result<NonZeroUsize> {
        let number = match self.text(name)? {
            Some(text) => parsed(&text, 1..),
            None => Some(default),
        };
        let number = number.and_then(NonZeroUsize::new);
        number.ok_or_else(|| malformed(name, "is not a whole number greater than zero"))
    }

    fn milliseconds(
        &self,
        name: &str,
        default: u64,
        allowed: impl RangeBounds<u64>,
    ) -> Result<Duration> {
        let milliseconds = match self.text(name)? {
            Some(text) => parsed(&text, allowed),
            None => Some(default),
        };
        let milliseconds = milliseconds.map(Duration::from_millis);
        milliseconds.ok_or_else(|| malformed(name, "is not a whole number of milliseconds"))
    }

    /// `key=value,key=value`, the values with percent-encoding.
    fn pairs(&self, name: &str) -> Result<Vec<(String, String)>> {
        let text = self.text(name)?.unwrap_or_default();
        let pairs = text.split(',').map(str::trim);
        let pairs = pairs.filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=')?;
            let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
            let key = key.trim();
            (!key.is_empty()).then(|| (key.to_owned(), value.into_owned()))
        });
        let pairs: Option<Vec<_>> = pairs.collect();
        pairs.ok_or_else(|| malformed(name, "is not a list like `key=value,key=value`"))
    }
}

/// `http://` or `https://` with a host; `path` is appended.
fn endpoint(name: &str, text: &str, path: Option<&str>) -> Result<Uri> {
    let refused = || malformed(name, "is not a URL like `http://127.0.0.1:4317`");
    let text = match path {
        Some(path) => format!("{}{path}", text.trim_end_matches('/')),
        None => text.to_owned(),
    };
    let uri: Uri = text.parse().map_err(|_| refused())?;
    let is_url = matches!(uri.scheme_str(), Some("http" | "https"));
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if is_url && !authority.is_empty() && !authority.contains('@') {
        Ok(uri)
    } else {
        Err(refused())
    }
}

fn parsed<N: FromStr + PartialOrd>(text: &str, allowed: impl RangeBounds<N>) -> Option<N> {
    let number = text.parse().ok()?;
    allowed.contains(&number).then_some(number)
}

fn malformed(variable: &str, problem: impl Display) -> BadVariable {
    bad(variable, "SG0080", problem)
}

fn unsupported(variable: &str, supported: &str) -> BadVariable {
    let problem = format!("has a value that is not supported: {supported} are");
    bad(variable, "SG0081", problem)
}

fn bad(variable: &str, code: &'static str, problem: impl Display) -> BadVariable {
    BadVariable {
        variable: variable.to_owned(),
        problem: problem.to_string(),
        code,
    }
}

#[cfg(test)]
mod tests;
