//! Bundles that OPA itself built and signed.

use std::fs;

use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512,
    PKCS_RSA_SHA256, SignatureAlgorithm,
};
use sidegate_tests::{Tool, skip};

use super::archive::opa;
use super::*;
use crate::support::identity_only;

/// Data whose canonical form is unlike the text.
const ODD_DATA: &str = r#"{
    "closed": "/no", "é": "\u00e9 <&> \u2028", "numbers": [1.0, 1e3, -0.5, 12345678901234567890],
    "nested": {"b": [], "a": {}, "B": null}
}"#;
const ODD_YAML: &str =
    "z: [1, 2.50, yes it is]\na:\n  b: |\n    two\n    lines\n  t: true\n  n: null\n";

/// A folder with a bundle in `bundle`, and keys for it.
struct Signing {
    folder: TempDir,
}

impl Signing {
    /// `None` without OPA.
    fn new(test: &str) -> Option<Self> {
        let folder = folder();
        write(folder.path(), "bundle/policy.rego", POLICY);
        write(folder.path(), "bundle/envoy/data.json", ODD_DATA);
        write(folder.path(), "bundle/envoy/more/data.yaml", ODD_YAML);
        let manifest =
            "{ \"revision\": \"r1\",\n \"roots\": [\"envoy\"], \"metadata\": {\"by\": [1]} }";
        write(folder.path(), "bundle/.manifest", manifest);
        if opa(folder.path(), &["version"]).is_none() {
            skip(test, Tool::Opa);
            return None;
        }
        Some(Self { folder })
    }

    fn key(&self, name: &str, algorithm: &'static SignatureAlgorithm) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let path = self.folder.path();
        write(path, &format!("{name}.key"), key.serialize_pem());
        write(path, &format!("{name}.pub"), key.public_key_pem());
    }

    fn opa(&self, arguments: &[&str]) {
        opa(self.folder.path(), arguments).expect("it is there");
    }

    /// `opa sign` for the folder, in the folder: it names files by the path that it is given.
    fn sign(&self, arguments: &[&str]) {
        let sign = ["sign", "--bundle", ".", "--signing-key", "../p256.key"];
        let arguments = [&sign[..], &["--signing-alg", "ES256"], arguments].concat();
        opa(&self.folder.path().join("bundle"), &arguments).expect("it is there");
    }

    /// `opa build` into `built.tar.gz`.
    fn build(&self, arguments: &[&str]) {
        let build = ["build", "--bundle", "bundle", "-o", "built.tar.gz"];
        self.opa(&[&build, arguments].concat());
    }

    /// Whether the policy can be used, by these lines of its bundle; with what `check` says.
    fn check(&self, lines: &str) -> (bool, String) {
        // Nothing but the policy: there are many of these.
        let bundle = format!("[[policy.bundle]]\nname = \"authz\"\n{lines}\n");
        let file = identity_only(self.folder.path(), &bundle);
        let output = finish(Sidegate::command("check").arg("--config").arg(file));
        let text = output.stdout + &output.stderr;
        (output.status.success(), text)
    }

    fn assert_accepted(&self, lines: &str) {
        let (is_accepted, text) = self.check(lines);
        assert!(is_accepted, "{lines}: {text}");
    }

    fn assert_refused(&self, lines: &str, texts: &[&str]) {
        let (is_accepted, text) = self.check(lines);
        assert!(!is_accepted, "{lines}: {text}");
        for expected in texts {
            assert!(text.contains(expected), "{lines}: {text}");
        }
    }
}

#[test]
fn bundles_that_opa_signs_by_every_kind_of_key_are_verified() {
    let Some(signing) = Signing::new("bundles_that_opa_signs_by_every_kind_of_key") else {
        return;
    };
    let path = signing.folder.path();
    signing.key("rsa", &PKCS_RSA_SHA256);
    signing.key("p256", &PKCS_ECDSA_P256_SHA256);
    signing.key("p384", &PKCS_ECDSA_P384_SHA384);
    signing.key("p521", &PKCS_ECDSA_P521_SHA512);
    for kind in ["key", "pub"] {
        write(path, &format!("secret.{kind}"), "a secret\n");
    }
    for (algorithm, key) in [
        ("RS256", "rsa"),
        ("RS384", "rsa"),
        ("RS512", "rsa"),
        ("PS256", "rsa"),
        ("PS384", "rsa"),
        ("PS512", "rsa"),
        ("ES256", "p256"),
        ("ES384", "p384"),
        ("ES512", "p521"),
        ("HS256", "secret"),
        ("HS384", "secret"),
        ("HS512", "secret"),
    ] {
        let private = format!("{key}.key");
        signing.build(&["--signing-key", &private, "--signing-alg", algorithm]);
        signing.assert_accepted(&format!(
            "path = \"built.tar.gz\"\nverification_key = \"{key}.pub\"\n\
             verification_algorithm = \"{algorithm}\""
        ));
        // Not by another algorithm, even where the key would do.
        let other = if algorithm == "PS256" {
            "RS256"
        } else {
            "PS256"
        };
        signing.assert_refused(
            &format!(
                "path = \"built.tar.gz\"\nverification_key = \"rsa.pub\"\n\
                 verification_algorithm = \"{other}\""
            ),
            &["SG0242"],
        );
    }
}

#[test]
fn a_directory_that_opa_signs_is_verified_file_by_file() {
    let Some(signing) = Signing::new("a_directory_that_opa_signs") else {
        return;
    };
    let path = signing.folder.path();
    signing.key("p256", &PKCS_ECDSA_P256_SHA256);
    signing.key("other", &PKCS_ECDSA_P256_SHA256);
    write(path, "bundle/README.md", "# Read me\n");
    write(
        path,
        "claims.json",
        r#"{"scope": "write", "keyid": "one", "iss": "me"}"#,
    );
    signing.sign(&[]);
    let unsigned = "path = \"bundle\"";
    let by = |key: &str| {
        format!(
            "path = \"bundle\"\nverification_key = \"{key}.pub\"\nverification_algorithm = \"ES256\""
        )
    };
    let good = by("p256");
    signing.assert_accepted(&good);
    signing.assert_refused(unsigned, &["SG0241"]);
    signing.assert_refused(&by("other"), &["SG0242"]);
    signing.assert_refused(&by("absent"), &["SG0244", "absent.pub"]);
    let scope = format!("{good}\nverification_scope = \"write\"");
    signing.assert_refused(&scope, &["SG0242", "scope"]);

    // White space and the order of keys are not what was signed; all else is.
    let data = path.join("bundle/envoy/data.json");
    let text = fs::read_to_string(&data).unwrap();
    fs::write(&data, text.replace('\n', " ")).unwrap();
    signing.assert_accepted(&good);
    fs::write(&data, text.replace("1.0", "1")).unwrap();
    signing.assert_refused(&good, &["SG0243", "envoy/data.json"]);
    fs::write(&data, &text).unwrap();
    let policy = write(path, "bundle/policy.rego", format!("{POLICY}\n"));
    signing.assert_refused(&good, &["SG0243", "policy.rego"]);
    fs::write(&policy, POLICY).unwrap();
    let more = write(path, "bundle/more.rego", "package envoy.more\n");
    signing.assert_refused(&good, &["SG0243", "more.rego is not in"]);
    signing.assert_accepted(&format!("{good}\nverification_exclude = [\"more.*\"]"));
    fs::remove_file(more).unwrap();
    fs::remove_file(path.join("bundle/README.md")).unwrap();
    signing.assert_refused(&good, &["SG0243", "README.md is signed"]);

    let signatures = path.join("bundle/.signatures.json");
    fs::remove_file(&signatures).unwrap();
    signing.sign(&["--claims-file", "../claims.json"]);
    signing.assert_refused(&good, &["SG0242", "scope"]);
    signing.assert_accepted(&scope);
    signing.assert_accepted(&format!("{scope}\nverification_key_id = \"one\""));
    let other = format!("{scope}\nverification_key_id = \"two\"");
    signing.assert_refused(&other, &["SG0242", "key `one`"]);

    fs::remove_file(&signatures).unwrap();
    signing.assert_refused(&good, &["SG0240"]);
    signing.assert_accepted(unsigned);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_opa_builds_decides_in_either_version_of_rego() {
    let Some(signing) = Signing::new("what_opa_builds_decides") else {
        return;
    };
    signing.key("p256", &PKCS_ECDSA_P256_SHA256);
    let v0 = "package envoy.authz\n\ndefault allow = false\n\n\
        allow { not startswith(input.attributes.request.http.path, data.envoy.closed) }\n";
    let server = BundleServer::start(Published::Archive("\"0\"", Bytes::new()), None).await;
    let configuration = with_bundle(&format!(
        "url = \"{}\"\nverification_key = \"p256.pub\"\nverification_algorithm = \"ES256\"",
        server.url
    ));
    for (policy, version) in [(POLICY, "--v1-compatible"), (v0, "--v0-compatible")] {
        write(signing.folder.path(), "bundle/policy.rego", policy);
        signing.build(&[
            version,
            "--signing-key",
            "p256.key",
            "--signing-alg",
            "ES256",
        ]);
        let built = fs::read(signing.folder.path().join("built.tar.gz")).unwrap();
        server.publish(Published::Archive("\"1\"", built.into()));
        let (sidegate, client) = configuration.start(signing.folder.path());
        assert_decides(&client).await;
        sidegate.stop();
    }
}
