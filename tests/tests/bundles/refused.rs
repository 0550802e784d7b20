//! Bundles that are refused, by name.

use super::archive::{POLICY, bomb, good, tarball};
use super::server::{BundleServer, GIGABYTE, Published};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bundles_are_refused_by_name_and_nothing_is_served() {
    let good = good();
    let cut = good.slice(..good.len() - 20);
    let everything = tarball(&[("/policy.rego", POLICY)]);
    let server = BundleServer::start(Published::Gigabyte(true), None).await;
    let folder = folder();
    write(folder.path(), "other/.manifest", r#"{"roots": ["other"]}"#);
    let configuration = with_bundle(&format!(
        "url = \"{}\"\n[[policy.bundle]]\nname = \"other\"\npath = \"other\"",
        server.url
    ));
    let climbing = tarball(&[("../policy.rego", POLICY)]);
    let outside = tarball(&[
        ("/.manifest", r#"{"roots": ["envoy/other"]}"#),
        ("/policy.rego", POLICY),
    ]);
    let delta = tarball(&[("/patch.json", r#"{"data": []}"#)]);
    let failing = tarball(&[
        ("/.manifest", r#"{"roots": ["envoy"]}"#),
        ("/policy.rego", &format!("{POLICY}\ntest_it if false\n")),
    ]);
    let page = Bytes::from_static(b"<html>log in first</html>");
    let archive = |archive| Published::Archive("\"1\"", archive);
    for (published, texts) in [
        (archive(cut), ["SG0231", "bundle `authz`"]),
        (archive(page), ["SG0231", "gzip"]),
        (archive(climbing), ["SG0233", "\"../policy.rego\" climbs"]),
        (archive(outside), ["SG0238", "envoy/authz"]),
        (archive(delta), ["SG0236", "patch.json"]),
        (archive(failing), ["SG0213", "test_it"]),
        (archive(everything), ["SG0239", "`authz` and `other`"]),
        (archive(bomb()), ["SG0232", "268435456 unpacked bytes"]),
        (Published::Gigabyte(true), ["SG0232", "67108864 bytes"]),
        (Published::Gigabyte(false), ["SG0232", "67108864 bytes"]),
    ] {
        server.publish(published);
        let output = run("run", &folder, &configuration);
        let stderr = &output.stderr;
        assert_eq!(output.status.code(), Some(2), "{texts:?}: {stderr}");
        for text in texts {
            assert!(stderr.contains(text), "{texts:?}: {stderr}");
        }
        assert!(!folder.path().join("workload.sock").exists());
    }
    // Nearly all of both gigabytes stayed where it was.
    assert!(server.sent() < GIGABYTE / 8, "{}", server.sent());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_missing_or_wrong_is_told_by_the_status() {
    let folder = folder();
    let server = BundleServer::start(Published::Archive("\"1\"", good()), Some("token")).await;
    write(folder.path(), "wrong", "t0ken");
    write(folder.path(), "two", "one two");
    for (lines, texts) in [
        ("", ["SG0230", "401"]),
        ("token_file = \"wrong\"", ["SG0230", "401"]),
        ("token_file = \"two\"", ["SG0249", "one line"]),
        ("token_file = \"absent\"", ["SG0249", "absent"]),
    ] {
        let configuration = with_bundle(&format!("url = \"{}\"\n{lines}", server.url));
        let output = run("run", &folder, &configuration);
        assert_eq!(output.status.code(), Some(2), "{}", output.stderr);
        for text in texts {
            assert!(output.stderr.contains(text), "{lines}: {}", output.stderr);
        }
        assert!(!output.stderr.contains("t0ken"), "{}", output.stderr);
    }
}

/// The most memory that a process ever had, in bytes.
fn peak(sidegate: &Sidegate) -> u64 {
    let path = format!("/proc/{}/status", sidegate.process.pid());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:"));
    let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
    kilobytes.parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_is_refused_as_it_comes_and_the_bundle_before_goes_on_deciding() {
    let folder = folder();
    let server = BundleServer::start(Published::Archive("\"1\"", good()), None).await;
    let configuration = with_bundle(&format!(
        "url = \"{}\"\nmin_poll = \"100ms\"\nmax_poll = \"200ms\"",
        server.url
    ));
    let (sidegate, client) = configuration.start(folder.path());
    server.publish(Published::Gigabyte(false));
    logged(&sidegate, &["SG0232", "67108864 bytes"]);
    server.publish(Published::Archive("\"2\"", bomb()));
    logged(&sidegate, &["SG0232", "268435456 unpacked bytes"]);
    assert_decides(&client).await;
    let peak = peak(&sidegate);
    assert!(peak < GIGABYTE / 2, "{peak}");
    sidegate.stop();
}
