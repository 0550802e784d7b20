//! Spans on their way to a collector, by OTLP. All of it happens on the control runtime.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{
    ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use sidegate_proxy::trace::{self, AttributeValue, Span, SpanQueue, TraceMetrics, Tracer};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::variables::{Protocol, TraceSettings};
use crate::failure::Failure;
use crate::transport::{HttpFetch, TransportError};

/// How long the collector may take for the last spans.
const LAST_SPANS: Duration = Duration::from_secs(5);

/// How much of an answer over HTTP is read.
const ANSWER: usize = 4 * 1024 * 1024;

/// Takes the spans of all workers to the collector.
pub(crate) struct Exporter {
    queue: SpanQueue,
    exporter: SpanExporter,
    scope: InstrumentationScope,
    schedule_delay: Duration,
    export_timeout: Duration,
    /// Whether the last batch was accepted.
    is_well: bool,
}

/// A collector that cannot be spoken to as the variables say.
#[derive(Debug, thiserror::Error)]
enum ExporterError {
    #[error("the roots of the collector, {}, cannot be read", path.display())]
    Roots {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the collector cannot be verified")]
    Trust(#[from] TransportError),
    #[error("the exporter of spans cannot be made")]
    Build(#[from] ExporterBuildError),
}

impl Exporter {
    /// Makes it, with what workers give their spans to. Needs a runtime; nothing is connected yet.
    pub(crate) fn new(
        settings: TraceSettings,
        metrics: TraceMetrics,
    ) -> Result<(Self, Tracer), Failure> {
        let queue = SpanQueue::new(
            settings.max_queue_size,
            settings.max_export_batch_size,
            metrics,
        );
        let tracer = Tracer::new(settings.sampler, queue.clone());
        let exporter = exporter(&settings).map_err(|error| Failure::new("SG0082", &error))?;
        let exporter = Self {
            queue,
            exporter,
            scope: InstrumentationScope::builder("sidegate")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
            schedule_delay: settings.schedule_delay,
            export_timeout: settings.export_timeout,
            is_well: true,
        };
        Ok((exporter, tracer))
    }

    /// Exports batch by batch until told to stop, and then what is left.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.queue.due(self.schedule_delay) => {}
            }
            self.export().await;
        }
        let last = async { while self.export().await {} };
        if timeout(LAST_SPANS, last).await.is_err() {
            warn!(
                code = "SG0371",
                "the collector does not take the last spans"
            );
        }
    }

    /// Exports one batch; `false` where there was none, or it was not accepted.
    async fn export(&mut self) -> bool {
        let spans = self.queue.take();
        let count = spans.len();
        if count == 0 {
            return false;
        }
        let batch = spans.into_iter().map(|span| data(span, &self.scope));
        let exported = timeout(self.export_timeout, self.exporter.export(batch.collect())).await;
        let problem = match exported {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(elapsed) => Some(elapsed.to_string()),
        };
        self.queue.exported(count, problem.is_none());
        match &problem {
            // One that is away is told of once.
            Some(error) if self.is_well => {
                warn!(code = "SG0370", error, "the collector does not take spans");
            }
            None if !self.is_well => info!("the collector takes spans again"),
            _ => {}
        }
        self.is_well = problem.is_none();
        self.is_well
    }
}

fn exporter(settings: &TraceSettings) -> Result<SpanExporter, ExporterError> {
    let endpoint = settings.endpoint.to_string();
    let headers: HeaderMap = settings.headers.iter().cloned().collect();
    let mut exporter = match settings.protocol {
        Protocol::Grpc => {
            let mut exporter = SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .with_timeout(settings.timeout)
                .with_metadata(MetadataMap::from_headers(headers));
            if let Some(path) = &settings.ca_file {
                let pem = std::fs::read(path).map_err(|source| ExporterError::Roots {
                    path: path.clone(),
                    source,
                })?;
                let roots = Certificate::from_pem(pem);
                let tls = ClientTlsConfig::new().ca_certificate(roots);
                exporter = exporter.with_tls_config(tls);
            }
            exporter.build()?
        }
        Protocol::HttpProtobuf => {
            let ca_file = settings.ca_file.as_deref();
            let fetch = HttpFetch::new(settings.endpoint.clone(), ca_file, None)?;
            let headers = headers.iter().filter_map(|(name, value)| {
                Some((name.to_string(), value.to_str().ok()?.to_owned()))
            });
            SpanExporter::builder()
                .with_http()
                .with_http_client(Client(Arc::new(fetch), settings.timeout))
                .with_endpoint(endpoint)
                .with_timeout(settings.timeout)
                .with_headers(headers.collect())
                .build()?
        }
    };
    let resource = settings.resource.iter().cloned();
    let resource = resource.map(|(key, value)| KeyValue::new(key, value));
    let resource = Resource::builder_empty().with_attributes(resource).build();
    exporter.set_resource(&resource);
    Ok(exporter)
}

/// A collector over HTTP, with how long it may take.
struct Client(Arc<HttpFetch>, Duration);

impl HttpClient for Client {
    fn send_bytes<'c, 'f>(
        &'c self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        'c: 'f,
        Self: 'f,
    {
        let (fetch, limit) = (Arc::clone(&self.0), self.1);
        Box::pin(async move { timeout(limit, fetch.send(request, ANSWER)).await? })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Client")
    }
}

/// A span as the SDK has it.
fn data(span: Span, scope: &InstrumentationScope) -> SpanData {
    let state = span.state.parse::<TraceState>().unwrap_or_default();
    let attributes = span.attributes.into_iter().map(|(key, value)| match value {
        AttributeValue::Text(text) => KeyValue::new(key, text),
        AttributeValue::Integer(number) => KeyValue::new(key, number),
    });
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(span.trace_id.bytes()),
            SpanId::from_bytes(span.span_id.bytes()),
            TraceFlags::new(span.flags),
            false,
            state,
        ),
        parent_span_id: span
            .parent
            .map_or(SpanId::INVALID, |id| SpanId::from_bytes(id.bytes())),
        parent_span_is_remote: span.has_remote_parent,
        span_kind: match span.kind {
            trace::SpanKind::Server => SpanKind::Server,
            trace::SpanKind::Client => SpanKind::Client,
        },
        name: span.name.into(),
        start_time: span.started,
        end_time: span.ended,
        attributes: attributes.collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: match span.is_error {
            true => Status::error(""),
            false => Status::Unset,
        },
        instrumentation_scope: scope.clone(),
    }
}
