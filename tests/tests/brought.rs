//! A CA that the user brings along: a root, or an intermediate below one, made with openssl.

pub(crate) mod authority;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;
use sidegate_tests::{Output, Running, Sidegate, until};

use crate::entries::stream::{Stream, roots_of, signer};
use crate::go_spiffe::client::GoClient;
use crate::support::{
    Client, Configuration, Operator, certificates, finish, folder, identity_only, own_entry,
    spiffe_id, write,
};
use authority::{CA, Openssl};

#[test]
fn svids_below_a_root_that_was_brought_are_verified_by_openssl_and_go() {
    let folder = folder();
    let Some(openssl) = Openssl::new(folder.path(), "svids_below_a_root_that_was_brought") else {
        return;
    };
    let keys = [
        ("p256", "EC -pkeyopt ec_paramgen_curve:P-256"),
        ("p384", "EC -pkeyopt ec_paramgen_curve:P-384"),
        ("rsa", "RSA -pkeyopt rsa_keygen_bits:2048"),
    ];
    for (name, key) in keys {
        openssl.key(name, key);
        openssl.root(name, CA);
        let gate = start(folder.path(), &brought(name, name, ""));
        is_verified(&gate, &openssl, name, 2);
        gate.stop();
        fs::remove_dir_all(folder.path().join("state")).expect("it is ours");
    }
}

#[test]
fn svids_below_an_intermediate_that_was_brought_are_verified_by_openssl_and_go() {
    let folder = folder();
    let Some(openssl) = Openssl::new(folder.path(), "svids_below_an_intermediate") else {
        return;
    };
    openssl.family();
    // The intermediate signs SVIDs itself, so that it may forbid further ones below it.
    let one = start(
        folder.path(),
        &brought("intermediate", "intermediate", "root"),
    );
    is_verified(&one, &openssl, "root", 2);
    one.stop();
    let two = start(folder.path(), &brought("chain", "lower", "root"));
    is_verified(&two, &openssl, "root", 3);
}

#[test]
fn the_same_ca_signs_after_a_restart_and_its_key_is_not_copied() {
    let folder = folder();
    let Some(openssl) = Openssl::new(folder.path(), "the_same_ca_signs_after_a_restart") else {
        return;
    };
    openssl.family();
    let config = brought("root", "root", "");
    let shown = |gate: &Sidegate| Operator::of(gate).authorities("x509");
    let gate = start(folder.path(), &config);
    let before = shown(&gate);
    let [(phase, id)] = before.as_slice() else {
        panic!("one root: {before:?}");
    };
    let root = certificates(&folder.path().join("root.pem"));
    assert_eq!(phase, "active");
    assert_eq!(roots_of(&root), [id.clone()].into());
    let key = fs::read_to_string(folder.path().join("root.key")).unwrap();
    let key: Vec<_> = key.lines().filter(|line| line.len() > 40).collect();
    for (file, content) in crate::state::content(&gate.ready.state) {
        let content = String::from_utf8_lossy(&content);
        assert!(!key.iter().any(|line| content.contains(line)), "{file}");
    }
    gate.process.signal(nix::sys::signal::Signal::SIGKILL);
    gate.process.wait();
    let gate = start(folder.path(), &config);
    assert_eq!(shown(&gate), before);
    is_verified(&gate, &openssl, "root", 2);
}

#[test]
fn a_root_that_was_brought_is_replaced_by_its_files_only_and_jwt_keys_as_ever() {
    let folder = folder();
    let Some(openssl) = Openssl::new(folder.path(), "a_root_that_was_brought_is_replaced") else {
        return;
    };
    openssl.family();
    let gate = start(folder.path(), &brought("root", "root", ""));
    let operator = Operator::of(&gate);
    let before = operator.authorities("x509");
    let id = before[0].1.clone();
    let refused: [&[&str]; 6] = [
        &["rotate", "x509"],
        &["rotate", "x509", "--prepare-only"],
        &["taint", "x509"],
        &["taint", "x509", "--authority-id", &id],
        &["revoke", "x509"],
        &["revoke", "x509", "--authority-id", &id],
    ];
    for arguments in refused {
        operator.is_refused(arguments, "SG0142");
    }
    assert_eq!(operator.authorities("x509"), before);
    for action in ["rotate", "taint", "revoke"] {
        operator.ask(&[action, "jwt"]);
    }
    gate.stop();

    openssl.key("next", "EC -pkeyopt ec_paramgen_curve:P-256");
    openssl.root("next", CA);
    let gate = start(folder.path(), &brought("next", "next", ""));
    assert_ne!(Operator::of(&gate).authorities("x509"), before);
    is_verified(&gate, &openssl, "next", 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_others_issued_below_the_same_root_are_let_in() {
    let folder = folder();
    let Some(openssl) = Openssl::new(folder.path(), "peers_that_others_issued") else {
        return;
    };
    openssl.family();
    let mut configuration = Configuration::new();
    let section = brought("intermediate", "intermediate", "root");
    configuration.entries.insert_str(0, &section);
    let (gate, client) = configuration.start(folder.path());
    assert_eq!(client.get("/status/200").await.status, 200);
    let id = spiffe_id("/outside");
    openssl.key("outside", "EC -pkeyopt ec_paramgen_curve:P-256");
    let leaf = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
                extendedKeyUsage=serverAuth,clientAuth\n";
    openssl.signed("outside", "root", &format!("{leaf}subjectAltName=URI:{id}"));
    let file = |name: &str| folder.path().join(name);
    let outside = Client::new(
        &client.address,
        &file("root.pem"),
        &file("outside.pem"),
        &file("outside.key"),
    );
    let answer = outside.get("/status/200").await;
    assert_eq!(answer.status, 200);
    let line = crate::support::access_line(&gate, answer.header("x-request-id"));
    assert_eq!(line["peer"], id);
}

#[test]
fn what_cannot_sign_is_refused_at_start_with_a_code() {
    let folder = folder();
    let Some(openssl) = Openssl::new(folder.path(), "what_cannot_sign_is_refused_at_start") else {
        return;
    };
    openssl.family();
    let plain = |name: &str, extensions: &str| {
        openssl.key(name, "EC -pkeyopt ec_paramgen_curve:P-256");
        openssl.root(name, extensions);
    };
    plain("stranger", CA);
    plain("foreign", &CA.replace("sidegate.local", "elsewhere"));
    openssl.key("leaf", "EC -pkeyopt ec_paramgen_curve:P-256");
    openssl.signed("leaf", "root", "basicConstraints=critical,CA:FALSE");
    openssl.key("mute", "EC -pkeyopt ec_paramgen_curve:P-256");
    let mute = CA.replace("keyCertSign,", "");
    openssl.signed("mute", "root", &mute);
    authority::expired(folder.path(), "expired");
    write(folder.path(), "words.pem", "words");
    write(folder.path(), "words.key", "words");
    write(folder.path(), "empty.pem", "");
    let cases = [
        (
            "a key of another",
            brought("root", "stranger", ""),
            "SG0139",
        ),
        (
            "no bundle",
            brought("intermediate", "intermediate", ""),
            "SG0139",
        ),
        (
            "another bundle",
            brought("intermediate", "intermediate", "stranger"),
            "SG0139",
        ),
        (
            "a root out of the bundle",
            brought("root", "root", "stranger"),
            "SG0139",
        ),
        (
            "the lower one first",
            brought("turned", "lower", "root"),
            "SG0139",
        ),
        (
            "a gap in the chain",
            brought("lower", "lower", "root"),
            "SG0139",
        ),
        ("a leaf", brought("leaf", "leaf", "root"), "SG0139"),
        (
            "one that may not sign",
            brought("mute", "mute", "root"),
            "SG0139",
        ),
        ("expired", brought("expired", "expired", ""), "SG01"),
        (
            "another trust domain",
            brought("foreign", "foreign", ""),
            "SG0122",
        ),
        (
            "no such certificate",
            brought("missing", "root", ""),
            "SG0120",
        ),
        ("no such key", brought("root", "missing", ""), "SG0120"),
        (
            "no such bundle",
            brought("root", "root", "missing"),
            "SG0120",
        ),
        ("no certificate", brought("words", "root", ""), "SG0139"),
        ("nothing", brought("empty", "root", ""), "SG0139"),
        ("no key", brought("root", "words", ""), "SG0139"),
        (
            "no bundle in the file",
            brought("root", "root", "words"),
            "SG0139",
        ),
    ];
    let mut wrong = Vec::new();
    for (what, section, code) in cases {
        let output = refused(folder.path(), &section);
        let has_code = output.stderr.contains(&format!("error[{code}"));
        if output.status.code() != Some(2) || !has_code || !output.stdout.is_empty() {
            wrong.push(format!("{what}: {code}: {output:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_refusal_says_in_words_why_peers_would_not_believe_it() {
    let folder = folder();
    let Some(openssl) = Openssl::new(folder.path(), "a_refusal_says_in_words") else {
        return;
    };
    openssl.family();
    openssl.key("leaf", "EC -pkeyopt ec_paramgen_curve:P-256");
    openssl.signed("leaf", "root", "basicConstraints=critical,CA:FALSE");
    let output = refused(folder.path(), &brought("leaf", "leaf", "root"));
    assert!(output.stderr.contains("error[SG0139]"), "{output:?}");
    // The name of a value in the program says nothing to its user.
    for name in ["Other(", "OtherError", "SignerMayNotSign"] {
        assert!(!output.stderr.contains(name), "{output:?}");
    }
}

#[test]
fn a_root_whose_certificate_forbids_what_it_is_brought_for_is_refused() {
    let folder = folder();
    let Some(openssl) = Openssl::new(folder.path(), "a_root_whose_certificate_forbids") else {
        return;
    };
    let cases = [
        ("no-key-cert-sign", CA.replace("keyCertSign,", "")),
        ("no-ca", CA.replace("CA:TRUE", "CA:FALSE")),
        // A root makes intermediates.
        (
            "no-intermediates",
            CA.replace("CA:TRUE", "CA:TRUE,pathlen:0"),
        ),
    ];
    let mut wrong = Vec::new();
    for (name, extensions) in cases {
        openssl.key(name, "EC -pkeyopt ec_paramgen_curve:P-256");
        openssl.root(name, &extensions);
        let output = refused(folder.path(), &brought(name, name, ""));
        if output.status.code() != Some(2) || !output.stderr.contains("error[SG0139]") {
            wrong.push(format!("{name}: {output:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_follows_an_intermediate_and_is_not_above_it_is_refused() {
    let folder = folder();
    let Some(openssl) = Openssl::new(folder.path(), "what_follows_an_intermediate") else {
        return;
    };
    openssl.family();
    openssl.key("stranger", "EC -pkeyopt ec_paramgen_curve:P-256");
    openssl.root("stranger", CA);
    openssl.join("astray", &["intermediate", "stranger"]);
    let output = refused(folder.path(), &brought("astray", "intermediate", "root"));
    assert!(output.stderr.contains("error[SG0139]"), "{output:?}");
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let folder = folder();
    let Some(openssl) = Openssl::new(folder.path(), "a_key_that_others_may_read") else {
        return;
    };
    openssl.family();
    let key = folder.path().join("root.key");
    let config = brought("root", "root", "");
    for mode in [0o644, 0o604, 0o602, 0o660, 0o606, 0o666, 0o777] {
        fs::set_permissions(&key, Permissions::from_mode(mode)).expect("it is ours");
        let output = refused(folder.path(), &config);
        let what = format!("{mode:o}: {output:?}");
        assert!(output.stderr.contains("error[SG0139]"), "{what}");
        assert!(output.stderr.contains("root.key"), "{what}");
    }
    for mode in [0o600, 0o400, 0o640] {
        fs::set_permissions(&key, Permissions::from_mode(mode)).expect("it is ours");
        start(folder.path(), &config).stop();
    }
}

#[test]
fn half_of_the_files_are_refused_as_a_configuration() {
    let folder = folder();
    for (lines, missing) in [
        ("certificate = \"root.pem\"", "key"),
        ("key = \"root.key\"", "certificate"),
        ("bundle = \"root.pem\"", "certificate"),
    ] {
        let section = format!("[identity.embedded]\n{lines}\n");
        let output = refused(folder.path(), &section);
        assert!(output.stderr.contains("error[SG0015]"), "{output:?}");
        assert!(output.stderr.contains(missing), "{output:?}");
    }
}

#[test]
fn the_lifetime_of_a_root_of_our_own_does_not_go_with_a_root_that_was_brought() {
    let folder = folder();
    let Some(openssl) = Openssl::new(folder.path(), "the_lifetime_of_a_root_of_our_own") else {
        return;
    };
    openssl.family();
    let section = brought("root", "root", "") + "root_ttl = \"1d\"\n";
    let output = refused(folder.path(), &section);
    assert!(output.stderr.contains("error[SG00"), "{output:?}");
}

#[test]
fn an_svid_ends_no_later_than_what_signed_it() {
    let folder = folder();
    authority::ending_soon(folder.path(), "soon");
    let gate = start(folder.path(), &brought("soon", "soon", ""));
    let svid = fetched(&gate);
    let chain = pem::parse_many(svid["chain"].as_str().expect("a chain")).expect("PEM");
    let root = certificates(&folder.path().join("soon.pem"));
    let end = |der: &[u8]| crate::workload_api::validity(der)[1];
    for certificate in &chain {
        let end = (end(certificate.contents()), end(&root[0]));
        assert!(end.0 <= end.1, "{end:?}");
    }
}

/// `[identity.embedded]` with these files; without a bundle where that is empty.
fn brought(certificate: &str, key: &str, bundle: &str) -> String {
    let mut section =
        format!("[identity.embedded]\ncertificate = \"{certificate}.pem\"\nkey = \"{key}.key\"\n");
    if !bundle.is_empty() {
        section.push_str(&format!("bundle = \"{bundle}.pem\"\n"));
    }
    section
}

/// An instance with one entry for the user who runs the tests.
fn start(folder: &Path, embedded: &str) -> Sidegate {
    Sidegate::run(&config(folder, embedded))
}

fn config(folder: &Path, embedded: &str) -> std::path::PathBuf {
    identity_only(folder, &(embedded.to_owned() + &own_entry("/demo")))
}

/// How a start ends that must not succeed; one that does is stopped.
fn refused(folder: &Path, embedded: &str) -> Output {
    let mut command = Sidegate::command("run");
    command
        .args(["-o", "json", "--config"])
        .arg(config(folder, embedded));
    let mut process = Running::start(&mut command);
    until("a refusal", || {
        let ready = !process.stdout().is_empty();
        (ready || !process.is_running()).then_some(())
    });
    if process.is_running() {
        process.signal(nix::sys::signal::Signal::SIGTERM);
    }
    process.wait()
}

/// The only SVID of a caller of ours.
fn fetched(gate: &Sidegate) -> Value {
    let mut command = Sidegate::command("svid");
    command
        .args(["fetch", "x509", "-o", "json", "--socket"])
        .arg(&gate.ready.workload_socket)
        .env_remove("SPIFFE_ENDPOINT_SOCKET");
    let output = finish(&mut command);
    assert!(output.status.success(), "{output:?}");
    let mut document: Value = serde_json::from_str(&output.stdout).expect("it is JSON");
    assert_eq!(document["svids"].as_array().map(Vec::len), Some(1));
    document["svids"][0].take()
}

/// openssl and Go verify an SVID with the root as it was brought, which is all that the bundle has.
fn is_verified(gate: &Sidegate, openssl: &Openssl, root: &str, certificates_in_chain: usize) {
    let svid = fetched(gate);
    assert_eq!(svid["spiffe_id"], spiffe_id("/demo"));
    let chain = svid["chain"].as_str().expect("a chain");
    let count = chain.matches("BEGIN CERTIFICATE").count();
    assert_eq!(count, certificates_in_chain, "{chain}");
    for purpose in ["sslclient", "sslserver"] {
        let output = openssl.verify(root, chain, purpose);
        assert!(output.status.success(), "{root} {purpose}: {output:?}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let update = runtime.block_on(async {
        let mut svids = Stream::svids(&gate.ready.workload_socket).await;
        svids.update().await
    });
    let brought = certificates(&openssl.folder.join(root).with_extension("pem"));
    assert_eq!(update.roots(), roots_of(&brought));
    let last = pem::parse_many(chain).expect("PEM").pop().expect("one");
    assert_eq!(update.roots(), [signer(last.contents())].into());

    let Some(go) = GoClient::of(gate, "go_verifies_what_was_brought") else {
        return;
    };
    let [context] = <[Value; 1]>::try_from(go.ask(&["x509"])).expect("one");
    assert_eq!(context["svids"][0]["verified"], spiffe_id("/demo"));
}
