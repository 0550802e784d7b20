//! Many changes while requests come.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;

use super::{change, configuration, listener, named};
use crate::rotation::client::{Sender, Unanswered};
use crate::support::{Client, folder, patiently};

const RELOADS: usize = 60;

/// A load on its own connections.
struct Load {
    client: Client,
    version: Version,
    /// Whether each request comes on a connection of its own.
    is_new: bool,
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

impl Load {
    async fn connect(&self) -> Sender {
        let protocol: &[u8] = match self.version {
            Version::HTTP_2 => b"h2",
            _ => b"http/1.1",
        };
        let stream = TokioIo::new(self.client.connect_for(protocol).await);
        Sender::over(stream, self.version).await.unwrap()
    }

    /// Who has answered; panics where anything else happens.
    async fn run(self) -> BTreeSet<String> {
        let mut by = BTreeSet::new();
        let mut sender = self.connect().await;
        while !self.is_over.load(Ordering::SeqCst) {
            if self.is_new || !sender.is_open().await {
                sender = self.connect().await;
            }
            let request = match self.version {
                Version::HTTP_2 => Request::get("https://localhost/"),
                _ => Request::get("/").header("host", "localhost"),
            };
            let request = request.body(Empty::<Bytes>::new()).unwrap();
            let response = match patiently(sender.send(request)).await {
                Ok(response) => response,
                // It ended in good order before the request was sent.
                Err(Unanswered::NeverSent) => {
                    sender = self.connect().await;
                    continue;
                }
                Err(Unanswered::Failed(error)) => panic!("{:?}: {error}", self.version),
            };
            assert_eq!(response.status(), 200);
            let body = patiently(response.into_body().collect()).await;
            let body = body.expect("a whole body").to_bytes();
            by.insert(String::from_utf8(body.to_vec()).unwrap());
            self.answered.fetch_add(1, Ordering::SeqCst);
        }
        by
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_reloads_that_turn_routes_round_fail_no_request_over_http1_and_http2() {
    let folder = folder();
    let addresses = [named("first").await, named("second").await];
    let to = |index: usize| {
        let lines = format!("upstream = \"http://{}\"", addresses[index]);
        configuration(&[listener("main", 0, &lines)]).rest("[proxy]\nworkers = 2\n")
    };
    let (sidegate, client) = to(0).start(folder.path());
    let is_over = Arc::new(AtomicBool::new(false));
    let mut loads = Vec::new();
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for is_new in [false, true] {
            let answered = Arc::<AtomicUsize>::default();
            let load = Load {
                client: client.clone(),
                version,
                is_new,
                is_over: Arc::clone(&is_over),
                answered: Arc::clone(&answered),
            };
            loads.push((tokio::spawn(load.run()), answered));
        }
    }
    let names = ["first", "second"];
    for index in 1..=RELOADS {
        // Each kind of load gets some answers between two changes.
        for (load, answered) in &loads {
            let before = answered.load(Ordering::SeqCst);
            patiently(async {
                while answered.load(Ordering::SeqCst) < before + 3 && !load.is_finished() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        tokio::task::block_in_place(|| change(&sidegate, folder.path(), &to(index % 2)));
        // Whoever connects from now on gets the other.
        assert_eq!(client.get("/").await.body, names[index % 2]);
    }
    is_over.store(true, Ordering::SeqCst);
    for (load, _) in loads {
        let by = load.await.expect("no request fails");
        assert_eq!(by.iter().collect::<Vec<_>>(), names);
    }
    assert_eq!(sidegate.stop().status.code(), Some(0));
}
