//! `[identity] source`.

use std::path::{Path, PathBuf};

use super::SMALLEST;
use crate::config::model::SvidFiles;
use crate::config::{IdentitySource, parse};

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
