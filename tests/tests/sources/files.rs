//! Files that cert-manager mounts, and that spiffe-helper writes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use rcgen::CertificateParams;
use sidegate_tests::{Running, Sidegate, until};
use time::Duration as Span;

use super::issuer::{Issuer, Set, Volume, good};
use super::{DEMO, GREETER, configuration, is_down, is_up, shown, until_it_is_so};
use crate::rotation::client::Client as Rotating;
use crate::rotation::load::Target;
use crate::spiffe_helper::helper::Helper;
use crate::support::{
    Client, address, admin, finish, folder, identity_only, logged, now, own_entry, write,
};
use crate::workload_api::serial;

/// Each change of the files, and the code with which it is refused.
fn refused(issuer: &Issuer) -> Vec<(&'static str, Set, &'static str)> {
    let other = Issuer::new();
    let set = || issuer.set(GREETER);
    let of = |id: &str, change: fn(&mut CertificateParams)| {
        let mut params = good(id);
        change(&mut params);
        issuer.set_of(&params)
    };
    vec![
        (
            "the key of another",
            Set {
                key: set().key,
                ..set()
            },
            "SG0166",
        ),
        (
            "the bundle of another",
            Set {
                bundle: other.bundle,
                ..set()
            },
            "SG0166",
        ),
        (
            "an SVID that has expired",
            of(GREETER, |params| {
                params.not_after = now() - Span::seconds(30)
            }),
            "SG0166",
        ),
        (
            "an SVID of the future",
            of(GREETER, |params| {
                params.not_before = now() + Span::minutes(30)
            }),
            "SG0166",
        ),
        (
            "an SVID of another trust domain",
            of("spiffe://other.example/greeter", |_| {}),
            "SG0166",
        ),
        (
            "a certificate that is no SVID",
            of(GREETER, |params| params.key_usages.clear()),
            "SG0166",
        ),
        ("an SVID that no entry names", issuer.set(DEMO), "SG0163"),
        (
            "half a certificate",
            {
                let set = set();
                let half = set.svid.split_at(set.svid.len() / 2).0.to_owned();
                Set { svid: half, ..set }
            },
            "SG0165",
        ),
        (
            "no certificate",
            Set {
                svid: String::new(),
                ..set()
            },
            "SG0165",
        ),
        (
            "no key",
            Set {
                key: set().bundle,
                ..set()
            },
            "SG0165",
        ),
        (
            "no roots",
            Set {
                bundle: "nothing\n".to_owned(),
                ..set()
            },
            "SG0165",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_secret_is_followed_and_what_is_refused_replaces_nothing() {
    let folder = folder();
    let issuer = Issuer::new();
    let first = issuer.set(GREETER);
    let mut volume = Volume::mount(&folder.path().join("secret"), &first);
    let gate = Sidegate::run(&configuration(folder.path(), &volume.section()));
    logged(
        &gate,
        &["identities come from outside", "source=files", GREETER],
    );
    let client = client_of(&issuer, &gate, folder.path());
    assert_eq!(shown(&client).await, Some(serial_of(&first)));
    assert_eq!(client.get("/hello").await.status, 200);

    for (what, set, code) in refused(&issuer) {
        let before = shown(&client).await;
        volume.swap(&set);
        tokio::task::block_in_place(|| is_down(&gate, code));
        assert_eq!(shown(&client).await, before, "{what}");
        assert_eq!(client.get("/hello").await.status, 200, "{what}");
        let next = issuer.set(GREETER);
        volume.swap(&next);
        tokio::task::block_in_place(|| is_up(&gate));
        assert_eq!(shown(&client).await, Some(serial_of(&next)), "{what}");
    }
    let state = gate.ready.state.to_str().expect("it is text").to_owned();
    volume.remove("tls.key");
    tokio::task::block_in_place(|| is_down(&gate, "SG0164"));
    let check = check(&["--state", &state]);
    assert!(
        check.contains("SG0164") && check.contains("is down since"),
        "{check}"
    );
    assert_eq!(client.get("/hello").await.status, 200);
    volume.swap(&issuer.set(GREETER));
    tokio::task::block_in_place(|| is_up(&gate));
    let check = self::check(&["--state", &state, "--strict"]);
    assert!(check.contains("√ identity source gives SVIDs"), "{check}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_written_over_one_after_the_other_are_taken_together() {
    let folder = folder();
    let issuer = Issuer::new();
    let volume = Volume::mount(&folder.path().join("secret"), &issuer.set(GREETER));
    let gate = Sidegate::run(&configuration(folder.path(), &volume.section()));
    let client = client_of(&issuer, &gate, folder.path());
    let next = issuer.set(GREETER);
    let before = shown(&client).await;
    volume.overwrite("tls.crt", &next.svid);
    // It has kept still, and the key is not there yet.
    tokio::task::block_in_place(|| is_down(&gate, "SG0166"));
    assert_eq!(shown(&client).await, before);
    volume.overwrite("tls.key", &next.key);
    tokio::task::block_in_place(|| is_up(&gate));
    assert_eq!(shown(&client).await, Some(serial_of(&next)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_renewed_serves_until_it_expires_and_then_again_once_it_is() {
    let folder = folder();
    let issuer = Issuer::new();
    let mut params = good(GREETER);
    params.not_after = now() + Span::seconds(20);
    let short = issuer.set_of(&params);
    let mut volume = Volume::mount(&folder.path().join("secret"), &short);
    let gate = Sidegate::run(&configuration(folder.path(), &volume.section()));
    let client = client_of(&issuer, &gate, folder.path());
    assert_eq!(shown(&client).await, Some(serial_of(&short)));
    volume.remove("tls.crt");
    tokio::task::block_in_place(|| {
        is_down(&gate, "SG0164");
        until("its end", || {
            let (status, text) = admin(&gate, "/readyz").expect("it is served");
            (status == 503 && text.contains(&format!("the SVID of {GREETER} has expired")))
                .then_some(())
        });
    });
    // The last second of a certificate counts for some.
    until_it_is_so("that it is refused", async || {
        shown(&client).await.is_none()
    })
    .await;
    let next = issuer.set(GREETER);
    volume.swap(&next);
    tokio::task::block_in_place(|| is_up(&gate));
    assert_eq!(shown(&client).await, Some(serial_of(&next)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_renewals_of_spiffe_helper_reach_a_listener_with_no_failed_request() {
    let (folder, origin) = (folder(), folder());
    let entries = own_entry("/demo")
        + &own_entry("/greeter")
        + "dns_names = [\"localhost\"]\nhint = \"greeter\"\n";
    let agent = identity_only(origin.path(), &format!("svid_ttl = \"10s\"\n{entries}"));
    let agent = Sidegate::run(&agent);
    let Some(helper) = Helper::of(&agent, "the_renewals_of_spiffe_helper_reach_a_listener") else {
        return;
    };
    let files = folder.path().join("files");
    let mut process = Running::start(&mut helper.command(&files, "hint = \"greeter\"\n"));
    until("its files", || {
        assert!(process.is_running(), "{}", process.stderr());
        ["svid.pem", "key.pem", "bundle.pem"]
            .iter()
            .all(|name| files.join(name).exists())
            .then_some(())
    });
    let path = |name: &str| files.join(name).display().to_string();
    let section = format!(
        "source = \"files\"\n[identity.files]\nsvid = {:?}\nkey = {:?}\nbundle = {:?}\n",
        path("svid.pem"),
        path("key.pem"),
        path("bundle.pem"),
    );
    let gate = Sidegate::run(&configuration(folder.path(), &section));
    let server: SocketAddr = address(&gate).parse().expect("an address");
    let client = Arc::new(Rotating::new(&agent.ready.workload_socket, server).await);
    let reports = [Version::HTTP_11, Version::HTTP_2].map(|version| {
        let target = Target::Proxy(Arc::clone(&client), version);
        tokio::spawn(target.load(Duration::from_secs(25)))
    });
    for report in reports {
        let report = report.await.expect("it ends");
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert!(report.answered > 100, "{report:?}");
    }
    let seen = client.seen.lock().expect("nobody panics with it");
    assert!(seen.server.len() >= 3, "{seen:?}");
    assert!(process.is_running(), "{}", process.stderr());
}

#[test]
fn a_set_that_is_refused_ends_the_start_and_check_says_the_same() {
    let issuer = Issuer::new();
    for (what, set, code) in refused(&issuer) {
        let folder = folder();
        let volume = Volume::mount(&folder.path().join("secret"), &set);
        let config = configuration(folder.path(), &volume.section());
        let mut command = Sidegate::command("run");
        let output = finish(command.arg("--config").arg(&config));
        assert_eq!(output.status.code(), Some(2), "{what}: {output:?}");
        let error = format!("error[{code}]");
        assert!(output.stderr.contains(&error), "{what}: {}", output.stderr);
        let config = config.to_str().expect("it is text");
        let checked = check(&["--config", config]);
        assert!(checked.contains(&format!("[{code}]")), "{what}: {checked}");
    }
    let folder = folder();
    let volume = Volume::mount(&folder.path().join("secret"), &issuer.set(GREETER));
    let config = configuration(folder.path(), &volume.section());
    let checked = check(&["--config", config.to_str().expect("it is text")]);
    assert!(
        checked.contains("√ identity source gives SVIDs"),
        "{checked}"
    );
    assert!(!folder.path().join("state").exists(), "nothing is made");
}

fn check(arguments: &[&str]) -> String {
    finish(Sidegate::command("check").args(arguments)).stdout
}

/// A client that the same issuer has given an identity.
fn client_of(issuer: &Issuer, gate: &Sidegate, folder: &Path) -> Client {
    let Set { svid, key, bundle } = issuer.set(DEMO);
    let [svid, key, bundle] = [("svid", svid), ("key", key), ("bundle", bundle)]
        .map(|(name, text)| write(folder, &format!("client/{name}.pem"), text));
    Client::new(address(gate), &bundle, &svid, &key)
}

fn serial_of(set: &Set) -> String {
    let block = pem::parse(&set.svid).expect("it is PEM");
    serial(block.contents())
}
