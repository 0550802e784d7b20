//! Keys and chains in the forms in which issuers write them, made with openssl.

use std::fs;
use std::path::Path;

use sidegate_tests::Sidegate;

use super::{GREETER, configuration, shown};
use crate::brought::authority::Openssl;
use crate::support::{Client, address, certificates, folder, own_uid};
use crate::workload_api::serial;

const LEAF: &str = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
                    extendedKeyUsage=serverAuth,clientAuth\n";

/// The last part of the name is the form of the key.
const KEYS: [(&str, &str); 5] = [
    ("p256-pkcs8", "EC -pkeyopt ec_paramgen_curve:P-256"),
    ("p256-sec1", "EC -pkeyopt ec_paramgen_curve:P-256"),
    ("p384-sec1", "EC -pkeyopt ec_paramgen_curve:P-384"),
    ("rsa-pkcs8", "RSA -pkeyopt rsa_keygen_bits:2048"),
    ("rsa-pkcs1", "RSA -pkeyopt rsa_keygen_bits:2048"),
];

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_form_and_chains_with_their_root_are_served_on() {
    let folder = folder();
    let Some(openssl) = Openssl::new(folder.path(), "keys_of_every_form") else {
        return;
    };
    openssl.family();
    let names = format!("{LEAF}subjectAltName=URI:{GREETER},DNS:localhost\n");
    for (name, algorithm) in KEYS {
        openssl.key(name, algorithm);
        openssl.signed(name, "lower", &names);
        // As istio writes them, with all that is above.
        openssl.join("cert-chain", &[name, "lower", "upper", "root"]);
        let form = name.rsplit('-').next().expect("a form");
        let header = match form {
            "pkcs8" => "BEGIN PRIVATE KEY",
            "sec1" => "BEGIN EC PRIVATE KEY",
            _ => "BEGIN RSA PRIVATE KEY",
        };
        if form != "pkcs8" {
            openssl.run(&format!("pkey -in {name}.key -traditional -out new.key"));
            let [new, key] =
                ["new", name].map(|name| folder.path().join(name).with_extension("key"));
            fs::rename(new, key).expect("it is ours");
        }
        let key = fs::read_to_string(folder.path().join(name).with_extension("key"));
        assert!(key.expect("it is read").contains(header), "{name}");
        let section = format!(
            r#"
source = "files"
[identity.files]
svid = "cert-chain.pem"
key = "{name}.key"
bundle = "root.pem"

[[identity.entry]]
spiffe_id = "{GREETER}"
selectors = ["{}"]

[[svid_file]]
spiffe_id = "{GREETER}"
directory = "files"
"#,
            own_uid()
        );
        let gate = Sidegate::run(&configuration(folder.path(), &section));
        let client = served_on(&gate, folder.path());
        let leaf = certificates(&folder.path().join(name).with_extension("pem"));
        assert_eq!(shown(&client).await, Some(serial(&leaf[0])), "{name}");
        assert_eq!(client.get("/hello").await.status, 200, "{name}");
        gate.stop();
        fs::remove_dir_all(folder.path().join("files")).expect("it is ours");
        fs::remove_dir_all(folder.path().join("state")).expect("it is ours");
    }
}

/// A client with the files that are written of what was read: leaf and intermediates, without the
/// root, and PKCS#8.
fn served_on(gate: &Sidegate, folder: &Path) -> Client {
    let file = |name: &str| folder.join("files").join(name);
    assert_eq!(certificates(&file("svid.pem")).len(), 3);
    assert_eq!(
        certificates(&file("bundle.pem")),
        certificates(&folder.join("root.pem"))
    );
    let key = fs::read_to_string(file("key.pem")).expect("it is read");
    assert!(key.contains("BEGIN PRIVATE KEY"), "it is PKCS#8");
    Client::new(
        address(gate),
        &file("bundle.pem"),
        &file("svid.pem"),
        &file("key.pem"),
    )
}
