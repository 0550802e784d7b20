mod documentation;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spiffe::{SpiffeId, TrustDomain};

use nix::sys::signal::Signal;

use http::{HeaderName, HeaderValue, Method, Uri};
use sidegate_policy::bundle::Polling;
use sidegate_proxy::PathMatch;

use super::model::{
    BroughtFiles, BundleVerification, DecisionLog, FileOptions, LineFormat, Notify, Route,
    RouteMatch, Sample, TlsMode, UploadOptions,
};
use super::*;

const SMALLEST: &str = r#"
[identity]
trust_domain = "sidegate.local"
state = "state"

[workload_api]
socket = "/run/sidegate/workload.sock"

[[listener]]
name = "main"
listen = "127.0.0.1:0"
upstream = "http://127.0.0.1:9000"
"#;

fn manifest_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn golden_files(extension: &str) -> BTreeSet<PathBuf> {
    let folder = manifest_folder().join("src/config/golden");
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect()
}

/// What is shown for the text of a golden file, under the name that the file has in its folder.
fn rendered(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    match parse(Path::new(path.file_name().unwrap()), &text) {
        Ok(_) => "accepted\n".to_owned(),
        Err(problems) => format!("{}\n{problems}\n", problems.render(false)),
    }
}

#[test]
fn every_refused_file_is_shown_as_its_golden_text_says() {
    let inputs = golden_files("toml");
    assert!(!inputs.is_empty());
    let mut differences = String::new();
    for input in &inputs {
        let found = rendered(input);
        let golden = input.with_extension("stderr");
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if found != expected {
            // Never over the golden text itself: a person looks first, then renames.
            let beside = input.with_extension("stderr.new");
            fs::write(&beside, &found).unwrap();
            differences += &format!(
                "{}\n--- expected\n{expected}\n--- found (also in {})\n{found}\n",
                golden.display(),
                beside.display()
            );
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn every_golden_text_belongs_to_a_file() {
    for golden in golden_files("stderr") {
        assert!(golden.with_extension("toml").exists(), "{golden:?}");
    }
}

#[test]
fn every_code_is_shown_by_a_golden_text_and_has_one_meaning() {
    let texts: String = golden_files("stderr")
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let mut seen = BTreeSet::new();
    for line in include_str!("codes.rs").lines() {
        let Some((_, code)) = line.split_once("&str = \"") else {
            continue;
        };
        let code = code.trim_end_matches("\";");
        let ranges = [
            "SG0010"..="SG0049",
            "SG0061"..="SG0069",
            "SG0083"..="SG0099",
            "SG0189"..="SG0189",
            "SG0230"..="SG0249",
        ];
        assert!(ranges.iter().any(|range| range.contains(&code)), "{code}");
        assert!(seen.insert(code), "{code} is used twice");
        // These two are of the file as a whole and never stand beside a caret.
        if ![codes::UNREADABLE, codes::INVALID].contains(&code) {
            assert!(texts.contains(&format!("[{code}]")), "{code} has no golden");
        }
    }
    assert!(seen.len() > 20, "{seen:?}");
}

#[test]
fn colour_is_added_only_when_asked_for_and_changes_no_word() {
    let problems = parse(Path::new("a.toml"), "[log]\nlevl = 1\n").unwrap_err();
    let plain = problems.render(false);
    let styled = problems.render(true);
    assert!(!plain.contains('\u{1b}'));
    assert!(styled.contains('\u{1b}'));
    let mut stripped = String::new();
    let mut rest = styled.as_str();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        stripped += before;
        rest = after.split_once('m').unwrap().1;
    }
    assert_eq!(stripped + rest, plain);
}

#[test]
fn control_characters_of_the_file_never_reach_the_terminal() {
    let text = "[log]\n\"\\u001b[2J\" = 1\nformat = \"\\u001b]0;x\"\n\"a\\nb\" = 1";
    let problems = parse(Path::new("a.toml"), text).unwrap_err();
    assert!(!problems.render(false).contains('\u{1b}'));
}

#[test]
fn any_text_is_answered_without_a_panic() {
    let whole = fs::read_to_string(manifest_folder().join("../examples/sidegate.toml")).unwrap();
    for (end, _) in whole.char_indices().step_by(5) {
        let (cut, rest) = whole.split_at(end);
        let without: String = rest.chars().skip(1).collect();
        for text in [
            cut.to_owned(),
            format!("{cut}{without}"),
            format!("{cut}[é\"{rest}"),
        ] {
            if let Err(problems) = parse(Path::new("a.toml"), &text) {
                assert!(!problems.list().is_empty(), "{text}");
                assert!(!problems.render(false).is_empty());
            }
        }
    }
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let (config, _) = parse(Path::new("/etc/sidegate/sidegate.toml"), SMALLEST).unwrap();
    let expected = Config {
        identity: Identity {
            trust_domain: Some(TrustDomain::new("sidegate.local").unwrap()),
            source: IdentitySource::Embedded,
            state: PathBuf::from("/etc/sidegate/state"),
            svid_ttl: Duration::from_secs(3600),
            embedded: Embedded::default(),
            entries: Vec::new(),
        },
        workload_api: Some(WorkloadApi {
            socket: PathBuf::from("/run/sidegate/workload.sock"),
        }),
        admin: Admin {
            listen: SocketAddr::from(([127, 0, 0, 1], 15900)),
            clients: None,
        },
        policy: Policy {
            path: None,
            bundles: Vec::new(),
            entrypoint: "envoy/authz/allow".to_owned(),
            timeout: Duration::from_millis(50),
            shadow: None,
        },
        proxy: Proxy {
            workers: None,
            drain_timeout: Duration::from_secs(10),
        },
        components: Vec::new(),
        listeners: vec![Listener {
            name: "main".to_owned(),
            listen: Listen::Address(SocketAddr::from(([127, 0, 0, 1], 0))),
            target: Some(Target::Upstream(
                upstream_server("http://127.0.0.1:9000").unwrap(),
            )),
            routes: Vec::new(),
            spiffe_id: None,
            tls: ListenerTls::On(TlsMode::Mutual),
            protocol: Protocol::Auto,
            sni: Vec::new(),
            outbound: None,
            timeouts: Timeouts {
                header_read: Duration::from_secs(10),
                idle: Duration::from_secs(60),
                stream_idle: Duration::from_secs(300),
                body_read: Duration::from_secs(30),
                request: Duration::from_secs(30),
                connect: Duration::from_secs(2),
            },
            body_limits: BodyLimits {
                max_request_bytes: 8192,
                allow_partial_message: false,
                pack_as_bytes: false,
            },
            limits: Limits::default(),
            has_own_cap: false,
            paths: PathRules::default(),
            forwarding: Forwarding::default(),
            context_extensions: BTreeMap::new(),
        }],
        svid_files: Vec::new(),
        log: Log {
            level: "info".to_owned(),
            format: LogFormat::Text,
            access: AccessLogOutput::Stdout,
            access_format: LineFormat::Json,
        },
        decision_log: None,
    };
    assert_eq!(config, expected);
}

#[test]
fn what_is_written_is_what_is_used() {
    let text = r#"
        identity.trust_domain = "td.example"
        identity.source = "embedded"
        identity.state = "/var/lib/sidegate"
        identity.svid_ttl = "10s"
        identity.embedded.certificate = "ca.pem"
        identity.embedded.key = "/etc/ca.key"
        identity.embedded.bundle = "roots.pem"
        [[identity.entry]]
        spiffe_id = "spiffe://td.example/web"
        selectors = ["unix:uid:1000", "unix:gid:1000"]
        dns_names = ["web.example"]
        audiences = ["shop"]
        federates_with = ["other.example"]
        x509_svid_ttl = "24h"
        jwt_svid_ttl = "10s"
        hint = "internal"
        [workload_api]
        socket = "run/w.sock"
        [admin]
        listen = "[::1]:0"
        clients = ["spiffe://td.example/prometheus"]
        [policy]
        path = "policies"
        entrypoint = "a/b"
        timeout = "5s"
        [policy.shadow]
        path = "next.tar.gz"
        sample = 0.25
        [proxy]
        workers = 256
        drain_timeout = "0s"
        [[component]]
        name = "hello"
        path = "../hello.wasm"
        namespace = "shop"
        memory_limit = "1.5GiB"
        max_concurrency = 1
        request_deadline = "1ms"
        [[listener]]
        name = "main"
        listen = "[::1]:8443"
        component = "hello"
        spiffe_id = "spiffe://td.example/web"
        timeouts = { header_read = "1s", idle = "2s", request = "3s", connect = "4s", stream_idle = "5s", body_read = "6s" }
        request_body = { max_request_bytes = "1MiB", allow_partial_message = true, pack_as_bytes = true }
        context_extensions = { tier = "gold" }
        [[listener.route]]
        name = "api"
        hosts = ["*.api.example"]
        path_prefix = "/v1"
        methods = ["GET"]
        headers = { x-canary = "yes" }
        upstream = "h2c://127.0.0.1:9000"
        request_timeout = "5s"
        context_extensions = { tier = "2" }
        [[svid_file]]
        spiffe_id = "spiffe://td.example/web"
        directory = "web"
        pid_file = "web.pid"
        signal = "SIGHUP"
        command = ["systemctl", "reload", "web"]
        [log]
        level = "off,sidegate=debug"
        format = "json"
        access = "file"
        access_path = "access.log"
        access_format = "text"
        [decision_log]
        output = "http"
        url = "https://logs.example:8443/opa/"
        resource = "events/1"
        token_file = "token"
        ca_file = "roots.pem"
        upload_size_limit = "1KiB"
        min_delay = "1ms"
        max_delay = "1h"
        buffer_size = "64KiB"
        max_decisions_per_second = 1
        credentials = "logged_in_plain_text"
        mask_headers = ["X-Api-Key"]
        labels = { region = "north" }
    "#;
    let (config, _) = parse(Path::new("folder/sidegate.toml"), text).unwrap();
    let id = SpiffeId::new("spiffe://td.example/web").unwrap();
    let expected = Config {
        identity: Identity {
            trust_domain: Some(TrustDomain::new("td.example").unwrap()),
            source: IdentitySource::Embedded,
            state: PathBuf::from("/var/lib/sidegate"),
            svid_ttl: Duration::from_secs(10),
            embedded: Embedded {
                root_ttl: Duration::from_secs(365 * 24 * 3600),
                brought: Some(BroughtFiles {
                    certificate: PathBuf::from("folder/ca.pem"),
                    key: PathBuf::from("/etc/ca.key"),
                    bundle: Some(PathBuf::from("folder/roots.pem")),
                }),
            },
            entries: vec![Entry {
                spiffe_id: id.clone(),
                selectors: vec!["unix:uid:1000".to_owned(), "unix:gid:1000".to_owned()],
                dns_names: vec!["web.example".to_owned()],
                audiences: vec!["shop".to_owned()],
                federates_with: vec!["other.example".to_owned()],
                x509_svid_ttl: Some(Duration::from_secs(24 * 3600)),
                jwt_svid_ttl: Some(Duration::from_secs(10)),
                hint: Some("internal".to_owned()),
            }],
        },
        workload_api: Some(WorkloadApi {
            socket: PathBuf::from("folder/run/w.sock"),
        }),
        admin: Admin {
            listen: "[::1]:0".parse().unwrap(),
            clients: Some(vec![
                SpiffeId::new("spiffe://td.example/prometheus").unwrap(),
            ]),
        },
        policy: Policy {
            path: Some(PathBuf::from("folder/policies")),
            bundles: Vec::new(),
            entrypoint: "a/b".to_owned(),
            timeout: Duration::from_secs(5),
            shadow: Some(PolicyShadow {
                path: PathBuf::from("folder/next.tar.gz"),
                sample: Sample::new(0.25).unwrap(),
            }),
        },
        proxy: Proxy {
            workers: Some(256),
            drain_timeout: Duration::ZERO,
        },
        components: vec![Component {
            name: "hello".to_owned(),
            path: PathBuf::from("folder/../hello.wasm"),
            namespace: "shop".to_owned(),
            memory_limit: 3 << 29,
            max_concurrency: 1,
            request_deadline: Duration::from_millis(1),
        }],
        listeners: vec![Listener {
            name: "main".to_owned(),
            listen: Listen::Address("[::1]:8443".parse().unwrap()),
            target: Some(Target::Component("hello".to_owned())),
            routes: vec![Route {
                name: "api".to_owned(),
                matches: RouteMatch {
                    hosts: vec!["*.api.example".parse().unwrap()],
                    path: Some(PathMatch::Prefix("/v1".to_owned())),
                    methods: vec![Method::GET],
                    headers: vec![(
                        HeaderName::from_static("x-canary"),
                        HeaderValue::from_static("yes"),
                    )],
                },
                target: Target::Upstream(upstream_server("h2c://127.0.0.1:9000").unwrap()),
                request_timeout: Some(Duration::from_secs(5)),
                context_extensions: BTreeMap::from([("tier".to_owned(), "2".to_owned())]),
            }],
            spiffe_id: Some(id.clone()),
            tls: ListenerTls::On(TlsMode::Mutual),
            protocol: Protocol::Auto,
            sni: Vec::new(),
            outbound: None,
            timeouts: Timeouts {
                header_read: Duration::from_secs(1),
                idle: Duration::from_secs(2),
                stream_idle: Duration::from_secs(5),
                body_read: Duration::from_secs(6),
                request: Duration::from_secs(3),
                connect: Duration::from_secs(4),
            },
            body_limits: BodyLimits {
                max_request_bytes: 1 << 20,
                allow_partial_message: true,
                pack_as_bytes: true,
            },
            limits: Limits::default(),
            has_own_cap: false,
            paths: PathRules::default(),
            forwarding: Forwarding::default(),
            context_extensions: BTreeMap::from([("tier".to_owned(), "gold".to_owned())]),
        }],
        svid_files: vec![SvidFile {
            spiffe_id: id,
            directory: PathBuf::from("folder/web"),
            notify: Notify {
                signal: Some((PathBuf::from("folder/web.pid"), Signal::SIGHUP)),
                command: ["systemctl", "reload", "web"].map(str::to_owned).to_vec(),
            },
        }],
        log: Log {
            level: "off,sidegate=debug".to_owned(),
            format: LogFormat::Json,
            access: AccessLogOutput::File(PathBuf::from("folder/access.log")),
            access_format: LineFormat::Text,
        },
        decision_log: Some(DecisionLog {
            output: DecisionLogOutput::Http(Receiver {
                uri: "https://logs.example:8443/opa/events/1".parse().unwrap(),
                token_file: Some(PathBuf::from("folder/token")),
                ca_file: Some(PathBuf::from("folder/roots.pem")),
                upload: UploadOptions {
                    chunk_size: 1024,
                    min_delay: Duration::from_millis(1),
                    max_delay: Duration::from_secs(3600),
                    buffer_size: 64 << 10,
                },
            }),
            max_decisions_per_second: Some(1),
            credentials: Credentials::LoggedInPlainText,
            mask_headers: vec!["x-api-key".parse().unwrap()],
            labels: [("region".to_owned(), "north".to_owned())].into(),
        }),
    };
    assert_eq!(config, expected);
}

#[test]
fn a_root_of_our_own_lives_as_long_as_is_written() {
    let text = format!("{SMALLEST}\n[identity.embedded]\nroot_ttl = \"60s\"\n");
    let (config, _) = parse(Path::new("sidegate.toml"), &text).unwrap();
    assert_eq!(config.identity.embedded.root_ttl, Duration::from_secs(60));
}

/// What `[decision_log]` with these lines says.
fn decision_log(lines: &str) -> DecisionLog {
    let text = format!("{SMALLEST}\n[decision_log]\n{lines}\n");
    let (config, _) = parse(Path::new("folder/sidegate.toml"), &text).unwrap();
    config.decision_log.unwrap()
}

#[test]
fn what_is_left_out_of_a_decision_log_has_the_documented_default() {
    let stdout = DecisionLog {
        output: DecisionLogOutput::Stdout,
        max_decisions_per_second: None,
        credentials: Credentials::Erased,
        mask_headers: Vec::new(),
        labels: Default::default(),
    };
    assert_eq!(decision_log("output = \"stdout\""), stdout);
    let file = decision_log("output = \"file\"\npath = \"log\"").output;
    let expected = FileOptions {
        path: PathBuf::from("folder/log"),
        max_size: 100 << 20,
        keep: 5,
    };
    assert_eq!(file, DecisionLogOutput::File(expected));
    let http = decision_log("output = \"http\"\nurl = \"http://127.0.0.1:8181\"").output;
    let expected = Receiver {
        uri: "http://127.0.0.1:8181/logs".parse().unwrap(),
        token_file: None,
        ca_file: None,
        upload: UploadOptions {
            chunk_size: 32 << 10,
            min_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(10),
            buffer_size: 64 << 20,
        },
    };
    assert_eq!(http, DecisionLogOutput::Http(expected));
}

#[test]
fn bundles_are_as_they_are_written_or_by_default() {
    let text = format!(
        r#"{SMALLEST}
        [policy]
        timeout = "1s"
        [[policy.bundle]]
        name = "authz"
        url = "https://bundles.example:8443/bundles/authz?tenant=a"
        token_file = "token"
        ca_file = "/etc/ca.pem"
        min_poll = "100ms"
        max_poll = "24h"
        long_poll = "10m"
        persist = true
        verification_key = "key.pem"
        verification_algorithm = "ES384"
        verification_key_id = "one"
        verification_scope = "write"
        verification_exclude = ["*.md"]
        [[policy.bundle]]
        name = "rest"
        url = "http://127.0.0.1:8080/rest.tar.gz"
        min_poll = "5m"
        [[policy.bundle]]
        name = "data"
        path = "data"
        verification_key = "key.pem"
        "#
    );
    let (config, _) = parse(Path::new("folder/sidegate.toml"), &text).unwrap();
    let verification = |algorithm: &str| BundleVerification {
        key: PathBuf::from("folder/key.pem"),
        algorithm: algorithm.parse().unwrap(),
        key_id: None,
        scope: String::new(),
        exclude: Vec::new(),
    };
    let expected = [
        PolicyBundle {
            name: "authz".to_owned(),
            origin: BundleOrigin::Server(BundleServer {
                url: Uri::from_static("https://bundles.example:8443/bundles/authz?tenant=a"),
                token_file: Some(PathBuf::from("folder/token")),
                ca_file: Some(PathBuf::from("/etc/ca.pem")),
                polling: Polling {
                    min: Duration::from_millis(100),
                    max: Duration::from_secs(24 * 3600),
                    long_poll: Some(Duration::from_secs(600)),
                },
                persist: true,
            }),
            verification: Some(BundleVerification {
                key_id: Some("one".to_owned()),
                scope: "write".to_owned(),
                exclude: vec!["*.md".to_owned()],
                ..verification("ES384")
            }),
        },
        PolicyBundle {
            name: "rest".to_owned(),
            origin: BundleOrigin::Server(BundleServer {
                url: Uri::from_static("http://127.0.0.1:8080/rest.tar.gz"),
                token_file: None,
                ca_file: None,
                polling: Polling {
                    min: Duration::from_secs(300),
                    max: Duration::from_secs(300),
                    long_poll: None,
                },
                persist: false,
            }),
            verification: None,
        },
        PolicyBundle {
            name: "data".to_owned(),
            origin: BundleOrigin::Path(PathBuf::from("folder/data")),
            verification: Some(verification("RS256")),
        },
    ];
    assert_eq!(config.policy.bundles, expected);
    assert_eq!(config.policy.path, None);
    assert_eq!(config.policy.timeout, Duration::from_secs(1));
}

#[test]
fn a_lifetime_on_the_command_line_is_in_whole_seconds_and_in_range() {
    assert_eq!(svid_ttl("10s"), Ok(Duration::from_secs(10)));
    assert_eq!(svid_ttl("10s 1000ms"), Ok(Duration::from_secs(11)));
    for (text, problem) in [
        ("10900ms", "must be whole seconds"),
        ("1s", "must be at least 10s"),
        ("25h", "must be at most 1day"),
    ] {
        assert_eq!(svid_ttl(text), Err(problem.to_owned()), "{text}");
    }
}

#[test]
fn the_example_loads() {
    let (config, _) = load(&manifest_folder().join("../examples/sidegate.toml")).unwrap();
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.components.len(), 1);
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_of_its_own() {
    let error = load(Path::new("there/is/none.toml")).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }));
    assert_eq!(error.code(), "SG0010");
    assert_eq!(
        error.to_string(),
        "cannot read the configuration file there/is/none.toml"
    );
}

#[test]
fn later_refusals_point_into_the_same_file() {
    let text = format!(
        "{SMALLEST}\n[[identity.entry]]\nspiffe_id = \"spiffe://sidegate.local/a\"\n\
         selectors = [\"unix:uid:1\", \"linux:uid:1\"]\n"
    );
    let (_, source) = parse(Path::new("sidegate.toml"), &text).unwrap();
    let shown = |key: &Key| {
        let span = source.diagnostic(key, "SG0100", "refused").span;
        span.map(|span| &text[span])
    };
    let entry = Key::entry(0);
    assert_eq!(
        shown(&entry.child("spiffe_id")),
        Some("\"spiffe://sidegate.local/a\"")
    );
    assert_eq!(
        shown(&entry.child("selectors").item(1)),
        Some("\"linux:uid:1\"")
    );
    assert_eq!(shown(&entry.child("hint")), Some("[[identity.entry]]"));
    assert_eq!(shown(&Key::of("policy").child("path")), None);
    let problem = source
        .diagnostic(
            &entry.child("selectors").item(1),
            "SG0100",
            "unknown selector type",
        )
        .label("`linux` is not known")
        .help("known: unix, component");
    assert_eq!(
        source.diagnostics(vec![problem]).render(false),
        "\
error[SG0100]: unknown selector type
  --> sidegate.toml:16:28
   |
16 | selectors = [\"unix:uid:1\", \"linux:uid:1\"]
   |                            ^^^^^^^^^^^^^ `linux` is not known
   |
   = help: known: unix, component
"
    );
}

#[test]
fn a_candidate_needs_no_policy_beside_it() {
    for (sample, share) in [("", 1.0), ("sample = 0", 0.0), ("sample = 1", 1.0)] {
        let text = format!("{SMALLEST}[policy.shadow]\npath = \"next\"\n{sample}\n");
        let policy = parse(Path::new("sidegate.toml"), &text).unwrap().0.policy;
        assert_eq!(policy.path, None);
        let expected = PolicyShadow {
            path: PathBuf::from("next"),
            sample: Sample::new(share).unwrap(),
        };
        assert_eq!(policy.shadow, Some(expected));
    }
}
