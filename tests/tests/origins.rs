//! Six servers that others wrote, behind us: whatever a client sends, each sees the requests that we
//! say we forwarded, once each and as they were decided.

mod heads;
mod http1;
mod http2;
mod servers;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::Value;
use sidegate_tests::{Sidegate, until};
use tempfile::TempDir;

use crate::support::{Client, Configuration, folder, write};
use servers::Origin;

/// What is never a request of its own.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// What is hostile or odd, what it is, and what must become of it.
#[derive(Debug, Clone)]
struct Case<S> {
    what: &'static str,
    sent: S,
    fate: Fate,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// No server sees it.
    Refused,
    /// It is forwarded with this body. A server may refuse it.
    Forwarded(&'static str),
}

use Fate::{Forwarded, Refused};

/// A server with a `sidegate` before it, whose one worker has one pool of connections.
struct Front {
    sidegate: Sidegate,
    client: Client,
    origin: Origin,
    wrong: Vec<String>,
    _folder: TempDir,
}

/// What a server saw of each case: method, target, host and body of each request.
type Seen = BTreeMap<usize, Vec<[String; 4]>>;

impl Front {
    fn start(origin: Origin) -> Self {
        let folder = folder();
        let allows = "package envoy.authz\nallow := true\n";
        write(folder.path(), "policy/policy.rego", allows);
        // What is only half a request is not waited for.
        let impatient = "timeouts = { header_read = \"1s\", idle = \"2s\", body_read = \"1s\" }";
        let (sidegate, client) = Configuration::before(&origin.url, impatient)
            .rest("[proxy]\nworkers = 1\n")
            .start(folder.path());
        Self {
            sidegate,
            client,
            origin,
            wrong: Vec::new(),
            _folder: folder,
        }
    }

    /// Notes what is wrong, if it is.
    fn check(&mut self, is_right: bool, what: &str, found: &dyn Debug) {
        if !is_right {
            let name = self.origin.name;
            self.wrong.push(format!("{name}: {what}: {found:?}"));
        }
    }

    /// Somebody else's request goes where it should, and its answer comes back.
    async fn serves_others(&mut self, index: usize, what: &str) {
        let target = format!("/{index}/other");
        let answer = self.client.get(&target).await;
        let is_right = answer.status == 200 && answer.body == format!("GET {target}");
        self.check(is_right, &format!("somebody else after {what}"), &answer);
    }

    /// Compares what was seen with what we say, once everything is over. Returns what was seen, and
    /// all that is wrong.
    fn compare<S>(mut self, cases: &[Case<S>]) -> (Seen, Vec<String>) {
        self.sidegate.process.signal(Signal::SIGTERM);
        until("its end", || {
            (!self.sidegate.process.is_running()).then_some(())
        });
        let output = self.sidegate.process.stdout();
        let mut said: HashMap<String, Value> = output
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter_map(|line| Some((line["request_id"].as_str()?.to_owned(), line)))
            .collect();
        // What was answered by the server was seen by it.
        for line in said.values().filter(|line| line["status"] == 200) {
            until(&format!("it to be seen: {line}"), || {
                let seen = self.origin.seen();
                seen.iter()
                    .any(|request| request["id"] == line["request_id"])
                    .then_some(())
            });
        }
        let mut seen = Seen::new();
        for request in self.origin.seen() {
            let text = |key: &str| request[key].as_str().unwrap_or_default().to_owned();
            let Some(line) = said.remove(&text("id")) else {
                self.check(false, "nobody sent this, or once only", &request);
                continue;
            };
            let [method, target, host, body] = ["method", "target", "host", "body"].map(text);
            let path = target.split('?').next().unwrap().to_owned();
            let is_as_decided = line["verdict"] == "allow"
                && line["method"] == *method
                && line["path"] == *path
                && line["authority"] == *host;
            self.check(is_as_decided, &request.to_string(), &line);
            // Go knows which trailers were announced, too.
            let trailers = request["trailers"].to_string();
            let names_nobody = !trailers.contains("spiffe://");
            self.check(names_nobody, "a trailer says who it is", &request);
            let index = path.split('/').nth(1).and_then(|part| part.parse().ok());
            let Some(index) = index else {
                self.check(false, "this is none of ours", &request);
                continue;
            };
            if !path.ends_with("/marker") && !path.ends_with("/other") {
                let all: &mut Vec<_> = seen.entry(index).or_default();
                all.push([method, target, host, body]);
            }
        }
        for (index, case) in cases.iter().enumerate() {
            let requests = seen.get(&index).map_or(&[][..], Vec::as_slice);
            let bodies: Vec<&str> = requests.iter().map(|request| &*request[3]).collect();
            let is_right = match case.fate {
                Refused => bodies.is_empty(),
                Forwarded(body) => bodies == [body] || bodies.is_empty(),
            };
            self.check(is_right, case.what, &requests);
        }
        (seen, self.wrong)
    }
}

/// What more than one server saw is the same; and each case that we forward, one at least takes.
fn all_agree<S>(cases: &[Case<S>], all: &[(&str, Seen)], wrong: &mut Vec<String>) {
    for (index, case) in cases.iter().enumerate() {
        let mut those_that_took_it = all
            .iter()
            .filter_map(|(name, seen)| Some((*name, seen.get(&index)?)));
        let Some((first, requests)) = those_that_took_it.next() else {
            if case.fate != Refused && !all.is_empty() {
                wrong.push(format!("nobody takes {}", case.what));
            }
            continue;
        };
        for (name, others) in those_that_took_it {
            if requests != others {
                let what = case.what;
                wrong.push(format!("{what}: {first} {requests:?}, {name} {others:?}"));
            }
        }
    }
}

/// Attacks each of them at the same time, and panics with all that is wrong.
async fn attack_all<S, F>(
    origins: Vec<Origin>,
    cases: Vec<Case<S>>,
    attack: impl Fn(Front, Vec<Case<S>>) -> F,
) where
    S: Clone,
    F: Future<Output = (Seen, Vec<String>)> + Send + 'static,
{
    let attacks = origins.into_iter().map(|origin| {
        let name = origin.name;
        let front = tokio::task::block_in_place(|| Front::start(origin));
        (name, tokio::spawn(attack(front, cases.clone())))
    });
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    for (name, attack) in attacks.collect::<Vec<_>>() {
        let (seen, of_this) = attack.await.unwrap();
        all.push((name, seen));
        wrong.extend(of_this);
    }
    all_agree(&cases, &all, &mut wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn peer(file: &str) -> PathBuf {
    sidegate_tests::root().join("tests/peers").join(file)
}
