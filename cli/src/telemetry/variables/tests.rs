use std::collections::BTreeMap;

use super::*;

fn read(all: &[(&str, &str)]) -> Result<Option<TraceSettings>> {
    let all: BTreeMap<_, _> = all.iter().copied().collect();
    let lookup = |name: &str| Ok(all.get(name).map(|value| (*value).to_owned()));
    TraceSettings::read(&Variables(lookup))
}

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");

#[test]
fn nothing_is_exported_without_an_endpoint_or_where_that_is_said() {
    for all in [
        &[][..],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
        // Then nothing else counts.
        &[("OTEL_TRACES_SAMPLER", "what")],
        &[
            ENDPOINT,
            ("OTEL_SDK_DISABLED", "True"),
            ("OTEL_TRACES_SAMPLER", "what"),
        ],
        &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")],
    ] {
        assert_eq!(read(all).unwrap(), None, "{all:?}");
    }
    assert!(
        read(&[ENDPOINT, ("OTEL_SDK_DISABLED", "false")])
            .unwrap()
            .is_some()
    );
}

#[test]
fn defaults_are_those_of_the_specification() {
    let settings = read(&[ENDPOINT]).unwrap().unwrap();
    let text = |text: &str| text.to_owned();
    let expected = TraceSettings {
        endpoint: "http://127.0.0.1:4317".parse().unwrap(),
        protocol: Protocol::Grpc,
        headers: Vec::new(),
        timeout: Duration::from_secs(10),
        ca_file: None,
        resource: vec![
            (text("service.name"), text("sidegate")),
            (text("service.version"), text(env!("CARGO_PKG_VERSION"))),
        ],
        sampler: Sampler::ParentBased(RootSampler::AlwaysOn),
        schedule_delay: Duration::from_secs(5),
        export_timeout: Duration::from_secs(30),
        max_queue_size: NonZeroUsize::new(2048).unwrap(),
        max_export_batch_size: NonZeroUsize::new(512).unwrap(),
    };
    assert_eq!(settings, expected);
}

#[test]
fn what_is_said_of_traces_counts_before_what_is_said_of_all_signals() {
    let settings = read(&[
        ENDPOINT,
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "https://collector:4318/own",
        ),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "Api-Key = a%20b, x=1,"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/roots.pem"),
        ("OTEL_SERVICE_NAME", "edge"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,zone=a%2Cb"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
    ]);
    let settings = settings.unwrap().unwrap();
    assert_eq!(settings.endpoint, "https://collector:4318/own");
    assert_eq!(settings.protocol, Protocol::HttpProtobuf);
    assert_eq!(settings.timeout, Duration::from_millis(250));
    let headers = settings.headers.iter();
    let headers = headers.map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
    assert_eq!(
        headers.collect::<Vec<_>>(),
        [("api-key", "a b"), ("x", "1")]
    );
    assert_eq!(settings.ca_file, Some(PathBuf::from("/roots.pem")));
    let resource = |key| {
        let found = settings.resource.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value.as_str())
    };
    assert_eq!(resource("service.name"), Some("edge"));
    assert_eq!(resource("zone"), Some("a,b"));
    let sampler = Sampler::ParentBased(RootSampler::TraceIdRatio(0.25));
    assert_eq!(settings.sampler, sampler);
}

#[test]
fn traces_have_a_path_of_their_own_below_the_endpoint_of_all_signals() {
    let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    for (endpoint, expected) in [
        ("http://a:4318", "http://a:4318/v1/traces"),
        ("http://a:4318/", "http://a:4318/v1/traces"),
        ("http://a/otlp", "http://a/otlp/v1/traces"),
    ] {
        let settings = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), http]);
        assert_eq!(settings.unwrap().unwrap().endpoint, expected);
    }
}

#[test]
fn what_is_not_understood_is_told_by_its_name_and_never_by_its_value() {
    for (name, value, code) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4317", "SG0080"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "unix:///secret", "SG0080"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://secret@a", "SG0080"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://", "SG0080"),
        ("OTEL_SDK_DISABLED", "secret", "SG0080"),
        ("OTEL_TRACES_EXPORTER", "secret", "SG0081"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "SG0081"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret", "SG0080"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "=secret", "SG0080"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a b=secret", "SG0080"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=secret%0a", "SG0080"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "SG0080"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "SG0080"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "secret", "SG0081"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "secret", "SG0081"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "secret", "SG0081"),
        ("OTEL_RESOURCE_ATTRIBUTES", "secret", "SG0080"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=%ff", "SG0080"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", "SG0081"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "SG0080"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "SG0080"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2049", "SG0080"),
        ("OTEL_BSP_SCHEDULE_DELAY", "secret", "SG0080"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "0", "SG0080"),
    ] {
        let error = read(&[ENDPOINT, (name, value)]).unwrap_err();
        assert_eq!(error.variable, name);
        assert_eq!(error.code, code, "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let ratio = read(&[
        ENDPOINT,
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
    ]);
    assert_eq!(ratio.unwrap_err().variable, "OTEL_TRACES_SAMPLER_ARG");
    let without_roots = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://a")]);
    assert_eq!(
        without_roots.unwrap_err().variable,
        "OTEL_EXPORTER_OTLP_CERTIFICATE"
    );
}
