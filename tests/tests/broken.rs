//! Upstreams that fail: each failure has its own answer, or a body that is seen to be broken, its name
//! in the access log, and no effect on what comes next.

mod extra;
mod http1;
mod http2;

pub(crate) use http1::target;

use http::Request;
use http_body_util::BodyExt;
use serde_json::Value;
use sidegate_tests::{Sidegate, until};
use tempfile::TempDir;

use crate::support::{Client, Configuration, body, folder, patiently, write};

/// `sidegate run` with one worker, and so with one pool, in front of a server.
struct Front {
    sidegate: Sidegate,
    client: Client,
    _folder: TempDir,
}

/// What came of a request.
#[derive(Debug)]
struct Outcome {
    /// 0 where it broke off before its head.
    status: u16,
    length: Option<String>,
    /// `None` where it broke off.
    body: Option<String>,
}

/// What a path brings: the status, and what the access log calls it.
type Failure = (&'static str, u16, &'static str, &'static str);

impl Front {
    /// `lines` belong to the listener.
    fn start(url: &str, lines: &str) -> Self {
        let folder = folder();
        let allows = "package envoy.authz\nallow := true\n";
        write(folder.path(), "policy/policy.rego", allows);
        let (sidegate, client) = Configuration::before(url, lines)
            .rest("[proxy]\nworkers = 1\n")
            .start(folder.path());
        Self {
            sidegate,
            client,
            _folder: folder,
        }
    }

    /// A request on a connection of its own.
    async fn ask(&self, method: &str, path: &str, is_http2: bool) -> Outcome {
        let request = Request::builder().method(method);
        let response = if is_http2 {
            let request = request.uri(format!("https://localhost{path}"));
            let mut connection = self.client.http2().await;
            patiently(connection.send_request(request.body(body("")).unwrap())).await
        } else {
            let request = request.uri(path).header("host", "localhost");
            let mut connection = self.client.http1().await;
            patiently(connection.send_request(request.body(body("")).unwrap())).await
        };
        let Ok(response) = response else {
            return Outcome {
                status: 0,
                length: None,
                body: None,
            };
        };
        let (head, body) = response.into_parts();
        let length = head.headers.get("content-length");
        let whole = patiently(body.collect()).await;
        Outcome {
            status: head.status.as_u16(),
            length: length.map(|length| length.to_str().unwrap().to_owned()),
            body: whole.ok().map(|body| {
                let bytes = body.to_bytes();
                String::from_utf8_lossy(&bytes).into_owned()
            }),
        }
    }

    /// The last line of the access log for a path, over a protocol.
    fn line(&self, path: &str, is_http2: bool) -> Value {
        let protocol = if is_http2 { "HTTP/2" } else { "HTTP/1.1" };
        until(&format!("the line of {path} over {protocol}"), || {
            let log = self.sidegate.process.stdout();
            log.lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .rfind(|line| line["path"] == path && line["protocol"] == protocol)
        })
    }

    /// Each fails as it should over both protocols, and the next request is served.
    async fn fails_as(&self, failures: &[Failure]) {
        for (path, status, error, code) in failures {
            for is_http2 in [false, true] {
                let outcome = self.ask("GET", path, is_http2).await;
                let line = self.line(path, is_http2);
                let what = format!("{path} {outcome:?} {line}");
                assert_eq!(line["error"], *error, "{what}");
                assert_eq!(line["code"], *code, "{what}");
                assert_eq!(line["status"], *status, "{what}");
                if *status == 200 {
                    // What broke off at once may take its head with it.
                    assert!([0, 200].contains(&outcome.status), "{what}");
                    assert_eq!(outcome.body, None, "{what}");
                } else {
                    assert_eq!(outcome.status, *status, "{what}");
                    assert_eq!(outcome.body.as_deref(), Some(""), "{what}");
                }
                self.serves().await;
            }
        }
    }

    /// A request that is in order has its own response.
    async fn serves(&self) {
        for is_http2 in [false, true] {
            let outcome = self.ask("GET", "/ok", is_http2).await;
            assert_eq!(outcome.status, 200, "{outcome:?}");
            assert_eq!(outcome.body.as_deref(), Some("ok"), "{outcome:?}");
        }
    }
}
