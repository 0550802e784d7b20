//! `sidegate up`: everything on this machine, with nothing else needed.
//!
//! There is no magic in it: it fills in the same [`Config`] that `sidegate run` reads from a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sidegate_identity::SpiffeId;
use sidegate_identity::durable;

use super::{Demo, Ready, block_on};
use crate::arguments::{OutputFormat, UpArguments};
use crate::config::{
    AccessLogOutput, Admin, BodyLimits, Component, Config, Embedded, Entry, Forwarding, Identity,
    IdentitySource, Limits, Listen, Listener, ListenerTls, Log, Notify, PathRules, Policy,
    Protocol, Proxy, SvidFile, Target, Timeouts, TlsMode, WorkloadApi,
};
use crate::failure::Failure;
use crate::instance::{Instance, StateDirectory, StopSignals, Supervisor, component_digest};
use crate::{output, telemetry};

const LISTENER: &str = "main";
const EXAMPLE: &str = "hello";
const EXAMPLE_COMPONENT: &[u8] = include_bytes!("../../../guests/components/hello.wasm");

/// Runs until it is told to stop.
pub(super) fn execute(arguments: UpArguments) -> Result<(), Failure> {
    let level = telemetry::start(&Log {
        level: "info".to_owned(),
        ..Log::default()
    })?;
    let format = arguments.output;
    let state = StateDirectory::open(&arguments.state, Some(&arguments.trust_domain))?;
    let config = configure(arguments, &state)?;
    block_on(async {
        let signals = StopSignals::listen()?;
        let instance = Instance::start(&config, None, state, level, Supervisor::default()).await?;
        let demo = Demo::new(&config, &instance);
        match format {
            OutputFormat::Json => output::print_json(&Ready::new(&instance, Some(demo)))?,
            OutputFormat::Text => output::print(&welcome(&config, &instance, &demo))?,
        }
        instance.run(signals).await
    })
}

/// The configuration that the arguments stand for.
fn configure(arguments: UpArguments, state: &StateDirectory) -> Result<Config, Failure> {
    let trust_domain = arguments.trust_domain;
    let id = |name: &str| {
        SpiffeId::from_segments(trust_domain.clone(), &[name])
            .map_err(|error| Failure::new("SG0021", &error))
    };
    let demo = Entry {
        spiffe_id: id("demo")?,
        selectors: vec![format!("unix:uid:{}", nix::unistd::geteuid())],
        dns_names: Vec::new(),
        x509_svid_ttl: None,
        jwt_svid_ttl: None,
        hint: None,
        audiences: vec!["demo".to_owned()],
        federates_with: Vec::new(),
    };
    let mut components = Vec::new();
    let (name, selector, target) = match arguments.upstream {
        Some(server) => (
            "upstream".to_owned(),
            format!("listener:name:{LISTENER}"),
            Target::Upstream(server),
        ),
        None => {
            let (name, path) = match arguments.component {
                Some(path) => (component_name(&path), path),
                None => (EXAMPLE.to_owned(), write_example(state)?),
            };
            let selector = format!("component:digest:{}", component_digest(&path)?);
            components.push(Component {
                name: name.clone(),
                path,
                namespace: Component::DEFAULT_NAMESPACE.to_owned(),
                memory_limit: Component::DEFAULT_MEMORY_LIMIT,
                max_concurrency: Component::DEFAULT_MAX_CONCURRENCY,
                request_deadline: Component::DEFAULT_REQUEST_DEADLINE,
            });
            (name.clone(), selector, Target::Component(name))
        }
    };
    let fronted = Entry {
        spiffe_id: id(&name)?,
        selectors: vec![selector],
        // So that tools which check names, such as curl, can verify the server.
        dns_names: vec!["localhost".to_owned()],
        x509_svid_ttl: None,
        jwt_svid_ttl: None,
        hint: None,
        audiences: Vec::new(),
        federates_with: Vec::new(),
    };
    Ok(Config {
        svid_files: vec![SvidFile {
            spiffe_id: demo.spiffe_id.clone(),
            directory: state.path().join("demo"),
            notify: Notify::default(),
        }],
        identity: Identity {
            trust_domain: Some(trust_domain.clone()),
            source: IdentitySource::Embedded,
            state: state.path().to_owned(),
            svid_ttl: arguments.svid_ttl,
            embedded: Embedded::default(),
            entries: vec![demo, fronted],
        },
        workload_api: Some(WorkloadApi {
            socket: state.path().join("workload.sock"),
        }),
        admin: Admin {
            listen: arguments.admin,
            clients: None,
        },
        policy: Policy {
            path: arguments.policy,
            ..Policy::default()
        },
        proxy: Proxy::default(),
        components,
        listeners: vec![Listener {
            name: LISTENER.to_owned(),
            listen: Listen::Address(arguments.listen),
            target: Some(target),
            routes: Vec::new(),
            spiffe_id: None,
            tls: ListenerTls::On(TlsMode::Mutual),
            protocol: Protocol::Auto,
            sni: Vec::new(),
            outbound: None,
            timeouts: Timeouts::default(),
            body_limits: BodyLimits::default(),
            limits: Limits::default(),
            has_own_cap: false,
            paths: PathRules::default(),
            forwarding: Forwarding::default(),
            context_extensions: BTreeMap::new(),
        }],
        log: Log {
            // Standard output is for what `up` itself prints.
            access: AccessLogOutput::Stderr,
            ..Log::default()
        },
        decision_log: None,
    })
}

/// The example stands in the state directory, as any other component would stand in a file.
fn write_example(state: &StateDirectory) -> Result<PathBuf, Failure> {
    let path = state.path().join("hello.wasm");
    durable::replace(&path, EXAMPLE_COMPONENT).map_err(|error| Failure::new("SG0001", &error))?;
    Ok(path)
}

/// A name for a component, from its file's name: what a SPIFFE ID and a metric label can carry.
fn component_name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name: String = stem
        .chars()
        .map(|character| match character.to_ascii_lowercase() {
            plain @ ('a'..='z' | '0'..='9') => plain,
            _ => '-',
        })
        .take(63)
        .collect();
    match name.trim_matches('-') {
        // The demo client's identity is its own.
        "" | "demo" => "component".to_owned(),
        name => name.to_owned(),
    }
}

impl Demo {
    fn new(config: &Config, instance: &Instance) -> Self {
        let directory = instance.state().join("demo");
        let file = |name: &str| directory.join(name).display().to_string();
        let port = instance
            .listeners()
            .first()
            .map_or(0, |listener| listener.address.port());
        let demo = config.svid_files.first();
        Self {
            spiffe_id: demo
                .map(|file| file.spiffe_id.to_string())
                .unwrap_or_default(),
            svid: file("svid.pem"),
            key: file("key.pem"),
            bundle: file("bundle.pem"),
            url_allowed: format!("https://localhost:{port}/hello"),
            url_denied: format!("https://localhost:{port}/admin"),
        }
    }

    fn curl(&self, url: &str) -> String {
        let Self {
            svid, key, bundle, ..
        } = self;
        let [svid, key, bundle] = [svid, key, bundle].map(|path| shell_word(path));
        format!("curl --cacert {bundle} --cert {svid} --key {key} {url}")
    }
}

/// A path as one word of a shell command.
fn shell_word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:@".contains(&byte);
    if text.bytes().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

fn welcome(config: &Config, instance: &Instance, demo: &Demo) -> String {
    let state = instance.state().display();
    // Here there are always identities.
    let trust_domain = config.identity.trust_domain.as_ref();
    let trust_domain = trust_domain.map(ToString::to_string).unwrap_or_default();
    let workload_socket = instance.workload_socket().unwrap_or_default();
    let mut text =
        format!("Sidegate is up. The CA of trust domain {trust_domain} lives in {state}.\n\n");
    for listener in instance.listeners() {
        let fronted = match config.listeners.first().and_then(|it| it.target.as_ref()) {
            Some(Target::Upstream(server)) => server.to_string(),
            Some(Target::Component(name)) => format!("component {name}"),
            None => String::new(),
        };
        text.push_str(&format!(
            "  mTLS      https://{}  fronts {fronted} as {}\n",
            listener.address,
            listener.spiffe_id.as_deref().unwrap_or_default()
        ));
    }
    let policy = match &config.policy.path {
        Some(path) => path.display().to_string(),
        None => "the stock policy: callers of this trust domain, but not /admin".to_owned(),
    };
    text.push_str(&format!(
        "  policy    {policy}\n  \
           you       {} by files in {state}/demo, or by the Workload API\n  \
           identity  {}  Workload API and Envoy SDS\n  \
           admin     {}  /livez /readyz /metrics\n\n\
         Allowed, then denied:\n\n  {}\n  {}\n\n\
         Next:\n\n  \
           sidegate svid fetch x509 --socket {}\n  \
           sidegate up --policy DIR       decide by your own Rego\n  \
           sidegate up app.wasm           front your own component\n  \
           sidegate up --upstream http://127.0.0.1:9000\n\n\
         Ctrl-C stops it.\n",
        demo.spiffe_id,
        workload_socket,
        instance.admin(),
        demo.curl(&demo.url_allowed),
        demo.curl(&demo.url_denied),
        shell_word(&workload_socket),
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_named_after_its_file_and_never_like_the_demo_client() {
        for (path, name) in [
            ("app.wasm", "app"),
            ("/a/b/My App.v2.wasm", "my-app-v2"),
            ("demo.wasm", "component"),
            ("é.wasm", "component"),
        ] {
            assert_eq!(component_name(Path::new(path)), name);
        }
    }

    #[test]
    fn a_path_is_one_word_for_the_shell() {
        assert_eq!(shell_word("/a/b-c.d"), "/a/b-c.d");
        assert_eq!(shell_word("/a b/c"), "'/a b/c'");
        assert_eq!(shell_word("/it's"), r"'/it'\''s'");
    }
}
