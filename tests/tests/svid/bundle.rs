//! `sidegate svid bundle`.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use sidegate_tests::Sidegate;

use super::{NO_ARGUMENTS, certificates, is_refused, json, mode, socket, svid};
use crate::support::{finish, folder};

#[test]
fn pem_is_what_up_wrote_for_its_demo_client() {
    let folder = folder();
    let gate = Sidegate::up(&folder.path().join("state"), NO_ARGUMENTS);
    let expected = certificates(&gate.demo().bundle);
    for (arguments, heading) in [
        (&["bundle"][..], "# sidegate.local\n"),
        (&["bundle", "--format", "pem"], "# sidegate.local\n"),
        (&["bundle", "-o", "text"], "# sidegate.local\n"),
        (
            &["bundle", "--trust-domain", "sidegate.local"],
            "-----BEGIN CERTIFICATE",
        ),
    ] {
        let output = finish(svid(arguments).args(socket(&gate)));
        assert!(output.status.success(), "{output:?}");
        assert!(output.stdout.starts_with(heading), "{output:?}");
        let printed = pem::parse_many(&output.stdout).expect("it is PEM");
        let printed: Vec<_> = printed.into_iter().map(pem::Pem::into_contents).collect();
        assert_eq!(printed, expected);

        let file = folder.path().join("written.pem");
        let mut command = svid(arguments);
        let written = finish(command.arg("--write").arg(&file).args(socket(&gate)));
        assert!(written.status.success(), "{written:?}");
        assert_eq!(written.stdout, "");
        assert_eq!(fs::read_to_string(&file).unwrap(), output.stdout);
        assert_eq!(mode(&file), 0o600);
    }
}

#[test]
fn a_spiffe_bundle_has_the_roots_and_the_keys_of_tokens() {
    let folder = folder();
    let gate = Sidegate::up(&folder.path().join("state"), NO_ARGUMENTS);
    let roots = certificates(&gate.demo().bundle);
    let output = finish(svid(&["bundle", "--format", "spiffe"]).args(socket(&gate)));
    assert!(output.status.success(), "{output:?}");
    let bundle: Value = serde_json::from_str(&output.stdout).expect("it is JSON");
    let keys = bundle["keys"].as_array().expect("there are keys");
    let (x509, jwt): (Vec<_>, Vec<_>) = keys.iter().partition(|key| key["use"] == "x509-svid");
    assert_eq!(x509.len(), roots.len());
    for (key, root) in x509.iter().zip(&roots) {
        assert_eq!(key["x5c"], serde_json::json!([STANDARD.encode(root)]));
        assert_eq!(key.get("kid"), None);
    }
    let token = &json(&gate, &["fetch", "jwt", "--audience", "demo"])["svids"][0]["token"];
    let header = token.as_str().and_then(|token| token.split('.').next());
    let header = URL_SAFE_NO_PAD.decode(header.expect("a token"));
    let header: Value = serde_json::from_slice(&header.expect("base64")).expect("JSON");
    assert!(!jwt.is_empty());
    assert!(jwt.iter().all(|key| key["use"] == "jwt-svid"), "{jwt:?}");
    assert!(jwt.iter().any(|key| key["kid"] == header["kid"]));

    for arguments in [
        &["bundle"][..],
        &["bundle", "--trust-domain", "sidegate.local"],
    ] {
        let map = json(&gate, arguments);
        assert_eq!(
            map,
            serde_json::json!({"trust_domains": {"sidegate.local": bundle}})
        );
    }
}

#[test]
fn a_bundle_that_is_not_given_or_cannot_be_asked_for_is_exit_code_2() {
    let folder = folder();
    let gate = Sidegate::up(&folder.path().join("state"), NO_ARGUMENTS);
    for format in [
        &["--format", "pem"],
        &["--format", "spiffe"],
        &["-o", "json"],
    ] {
        let arguments = [&["bundle", "--trust-domain", "other.test"], &format[..]].concat();
        let output = finish(svid(&arguments).args(socket(&gate)));
        is_refused(&output, "SG0058");
        for name in ["other.test", "sidegate.local"] {
            assert!(output.stderr.contains(name), "{output:?}");
        }
        let missing = folder.path().join("missing.sock");
        let arguments = [&["bundle"], &format[..]].concat();
        let output = finish(svid(&arguments).arg("--socket").arg(&missing));
        is_refused(&output, "SG0050");
    }
}
