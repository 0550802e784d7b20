//! A receiver that is there, that fails, that is away, that hangs.

use std::collections::BTreeSet;
use std::fs;

use http::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use sidegate_tests::{Running, Sidegate, until};

use super::receiver::{Answer, Receiver};
use super::{Logged, configuration, request_id};
use crate::support::{Identity, counter, folder, logged as line, write};

const DROPPED: &str = "sidegate_decision_log_dropped_total";

/// Lines for a receiver, with short waits.
pub(super) fn lines(address: &str) -> String {
    format!(
        "output = \"http\"\nurl = \"http://{address}\"\nmin_delay = \"10ms\"\nmax_delay = \"50ms\"\n"
    )
}

/// Waits until the receiver has exactly the events of these requests, each once.
fn wait_for(receiver: &Receiver, requests: &[String]) {
    until("all events", || {
        (receiver.events().len() >= requests.len()).then_some(())
    });
    let events = receiver.events();
    let found: Vec<&str> = events.iter().map(request_id).collect();
    assert_eq!(found, requests);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_gets_chunks_as_opa_sends_them() {
    let folder = folder();
    let receiver = Receiver::start().await;
    write(folder.path(), "token", "t0ken\n");
    let more = "upload_size_limit = \"2KiB\"\ntoken_file = \"token\"\n";
    let lines = lines(&receiver.address) + more;
    let logged = Logged::start(folder.path(), &lines, "").await;
    let mut requests = Vec::new();
    for number in 0..30 {
        requests.push(logged.get(&format!("/open/{number}")).await.1);
        if number == 15 {
            wait_for(&receiver, &requests);
            // A token may change.
            write(folder.path(), "token", "an0ther");
        }
    }
    wait_for(&receiver, &requests);
    let chunks = receiver.chunks();
    for chunk in &chunks {
        assert_eq!(chunk.head.method, "POST");
        assert_eq!(chunk.head.uri, "/logs");
        assert_eq!(chunk.head.headers["content-type"], "application/json");
        assert_eq!(chunk.head.headers["content-encoding"], "gzip");
        assert!(chunk.bytes <= 2048, "{}", chunk.bytes);
    }
    assert_eq!(chunks[0].head.headers["authorization"], "Bearer t0ken");
    let last = chunks.last().unwrap();
    assert_eq!(last.head.headers["authorization"], "Bearer an0ther");
    let output = logged.sidegate.stop();
    assert!(!output.stderr.contains("t0ken") && !output.stderr.contains("an0ther"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_fails_and_one_that_is_away_lose_nothing() {
    let folder = folder();
    let receiver = Receiver::start().await;
    let address = receiver.address.clone();
    let logged = Logged::start(folder.path(), &lines(&address), "").await;
    receiver.answer(Answer::Status(StatusCode::INTERNAL_SERVER_ERROR));
    let mut requests = vec![logged.get("/open/1").await.1];
    until("two failures", || (receiver.refused() >= 2).then_some(()));
    receiver.answer(Answer::Status(StatusCode::OK));
    wait_for(&receiver, &requests);

    let mut received = receiver.stop().await.len();
    for number in 0..10 {
        requests.push(logged.get(&format!("/closed/{number}")).await.1);
    }
    let failures = || {
        let name = "sidegate_decision_log_uploads_total";
        counter(&logged.sidegate, name, &["result=\"failure\""])
    };
    let before = failures();
    until("attempts in vain", || {
        (failures() >= before + 2.0).then_some(())
    });
    let receiver = Receiver::start_at(&address, None).await;
    wait_for(&receiver, &requests[received..]);
    received += receiver.events().len();
    assert_eq!(received, requests.len());
    assert_eq!(counter(&logged.sidegate, DROPPED, &[]), 0.0);
    let buffer = "sidegate_decision_log_buffer_bytes";
    until("an empty buffer", || {
        (counter(&logged.sidegate, buffer, &[]) == 0.0).then_some(())
    });
    line(&logged.sidegate, &["SG0263", "500"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_the_receiver_refuses_is_counted_and_stands_in_nobodys_way() {
    let folder = folder();
    let receiver = Receiver::start().await;
    let logged = Logged::start(folder.path(), &lines(&receiver.address), "").await;
    receiver.answer(Answer::Status(StatusCode::PAYLOAD_TOO_LARGE));
    logged.get("/open/lost").await;
    until("a refusal", || {
        let refused = counter(&logged.sidegate, DROPPED, &["reason=\"refused\""]);
        (refused == 1.0).then_some(())
    });
    receiver.answer(Answer::Status(StatusCode::OK));
    let requests = [logged.get("/open/next").await.1];
    wait_for(&receiver, &requests);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_delays_no_request_and_the_end_only_for_its_time() {
    let folder = folder();
    let receiver = Receiver::start().await;
    receiver.answer(Answer::Hang);
    let lines = lines(&receiver.address) + "buffer_size = \"64KiB\"\n";
    let logged = Logged::start(folder.path(), &lines, "").await;
    logged.get("/open").await;
    until("a chunk that hangs", || {
        (receiver.refused() > 0).then_some(())
    });
    // More than the buffer holds; were a request to wait for the receiver, none would be answered.
    let filler = noise(3000);
    for number in 0..60 {
        assert_eq!(logged.get(&format!("/open/{number}{filler}")).await.0, 200);
    }
    until("lost events", || {
        (counter(&logged.sidegate, DROPPED, &["reason=\"buffer_full\""]) > 0.0).then_some(())
    });
    assert_eq!(logged.get("/closed").await.0, 403);
    let output = logged.sidegate.stop();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.contains("SG0264"), "{}", output.stderr);
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
}

/// A path that does not compress.
fn noise(length: usize) -> String {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        char::from(b'a' + u8::try_from(state >> 33).unwrap_or_default() % 26)
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_still_waits_at_the_end_is_sent_before_it() {
    let folder = folder();
    let receiver = Receiver::start().await;
    let lines = format!(
        "output = \"http\"\nurl = \"http://{}/opa/\"\nresource = \"decisions\"\n\
         min_delay = \"1h\"\nmax_delay = \"1h\"\n",
        receiver.address
    );
    let logged = Logged::start(folder.path(), &lines, "").await;
    let mut requests = Vec::new();
    for _ in 0..3 {
        requests.push(logged.get("/closed").await.1);
    }
    assert!(receiver.chunks().is_empty());
    assert_eq!(logged.sidegate.stop().status.code(), Some(0));
    wait_for(&receiver, &requests);
    assert_eq!(receiver.chunks()[0].head.uri, "/opa/decisions");
}

/// An identity for `localhost`, and what signs it as PEM.
fn certified() -> (Identity, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let roots = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let identity = Identity {
        chain: vec![certificate.der().clone()],
        key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
    };
    (identity, roots)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_behind_tls_is_trusted_by_its_certificates_alone() {
    let folder = folder();
    let (identity, roots) = certified();
    let receiver = Receiver::start_at("127.0.0.1:0", Some(identity)).await;
    let port = receiver.address.rsplit_once(':').unwrap().1;
    let lines = |roots: &str| {
        format!(
            "output = \"http\"\nurl = \"https://localhost:{port}\"\nca_file = \"{roots}\"\n\
             min_delay = \"10ms\"\nmax_delay = \"50ms\"\n"
        )
    };
    write(folder.path(), "roots.pem", roots);
    write(folder.path(), "others.pem", certified().1);

    let distrustful = Logged::start(folder.path(), &lines("others.pem"), "").await;
    distrustful.get("/open").await;
    line(&distrustful.sidegate, &["SG0263", "certificate"]);
    assert!(receiver.chunks().is_empty() && receiver.refused() == 0);
    drop(distrustful);
    fs::remove_dir_all(folder.path().join("state")).unwrap();

    let logged = Logged::start(folder.path(), &lines("roots.pem"), "").await;
    let requests = [logged.get("/open").await.1];
    wait_for(&receiver, &requests);
}

#[test]
fn what_the_log_needs_is_looked_for_at_the_start() {
    let folder = folder();
    write(folder.path(), "empty", "\n");
    write(folder.path(), "text.pem", "no certificate");
    fs::create_dir(folder.path().join("directory")).unwrap();
    let http = "output = \"http\"\nurl = \"http://127.0.0.1:9\"\n";
    let https = "output = \"http\"\nurl = \"https://127.0.0.1:9\"\n";
    let cases = [
        (
            "output = \"file\"\npath = \"directory\"\n".to_owned(),
            "SG0262",
            "path",
        ),
        (
            "output = \"file\"\npath = \"none/log\"\n".to_owned(),
            "SG0262",
            "path",
        ),
        (
            format!("{http}token_file = \"none\"\n"),
            "SG0268",
            "token_file",
        ),
        (
            format!("{http}token_file = \"empty\"\n"),
            "SG0268",
            "token_file",
        ),
        (format!("{https}ca_file = \"none\"\n"), "SG0268", "ca_file"),
        (
            format!("{https}ca_file = \"text.pem\"\n"),
            "SG0268",
            "ca_file",
        ),
    ];
    let mut codes = BTreeSet::new();
    for (lines, code, key) in cases {
        let config = configuration(folder.path(), "http://127.0.0.1:9", &lines, "");
        for command in ["run", "check"] {
            let mut command = Sidegate::command(command);
            command.arg("--config").arg(&config);
            let output = Running::start(&mut command).wait();
            assert_ne!(output.status.code(), Some(0), "{lines}: {output:?}");
            let told = output.stdout + &output.stderr;
            assert!(told.contains(code), "{lines}: {told}");
            assert!(told.contains(key), "{lines}: {told}");
        }
        codes.insert(code);
    }
    assert_eq!(codes.len(), 2);
}
