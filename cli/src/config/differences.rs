//! What of another configuration a running instance can take, and by which keys it cannot.

use super::model::{Admin, Config, Identity, IdentitySource, Log, Policy, Proxy};

/// Names each field that differs. A struct is taken apart whole, so that none is forgotten.
macro_rules! differing {
    ($names:ident, $at:expr, $old:expr, $new:expr, $kind:ident { $($field:ident => $key:expr),* $(,)? } live { $($live:ident),* $(,)? }) => {
        let $kind { $($field,)* $($live: _,)* } = $old;
        $(
            if *$field != $new.$field {
                $names.push(format!("{}{}", $at, $key));
            }
        )*
    };
}

/// The key by which the source differs.
fn source(old: &IdentitySource, new: &IdentitySource) -> Option<&'static str> {
    match (old, new) {
        _ if old == new => None,
        (IdentitySource::Files(_), IdentitySource::Files(_)) => Some("identity.files"),
        (IdentitySource::WorkloadApi(_), IdentitySource::WorkloadApi(_)) => {
            Some("identity.workload_api.socket")
        }
        (IdentitySource::SpireServer(old), IdentitySource::SpireServer(new)) => {
            match old.audience_rules == new.audience_rules {
                false => Some("identity.audience_rule"),
                true => Some("identity.spire_server"),
            }
        }
        _ => Some("identity.source"),
    }
}

/// The configuration that can run now in the place of `old`, which is `new` but for what needs a
/// restart; and the keys of that, in the order of the file.
///
/// Another trust domain, or another source, is another instance: nothing but the log is taken with it.
pub(crate) fn taken(old: &Config, new: Config) -> (Config, Vec<String>) {
    let mut restart = Vec::new();
    let Config {
        identity,
        workload_api,
        admin,
        policy,
        proxy,
        components: _,
        listeners: _,
        svid_files,
        log,
        decision_log,
    } = old;
    differing!(restart, "identity.", identity, new.identity, Identity {
        trust_domain => "trust_domain",
        state => "state",
        svid_ttl => "svid_ttl",
        embedded => "embedded",
    } live { source, entries });
    restart.extend(source(&identity.source, &new.identity.source).map(str::to_owned));
    // Entries and listeners of one source are not those of another.
    let kind = |identity: &Identity| std::mem::discriminant(&identity.source);
    let is_same_domain =
        identity.trust_domain == new.identity.trust_domain && kind(identity) == kind(&new.identity);
    let mut with_domain = |is_same: bool, key: &str| {
        if !is_same_domain && !is_same {
            restart.push(key.to_owned());
        }
    };
    with_domain(
        old.identity.entries == new.identity.entries,
        "identity.entry",
    );
    with_domain(old.components == new.components, "component");
    with_domain(old.listeners == new.listeners, "listener");
    // The policy is not asked about what apps send, unless it was loaded for that.
    let has_egress = |config: &Config| config.listeners.iter().any(|it| it.outbound.is_some());
    let is_first_egress = has_egress(&new) && !has_egress(old);
    if is_first_egress {
        restart.push("egress".to_owned());
    }
    if *workload_api != new.workload_api {
        restart.push("workload_api.socket".to_owned());
    }
    differing!(restart, "admin.", admin, new.admin, Admin {
        listen => "listen",
        clients => "clients",
    } live {});
    differing!(restart, "policy.", policy, new.policy, Policy {
        path => "path",
        bundles => "bundle",
        entrypoint => "entrypoint",
        timeout => "timeout",
        shadow => "shadow",
    } live {});
    differing!(restart, "proxy.", proxy, new.proxy, Proxy {
        workers => "workers",
        drain_timeout => "drain_timeout",
    } live {});
    if *svid_files != new.svid_files {
        restart.push("svid_file".to_owned());
    }
    differing!(restart, "log.", log, new.log, Log {
        format => "format",
    } live { level, access, access_format });
    if *decision_log != new.decision_log {
        restart.push("decision_log".to_owned());
    }
    let mut next = old.clone();
    next.log = Log {
        format: old.log.format,
        ..new.log
    };
    if is_same_domain {
        next.identity.entries = new.identity.entries;
        next.components = new.components;
        next.listeners = new.listeners;
        if is_first_egress {
            next.listeners
                .retain(|listener| listener.outbound.is_none());
        }
    }
    (next, restart)
}
