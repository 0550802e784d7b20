//! `sidegate identity bundle`, and what is no bundle.

use std::fs::{self, File};
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, IsCa, KeyPair, PublicKeyData};
use serde_json::{Value, json};
use sidegate_tests::{Output, Sidegate};
use tempfile::TempDir;

use super::{Foreign, OTHER, bundle, listed, set};
use crate::admin::Api;
use crate::go_spiffe::client::GoClient;
use crate::jwt::token::encode;
use crate::support::{Operator, folder, identity_only, own_entry, write};

const THIRD: &str = "third.example";

/// An instance that knows other.example, and how that is to stay.
struct Gate {
    gate: Sidegate,
    operator: Operator,
    kept: Vec<u8>,
    folder: TempDir,
}

#[test]
fn what_one_side_shows_the_other_takes_and_shows_again() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let gate = Sidegate::run(&identity_only(folder.path(), ""));
    let operator = Operator::of(&gate);
    assert_eq!(listed(&operator), ["sidegate.local"]);
    assert_eq!(
        bundle(&operator, Some("sidegate.local")),
        bundle(&operator, None)
    );

    let mut document = foreign.bundle();
    document["spiffe_sequence"] = json!(7);
    document["spiffe_refresh_hint"] = json!(600);
    let file = write(folder.path(), "other.json", document.to_string());
    set(&operator, OTHER, &file);
    assert_eq!(listed(&operator), [OTHER, "sidegate.local"]);
    assert_eq!(bundle(&operator, Some(OTHER)), document);
    let text = operator.run(&["bundle", "list"]).stdout;
    assert_eq!(text, "other.example\nsidegate.local (own)\n");

    // Standard input is taken where no file is named, and by the name that it usually has.
    let third = Foreign::start(THIRD);
    let (document, file) = (third.bundle(), third.bundle_file());
    for more in [&[][..], &["-"]] {
        let mut command = operator.command(&[&["bundle", "set", THIRD], more].concat());
        let input = File::open(&file).expect("it is there");
        let output = with_input(&mut command, input);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(bundle(&operator, Some(THIRD)), document);
        operator.ask(&["bundle", "delete", THIRD]);
    }
    assert_eq!(listed(&operator), [OTHER, "sidegate.local"]);

    let api = Api::of(&gate);
    let all = api.get("/v1/bundles");
    assert_eq!(all.status, 200, "{all:?}");
    assert!(all.body.to_string().contains(OTHER), "{all:?}");
    let put = |name: &str, body: &str| api.ask("PUT", &format!("/v1/bundles/{name}"), body);
    let answer = put(THIRD, &document.to_string());
    assert_eq!(answer.status / 100, 2, "{answer:?}");
    assert_eq!(bundle(&operator, Some(THIRD)), document);
    put("sidegate.local", &document.to_string()).is_error(409, "SG0143");
    put(THIRD, "{}").is_error(400, "SG0191");
    assert_eq!(api.delete("/v1/bundles/third.example").status, 200);
    api.delete("/v1/bundles/third.example")
        .is_error(404, "SG0144");
    operator.ask(&["bundle", "delete", OTHER]);
    assert_eq!(listed(&operator), ["sidegate.local"]);
}

#[test]
fn what_is_no_bundle_changes_nothing() {
    let (gate, foreign) = (Gate::start(), Foreign::start(OTHER));
    let good = foreign.bundle();
    let [x509, jwt] = ["x509-svid", "jwt-svid"].map(|usage| {
        let mut keys = good["keys"].as_array().expect("keys").iter();
        let found = keys.find(|key| key["use"] == usage);
        found.expect("there is one").clone()
    });
    let with = |key: &Value, name: &str, value: Value| {
        let mut changed = key.clone();
        changed[name] = value;
        changed
    };
    let without = |key: &Value, name: &str| {
        let mut changed = key.clone();
        changed.as_object_mut().expect("an object").remove(name);
        changed
    };
    let keys = |keys: &[Value]| json!({ "keys": keys }).to_string();
    let garbage = STANDARD.encode("no certificate");
    let cases = [
        ("SG0190", String::new()),
        ("SG0190", "no JSON".to_owned()),
        ("SG0190", "-----BEGIN CERTIFICATE-----".to_owned()),
        ("SG0190", good.to_string().replace('}', "")),
        ("SG0190", format!("{good}{good}")),
        ("SG0190", r#"{"keys":[],"keys":[]}"#.to_owned()),
        ("SG0191", "{}".to_owned()),
        ("SG0191", "null".to_owned()),
        ("SG0191", r#"{"keys":{}}"#.to_owned()),
        (
            "SG0191",
            json!({"trust_domains": {OTHER: good}}).to_string(),
        ),
        (
            "SG0191",
            with(&good, "spiffe_sequence", json!("1")).to_string(),
        ),
        (
            "SG0191",
            with(&good, "spiffe_refresh_hint", json!(-1)).to_string(),
        ),
        ("SG0192", keys(&[json!(1)])),
        ("SG0192", keys(&[with(&x509, "x5c", json!([garbage]))])),
        ("SG0192", keys(&[with(&x509, "x5c", json!(["?"]))])),
        ("SG0192", keys(&[with(&x509, "x", jwt["x"].clone())])),
        ("SG0192", keys(&[without(&jwt, "kid")])),
        ("SG0192", keys(&[with(&jwt, "kid", json!(""))])),
        ("SG0192", keys(&[without(&jwt, "kty")])),
        ("SG0192", keys(&[jwt.clone(), jwt.clone()])),
        // One bad key among good ones is as bad.
        ("SG0192", keys(&[x509, without(&jwt, "kid")])),
        ("SG0145", keys(&[certificate(OTHER, IsCa::ExplicitNoCa)])),
        ("SG0145", keys(&[certificate(OTHER, IsCa::NoCa)])),
        // The root of another trust domain.
        ("SG0145", keys(&[certificate(THIRD, authority())])),
        (
            "SG0145",
            keys(&[certificate("sidegate.local", authority())]),
        ),
    ];
    for (code, content) in cases {
        gate.refuses(OTHER, &content, code);
    }
    gate.refuses(THIRD, "{}", "SG0191");
    // It is what was changed that was wrong with the last ones.
    let good = keys(&[certificate(OTHER, authority())]);
    set(
        &gate.operator,
        OTHER,
        &write(gate.folder.path(), "good.json", good),
    );
}

#[test]
fn a_foreign_key_that_is_no_point_of_its_curve_keeps_nobody_from_reading_bundles() {
    let (gate, foreign) = (Gate::start(), Foreign::start(OTHER));
    let mut document = foreign.bundle();
    let keys = document["keys"].as_array_mut().expect("keys");
    let [first, second] = &mut keys[..] else {
        panic!("two keys: {keys:?}");
    };
    let jwt = if first["use"] == "jwt-svid" {
        first
    } else {
        second
    };
    jwt["x"] = jwt["y"].clone();
    let content = write(gate.folder.path(), "off.json", document.to_string());
    let content = content.to_str().expect("the path is text");
    // Whether it is refused or ignored is all the same to those who federate.
    gate.operator.run(&["bundle", "set", OTHER, content]);
    let Some(client) = GoClient::of(&gate.gate, "a_foreign_key_that_is_no_point") else {
        return;
    };
    let answers = client.ask(&["jwt", "demo", "demo"]);
    assert_eq!(answers[0]["validated"]["locally"], "OK", "{answers:?}");
}

#[test]
fn neither_the_own_bundle_nor_one_that_is_not_there_can_be_changed() {
    let (gate, foreign) = (Gate::start(), Foreign::start(OTHER));
    let content = foreign.bundle().to_string();
    gate.refuses("sidegate.local", &content, "SG0143");
    let own = bundle(&gate.operator, None);
    for arguments in [
        ["bundle", "delete", "sidegate.local"],
        ["bundle", "delete", THIRD],
    ] {
        let output = gate.operator.run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let codes = ["error[SG0143]", "error[SG0144]"];
        assert!(codes.iter().any(|code| output.stderr.contains(code)));
        gate.is_unchanged(&format!("{arguments:?}"));
    }
    let output = gate.operator.run(&["bundle", "show", THIRD]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stderr.contains("error[SG0144]"), "{output:?}");
    let file = foreign.bundle_file();
    for name in [
        "",
        "Third.example",
        "spiffe://third.example",
        "a b",
        "../x",
        "third.example/x",
    ] {
        for arguments in [
            vec!["bundle", "set", name, file.to_str().expect("text")],
            vec!["bundle", "delete", name],
        ] {
            let output = gate.operator.run(&arguments);
            assert_eq!(output.status.code(), Some(2), "{name:?}: {output:?}");
            gate.is_unchanged(&format!("{arguments:?}"));
        }
    }
    let missing = gate.folder.path().join("missing");
    let missing = missing.to_str().expect("the path is text");
    gate.operator
        .is_refused(&["bundle", "set", THIRD, missing], "SG0053");
    gate.is_unchanged("a file that is not there");
    assert_eq!(bundle(&gate.operator, None), own);
}

#[test]
fn a_bundle_that_cannot_be_kept_is_not_taken() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let gate = Sidegate::run(&identity_only(folder.path(), ""));
    let operator = Operator::of(&gate);
    // A directory is in the way of the file.
    let file = gate.ready.state.join("bundles.json");
    fs::create_dir(&file).expect("there is no file yet");
    write(&file, "in-the-way", "");
    let bundle = foreign.bundle_file();
    let bundle = bundle.to_str().expect("the path is text");
    operator.is_refused(&["bundle", "set", OTHER, bundle], "SG0146");
    assert_eq!(listed(&operator), ["sidegate.local"]);
    fs::remove_dir_all(&file).expect("it is ours");
    foreign.is_known_to(&operator);
    assert_eq!(listed(&operator), [OTHER, "sidegate.local"]);

    // Nor is one given up that would be there again after a restart.
    fs::remove_file(&file).expect("it is ours");
    fs::create_dir(&file).expect("it is gone");
    write(&file, "in-the-way", "");
    operator.is_refused(&["bundle", "delete", OTHER], "SG0146");
    assert_eq!(listed(&operator), [OTHER, "sidegate.local"]);
}

impl Gate {
    fn start() -> Self {
        let (folder, foreign) = (folder(), Foreign::start(OTHER));
        let entry =
            own_entry("/demo") + "audiences = [\"demo\"]\nfederates_with = [\"other.example\"]\n";
        let gate = Sidegate::run(&identity_only(folder.path(), &entry));
        let operator = Operator::of(&gate);
        foreign.is_known_to(&operator);
        let kept = fs::read(gate.ready.state.join("bundles.json"));
        Self {
            gate,
            operator,
            kept: kept.expect("it is kept"),
            folder,
        }
    }

    /// Panics unless setting this fails with this code and changes nothing.
    fn refuses(&self, trust_domain: &str, content: &str, code: &str) {
        let file: PathBuf = write(self.folder.path(), "bad.json", content);
        let file = file.to_str().expect("the path is text");
        let output = self.operator.run(&["bundle", "set", trust_domain, file]);
        let what = format!("{content:.300}: {output:?}");
        assert_eq!(output.status.code(), Some(2), "{what}");
        assert_eq!(output.stdout, "", "{what}");
        assert!(output.stderr.contains(&format!("error[{code}]")), "{what}");
        self.is_unchanged(&what);
    }

    fn is_unchanged(&self, what: &str) {
        let kept = fs::read(self.gate.ready.state.join("bundles.json"));
        assert_eq!(kept.expect("it is kept"), self.kept, "{what}");
        let known = listed(&self.operator);
        assert_eq!(known, [OTHER, "sidegate.local"], "{what}");
    }
}

/// A key of a bundle whose certificate is signed by itself, an authority's or not.
fn certificate(trust_domain: &str, is_ca: IsCa) -> Value {
    let key = KeyPair::generate().expect("a key pair");
    let mut params = CertificateParams::default();
    let id = format!("spiffe://{trust_domain}");
    let id = id.as_str().try_into().expect("it is ASCII");
    params.subject_alt_names = vec![rcgen::SanType::URI(id)];
    if matches!(is_ca, IsCa::Ca(_)) {
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    }
    params.is_ca = is_ca;
    let certificate = params.self_signed(&key).expect("it is signed");
    let (x, y) = key.der_bytes()[1..].split_at(32);
    json!({
        "kty": "EC", "crv": "P-256", "use": "x509-svid", "x": encode(x), "y": encode(y),
        "x5c": [STANDARD.encode(certificate.der())],
    })
}

fn authority() -> IsCa {
    IsCa::Ca(rcgen::BasicConstraints::Unconstrained)
}

fn with_input(command: &mut std::process::Command, input: File) -> Output {
    let output = command.stdin(input).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Output {
        status: output.status,
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}
