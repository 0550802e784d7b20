//! Every key has its row in the documentation.

use std::path::Path;

use serde::Deserialize;

use crate::config::raw::{
    RawAdmin, RawAgent, RawAudienceRule, RawBundle, RawComponent, RawConfig, RawDecisionLog,
    RawEgress, RawEmbedded, RawEntry, RawFiles, RawForwardClientCert, RawHttp2, RawIdentity,
    RawLimits, RawListener, RawLog, RawPath, RawPolicy, RawProxy, RawRequestBody, RawRoute,
    RawShadow, RawSni, RawSpireServer, RawSvidFile, RawTimeouts, RawWorkloadApi,
};
use crate::config::{IdentitySource, parse};

const DOCUMENTATION: &str = include_str!("../../../../docs/configuration.md");

#[test]
fn every_key_is_documented_under_its_section() {
    let sections = [
        ("[identity]", keys_of::<RawIdentity>()),
        ("[identity.embedded]", keys_of::<RawEmbedded>()),
        ("[identity.files]", keys_of::<RawFiles>()),
        ("[identity.workload_api]", keys_of::<RawAgent>()),
        ("[identity.spire_server]", keys_of::<RawSpireServer>()),
        ("[[identity.audience_rule]]", keys_of::<RawAudienceRule>()),
        ("[[identity.entry]]", keys_of::<RawEntry>()),
        ("[workload_api]", keys_of::<RawWorkloadApi>()),
        ("[admin]", keys_of::<RawAdmin>()),
        ("[policy]", keys_of::<RawPolicy>()),
        ("[[policy.bundle]]", keys_of::<RawBundle>()),
        ("[policy.shadow]", keys_of::<RawShadow>()),
        ("[proxy]", keys_of::<RawProxy>()),
        ("[[component]]", keys_of::<RawComponent>()),
        ("[[listener]]", keys_of::<RawListener>()),
        ("[[listener.route]]", keys_of::<RawRoute>()),
        ("[[listener.sni]]", keys_of::<RawSni>()),
        ("[listener.timeouts]", keys_of::<RawTimeouts>()),
        ("[listener.request_body]", keys_of::<RawRequestBody>()),
        ("[listener.limits]", keys_of::<RawLimits>()),
        ("[listener.http2]", keys_of::<RawHttp2>()),
        ("[listener.path]", keys_of::<RawPath>()),
        (
            "[listener.forward_client_cert]",
            keys_of::<RawForwardClientCert>(),
        ),
        ("[[egress]]", keys_of::<RawEgress>()),
        ("[[svid_file]]", keys_of::<RawSvidFile>()),
        ("[log]", keys_of::<RawLog>()),
        ("[decision_log]", keys_of::<RawDecisionLog>()),
    ];
    for root in keys_of::<RawConfig>() {
        assert!(sections.iter().any(|(header, _)| {
            [format!("[{root}]"), format!("[[{root}]]")].contains(&(*header).to_owned())
        }));
    }
    for (header, keys) in sections {
        let heading = format!("\n## `{header}`\n");
        let (_, section) = DOCUMENTATION.split_once(&heading).expect(header);
        let section = section.split("\n## ").next().unwrap();
        for key in keys {
            // Tables of their own have headings of their own.
            let tables = "entry timeouts request_body limits http2 forward_client_cert route sni embedded \
                          bundle shadow files workload_api spire_server audience_rule";
            let own = tables.split(' ').any(|table| table == key);
            let documented = section.contains(&format!("\n| `{key}` |"));
            assert!(own || documented, "`{key}` of {header} is not documented");
        }
    }
}

/// The keys that a table takes, out of what serde says about one that it does not.
fn keys_of<'de, T: Deserialize<'de> + std::fmt::Debug>() -> Vec<String> {
    let unknown = toml::Deserializer::parse("\"\" = 1").unwrap();
    let message = T::deserialize(unknown).unwrap_err().message().to_owned();
    let keys: Vec<String> = message
        .split('`')
        .skip(3)
        .step_by(2)
        .map(str::to_owned)
        .collect();
    assert!(!keys.is_empty(), "{message}");
    keys
}

#[test]
fn the_whole_file_of_a_guide_loads() {
    let guide = include_str!("../../../../docs/spire.md");
    let (_, block) = guide.split_once("```toml\n").unwrap();
    let (text, _) = block.split_once("```").unwrap();
    let (config, _) = parse(Path::new("sidegate.toml"), text).unwrap();
    assert!(matches!(
        config.identity.source,
        IdentitySource::SpireServer(_)
    ));
}
