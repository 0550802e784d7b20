//! `[identity] source`.

use std::path::{Path, PathBuf};

use super::SMALLEST;
use crate::config::model::SvidFiles;
use crate::config::{IdentitySource, ListenerTls, parse};

#[test]
fn a_source_that_mints_nothing_is_told_where_to_look() {
    let with = |identity: &str| {
        let text = SMALLEST.replace("state = \"state\"\n", identity);
        let (config, _) = parse(Path::new("folder/sidegate.toml"), &text).unwrap();
        config.identity.source
    };
    let files = r#"
        state = "state"
        source = "files"
        files = { svid = "tls.crt", key = "/etc/tls.key", bundle = "ca.crt" }
    "#;
    let expected = SvidFiles {
        svid: PathBuf::from("folder/tls.crt"),
        key: PathBuf::from("/etc/tls.key"),
        bundle: PathBuf::from("folder/ca.crt"),
    };
    assert_eq!(with(files), IdentitySource::Files(expected));
    for (socket, expected) in [
        ("", None),
        (
            "workload_api.socket = \"unix:///a.sock\"",
            Some("unix:///a.sock"),
        ),
        (
            "workload_api.socket = \"tcp://127.0.0.1:1\"",
            Some("tcp://127.0.0.1:1"),
        ),
    ] {
        let text = format!("state = \"state\"\nsource = \"workload-api\"\n{socket}\n");
        let expected = IdentitySource::WorkloadApi(expected.map(str::to_owned));
        assert_eq!(with(&text), expected);
    }
}

#[test]
fn without_identities_nothing_but_the_state_directory_is_needed() {
    let text = r#"
        [identity]
        source = "none"
        state = "state"

        [[listener]]
        name = "main"
        listen = "127.0.0.1:0"
        upstream = "http://127.0.0.1:9000"

        [[listener]]
        name = "said"
        listen = "127.0.0.1:0"
        tls = "off"
        protocol = "tcp"
        upstream = "tcp://127.0.0.1:9000"

        [[egress]]
        name = "app"
        listen = "127.0.0.1:0"
        upstream = "h2c://peer.example:80"
    "#;
    let (config, _) = parse(Path::new("folder/sidegate.toml"), text).unwrap();
    assert_eq!(config.identity.source, IdentitySource::None);
    assert_eq!(config.identity.trust_domain, None);
    assert_eq!(config.identity.state, PathBuf::from("folder/state"));
    assert_eq!(config.workload_api, None);
    assert_eq!(config.listeners.len(), 3);
    for listener in &config.listeners {
        assert_eq!(listener.tls, ListenerTls::Off, "{}", listener.name);
        assert_eq!(listener.spiffe_id, None, "{}", listener.name);
    }
}

#[test]
fn a_listener_without_tls_needs_no_identity_beside_others_that_have_one() {
    let text = SMALLEST.to_owned() + "tls = \"off\"\n";
    let (config, _) = parse(Path::new("sidegate.toml"), &text).unwrap();
    assert_eq!(config.identity.source, IdentitySource::Embedded);
    let [listener] = config.listeners.as_slice() else {
        panic!("there is one");
    };
    assert_eq!(listener.tls, ListenerTls::Off);
}
