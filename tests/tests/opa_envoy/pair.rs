//! The same request through Envoy with OPA's plugin and through Sidegate.

use std::convert::Infallible;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use sidegate_tests::{OpaEnvoyPlugin, Sidegate, Tool, skip, tool, until};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::sidecar::{self, MAX_BODY_BYTES};
use crate::envoy::Envoy;
use crate::support::{
    Answer, Body, Client, Upstream, address, body, folder, own_entry, patiently, read, write,
};

const CONFIGURATION: &str = r#"
[identity]
trust_domain = "sidegate.local"
state = "state"

[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/server"
selectors = ["listener:name:main"]
dns_names = ["localhost"]

[[svid_file]]
spiffe_id = "spiffe://sidegate.local/server"
directory = "server"

[[svid_file]]
spiffe_id = "spiffe://sidegate.local/demo"
directory = "demo"

[workload_api]
socket = "workload.sock"

[admin]
listen = "127.0.0.1:0"

[policy]
path = "policy"
entrypoint = "ENTRYPOINT"
timeout = "5s"

[[listener]]
name = "main"
listen = "127.0.0.1:0"
upstream = "UPSTREAM"
"#;

const DECISION_LOG: &str = r#"
[decision_log]
output = "file"
path = "decisions.log"
"#;

/// Both, with the same policy, the same server identity and the same client, each in front of a
/// server of its own.
#[derive(Debug)]
pub(crate) struct Pair {
    runtime: Runtime,
    pub(crate) envoy: Side,
    pub(crate) sidegate: Side,
    plugin: OpaEnvoyPlugin,
    _proxies: (Sidegate, Envoy),
    folder: TempDir,
}

/// One of the two.
#[derive(Debug)]
pub(crate) struct Side {
    client: Client,
    upstream: Upstream,
}

/// A request to send, but for the name of the host.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    method: Method,
    target: String,
    host: &'static str,
    headers: HeaderMap,
    body: Bytes,
    streamed: bool,
}

/// The protocol to send it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) answer: Answer,
    /// The head at the upstream, if it got there.
    pub(crate) forwarded: Option<http::request::Parts>,
}

impl Pair {
    /// Starts both with a policy; `None` where this machine lacks a peer, which is then said.
    pub(crate) fn start(test: &str, rego: &str) -> Option<Self> {
        Self::start_at(test, rego, "envoy/authz/allow")
    }

    /// The same, where another rule decides.
    pub(crate) fn start_at(test: &str, rego: &str, entrypoint: &str) -> Option<Self> {
        let [plugin, envoy] = [Tool::OpaEnvoyPlugin, Tool::Envoy].map(|peer| {
            let found = tool(peer);
            if found.is_none() {
                skip(test, peer);
            }
            found
        });
        let (plugin, envoy) = (plugin?, envoy?);
        let folder = folder();
        let policy = write(folder.path(), "policy/policy.rego", rego);
        let runtime = Runtime::new().expect("a runtime");
        let upstreams = [(), ()].map(|()| runtime.block_on(Upstream::start()));

        let sidegate = start_sidegate(folder.path(), &upstreams[0].url, entrypoint);
        let plugin = OpaEnvoyPlugin::start(&plugin, &policy, entrypoint);
        let svid = folder.path().join("server");
        let bootstrap = sidecar::bootstrap(&svid, &plugin, &upstreams[1].url);
        let envoy = Envoy::start(&envoy, &bootstrap);

        let demo = folder.path().join("demo");
        let client = Client::new(
            address(&sidegate),
            &demo.join("bundle.pem"),
            &demo.join("svid.pem"),
            &demo.join("key.pem"),
        );
        let [sidegates, envoys] = upstreams;
        Some(Self {
            runtime,
            envoy: Side {
                client: client.clone().at(envoy.application()),
                upstream: envoys,
            },
            sidegate: Side {
                client,
                upstream: sidegates,
            },
            plugin,
            _proxies: (sidegate, envoy),
            folder,
        })
    }

    /// Asks both the same: what Envoy and OPA make of it, then what Sidegate does.
    pub(crate) fn ask(&self, ask: &Ask, protocol: Protocol) -> [Outcome; 2] {
        [&self.envoy, &self.sidegate].map(|side| self.runtime.block_on(side.ask(ask, protocol)))
    }

    /// The event about the last request with this target, in the plugin's decision log and in
    /// Sidegate's.
    pub(crate) fn events(&self, target: &str) -> [Value; 2] {
        let ours = self.folder.path().join("decisions.log");
        until(&format!("both events of {target}"), || {
            let ours = crate::decision_log::events(&ours);
            let [theirs, ours] = [self.plugin.events(), ours].map(|events| {
                let http = |event: &Value| event["input"]["attributes"]["request"]["http"].clone();
                let mut events = events.into_iter().rev();
                events.find(|event| http(event)["path"] == target)
            });
            Some([theirs?, ours?])
        })
    }
}

impl Side {
    async fn ask(&self, ask: &Ask, protocol: Protocol) -> Outcome {
        let before = self.upstream.heads().len();
        let answer = send(&self.client, ask, protocol).await;
        let mut heads = self.upstream.heads().split_off(before);
        assert!(heads.len() <= 1, "it is forwarded once: {heads:?}");
        Outcome {
            answer,
            forwarded: heads.pop(),
        }
    }
}

impl Ask {
    pub(crate) fn new(method: Method, target: &str) -> Self {
        Self {
            method,
            target: target.to_owned(),
            host: "localhost",
            headers: HeaderMap::new(),
            body: Bytes::new(),
            streamed: false,
        }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new(Method::GET, target)
    }

    /// With a further header, whose value is any bytes that HTTP can carry.
    pub(crate) fn header(mut self, name: &'static str, value: &[u8]) -> Self {
        let value = HeaderValue::from_bytes(value).expect("a header's value");
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    /// For another authority.
    pub(crate) fn host(self, host: &'static str) -> Self {
        Self { host, ..self }
    }

    /// With its body in frames, of which the head does not tell the length.
    pub(crate) fn streamed(self) -> Self {
        Self {
            streamed: true,
            ..self
        }
    }

    /// With a body of a type.
    pub(crate) fn body(self, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            ..self.header("content-type", content_type.as_bytes())
        }
    }

    /// With a body of no type.
    pub(crate) fn untyped_body(self, body: &'static str) -> Self {
        Self {
            body: body.into(),
            ..self
        }
    }
}

impl Ask {
    fn frames(&self) -> Body {
        if !self.streamed {
            return body(self.body.clone());
        }
        let frame = Ok::<_, Infallible>(Frame::data(self.body.clone()));
        StreamBody::new(tokio_stream::iter([frame])).boxed()
    }
}

impl Outcome {
    /// All of it as a document. Where the policy answers with its input, that is taken out of the
    /// body.
    pub(crate) fn document(&self, mirrored: bool) -> Value {
        let Answer {
            status,
            headers,
            body,
        } = &self.answer;
        let input = serde_json::from_str::<Value>(body)
            .ok()
            .filter(|_| mirrored);
        let forwarded = self.forwarded.as_ref().map(|head| {
            json!({
                "method": head.method.as_str(),
                "target": head.uri.to_string(),
                "headers": all(&head.headers),
            })
        });
        let body = if input.is_some() { "the input" } else { body };
        json!({
            "answer": { "status": status.as_u16(), "headers": all(headers), "body": body },
            "input": input,
            "forwarded": forwarded,
        })
    }
}

/// The values of all headers by name, in their order.
fn all(headers: &HeaderMap) -> Value {
    let values = |name| -> Value {
        let values = headers.get_all(name).iter();
        values
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect()
    };
    headers
        .keys()
        .map(|name| (name.to_string(), values(name)))
        .collect()
}

async fn send(client: &Client, ask: &Ask, protocol: Protocol) -> Answer {
    let target = match protocol {
        Protocol::Http1 => ask.target.clone(),
        Protocol::Http2 => format!("https://{}{}", ask.host, ask.target),
    };
    let mut request = Request::builder()
        .method(ask.method.clone())
        .uri(target)
        .body(ask.frames())
        .expect("a request");
    *request.headers_mut() = ask.headers.clone();
    let answered = match protocol {
        Protocol::Http1 => {
            let host = HeaderValue::from_static(ask.host);
            request.headers_mut().insert("host", host);
            patiently(client.http1().await.send_request(request)).await
        }
        Protocol::Http2 => patiently(client.http2().await.send_request(request)).await,
    };
    read(answered.expect("a response")).await
}

fn start_sidegate(folder: &Path, upstream: &str, entrypoint: &str) -> Sidegate {
    let configuration = CONFIGURATION
        .replace("UPSTREAM", upstream)
        .replace("ENTRYPOINT", entrypoint);
    let bodies = format!(
        "[listener.request_body]\nmax_request_bytes = \"{MAX_BODY_BYTES}B\"\n\
         allow_partial_message = true\n"
    );
    let text = configuration + &bodies + DECISION_LOG + &own_entry("/demo");
    let config = write(folder, "sidegate.toml", text);
    let sidegate = Sidegate::run(&config);
    for identity in ["server", "demo"] {
        let svid = folder.join(identity).join("svid.pem");
        assert!(fs::exists(&svid).is_ok_and(|exists| exists), "{identity}");
    }
    sidegate
}
