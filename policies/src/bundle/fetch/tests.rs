use std::sync::Mutex;

use http_body_util::{Empty, Full};

use super::*;

/// Answers as it was told to, and remembers what it was asked.
#[derive(Default)]
struct Server {
    answers: Mutex<Vec<Response<FetchBody>>>,
    asked: Mutex<Vec<(HeaderMap, Duration)>>,
}

impl Fetch for Server {
    fn fetch(&self, headers: HeaderMap, wait: Duration) -> Fetching<'_> {
        self.asked.lock().unwrap().push((headers, wait));
        let answer = self.answers.lock().unwrap().pop();
        Box::pin(async move { answer.ok_or_else(|| Cause::from("down")) })
    }
}

impl Server {
    /// The value of a header of the last request; empty, it had none.
    fn asked(&self, name: &str) -> String {
        let asked = self.asked.lock().unwrap();
        let (headers, _) = asked.last().unwrap();
        let value = headers.get(name).map(|value| value.to_str().unwrap());
        value.unwrap_or_default().to_owned()
    }

    fn waited(&self) -> Duration {
        self.asked.lock().unwrap().last().unwrap().1
    }
}

fn answer(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Response<FetchBody> {
    let mut answer = Response::builder().status(status);
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    let body = Full::from(body.to_vec()).map_err(|never| match never {});
    answer.body(body.boxed_unsync()).unwrap()
}

fn remote(polling: Polling) -> (Arc<Server>, Remote) {
    let server = Arc::new(Server::default());
    let fetch: Arc<dyn Fetch> = Arc::<Server>::clone(&server);
    (server, Remote::new(fetch, polling))
}

async fn get(
    server: &Server,
    remote: &mut Remote,
    told: Response<FetchBody>,
) -> Result<Option<Fetched>, BundleError> {
    server.answers.lock().unwrap().push(told);
    remote.get(&Limits::default()).await
}

#[tokio::test]
async fn only_an_accepted_bundle_is_asked_for_conditionally() {
    let (server, mut remote) = remote(Polling::default());
    let first = get(
        &server,
        &mut remote,
        answer(200, &[("etag", "\"1\"")], b"one"),
    )
    .await;
    let first = first.unwrap().unwrap();
    assert_eq!(first.compressed, b"one");
    assert_eq!(server.asked("if-none-match"), "");
    assert_eq!(server.asked("prefer"), "modes=snapshot");
    // Nobody accepted it.
    let again = get(
        &server,
        &mut remote,
        answer(200, &[("etag", "\"1\"")], b"one"),
    )
    .await;
    assert_eq!(server.asked("if-none-match"), "");
    remote.accepted(again.unwrap().unwrap().etag);
    let newer = get(&server, &mut remote, answer(304, &[], b"")).await;
    assert!(newer.unwrap().is_none());
    assert_eq!(server.asked("if-none-match"), "\"1\"");
    // A server that names no edition is asked for all of it again.
    remote.accepted(None);
    let refused = get(&server, &mut remote, answer(304, &[], b"")).await;
    assert_eq!(server.asked("if-none-match"), "");
    assert_eq!(refused.err().unwrap().code(), "SG0230");
}

#[tokio::test]
async fn a_server_is_waited_for_once_it_says_that_it_speaks_opas_bundle_api() {
    let waiting = Polling {
        long_poll: Some(Duration::from_secs(30)),
        ..Polling::default()
    };
    let (server, mut remote) = remote(waiting);
    let opa = [("content-type", LONG_POLLING), ("etag", "\"1\"")];
    let plain = [("content-type", "application/gzip"), ("etag", "\"2\"")];
    let first = get(&server, &mut remote, answer(200, &opa, b"")).await;
    assert_eq!(server.asked("prefer"), "modes=snapshot");
    remote.accepted(first.unwrap().unwrap().etag);
    assert_eq!(remote.next_delay(0.5), LEAST_DELAY);
    for _ in 0..2 {
        get(&server, &mut remote, answer(304, &[], b""))
            .await
            .unwrap();
        assert_eq!(server.asked("prefer"), "modes=snapshot;wait=30");
        assert_eq!(server.waited(), Duration::from_secs(30));
        assert_eq!(remote.next_delay(0.5), LEAST_DELAY);
    }
    let second = get(&server, &mut remote, answer(200, &plain, b"")).await;
    remote.accepted(second.unwrap().unwrap().etag);
    assert_eq!(remote.next_delay(0.5), Duration::from_secs(90));
    get(&server, &mut remote, answer(304, &[], b""))
        .await
        .unwrap();
    assert_eq!(server.asked("prefer"), "modes=snapshot");
    assert_eq!(server.waited(), Duration::ZERO);
}

#[test]
fn delays_keep_within_what_is_configured() {
    let polling = Polling::default();
    let seconds = Duration::from_secs;
    assert_eq!(polling.after_success(0.0), seconds(60));
    assert_eq!(polling.after_success(1.0), seconds(120));
    assert_eq!(polling.after_failure(1, 1.0), LEAST_DELAY);
    assert_eq!(polling.after_failure(1, 0.0), LEAST_DELAY);
    assert_eq!(polling.after_failure(5, 1.0), LEAST_DELAY * 16);
    assert_eq!(polling.after_failure(5, 0.0), LEAST_DELAY * 8);
    assert_eq!(polling.after_failure(u32::MAX, 1.0), seconds(120));
}

#[tokio::test]
async fn whatever_is_no_bundle_is_an_error() {
    let (server, mut remote) = remote(Polling::default());
    let down = remote.get(&Limits::default()).await.err().unwrap();
    assert_eq!(down.code(), "SG0230");
    for status in [204, 301, 304, 401, 404, 500] {
        let error = get(&server, &mut remote, answer(status, &[], b"x")).await;
        let error = error.err().unwrap();
        assert_eq!(error.code(), "SG0230");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
    }
    let broken = Empty::new().map_err(|never| match never {});
    let broken = broken.with_trailers(async { Some(Err(Cause::from("broken"))) });
    let error = get(&server, &mut remote, Response::new(broken.boxed_unsync())).await;
    assert_eq!(error.err().unwrap().code(), "SG0230");
}

#[tokio::test]
async fn too_much_is_refused_before_all_of_it_is_there() {
    let limits = Limits {
        compressed: 10,
        ..Limits::default()
    };
    let (server, mut remote) = remote(Polling::default());
    let announced = [("content-length", "1000000000")];
    let unannounced = answer(200, &[], b"01234567890");
    for told in [answer(200, &announced, b""), unannounced] {
        server.answers.lock().unwrap().push(told);
        let error = remote.get(&limits).await.err().unwrap();
        assert_eq!(error.to_string(), "the bundle has more than 10 bytes");
    }
    server
        .answers
        .lock()
        .unwrap()
        .push(answer(200, &[], b"0123456789"));
    assert!(remote.get(&limits).await.is_ok());
}
