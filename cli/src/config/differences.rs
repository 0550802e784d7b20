//! By which keys two configurations differ.

use super::model::{Admin, Component, Config, Identity, Listener, Log, Policy, Proxy, WorkloadApi};

/// Names each field that differs. A struct is taken apart whole, so that none is forgotten.
macro_rules! differing {
    ($names:ident, $at:expr, $old:expr, $new:expr, $kind:ident { $($field:ident => $key:expr),* $(,)? }) => {
        let $kind { $($field),* } = $old;
        $(
            if *$field != $new.$field {
                $names.push(format!("{}{}", $at, $key));
            }
        )*
    };
}

/// The keys of `new` that are not as in `old`, but for `log.level`, in the order of the file.
pub(crate) fn differences(old: &Config, new: &Config) -> Vec<String> {
    let mut names = Vec::new();
    let Config {
        identity,
        workload_api: WorkloadApi { socket },
        admin,
        policy,
        proxy,
        components,
        listeners,
        svid_files,
        log,
        decision_log,
    } = old;
    differing!(names, "identity.", identity, new.identity, Identity {
        trust_domain => "trust_domain",
        source => "source",
        state => "state",
        svid_ttl => "svid_ttl",
        embedded => "embedded",
        entries => "entry",
    });
    if *socket != new.workload_api.socket {
        names.push("workload_api.socket".to_owned());
    }
    differing!(names, "admin.", admin, new.admin, Admin {
        listen => "listen",
        clients => "clients",
    });
    differing!(names, "policy.", policy, new.policy, Policy {
        path => "path",
        bundles => "bundle",
        entrypoint => "entrypoint",
        timeout => "timeout",
        shadow => "shadow",
    });
    differing!(names, "proxy.", proxy, new.proxy, Proxy {
        workers => "workers",
        drain_timeout => "drain_timeout",
    });
    each(
        &mut names,
        "component",
        components,
        &new.components,
        component,
    );
    each(&mut names, "listener", listeners, &new.listeners, listener);
    if *svid_files != new.svid_files {
        names.push("svid_file".to_owned());
    }
    let Log {
        // This is changed live.
        level: _,
        format,
        access,
        access_format,
    } = log;
    for (is_same, key) in [
        (*format == new.log.format, "format"),
        (*access == new.log.access, "access"),
        (*access_format == new.log.access_format, "access_format"),
    ] {
        if !is_same {
            names.push(format!("log.{key}"));
        }
    }
    if *decision_log != new.decision_log {
        names.push("decision_log".to_owned());
    }
    names
}

/// A table that has a name.
trait Named {
    fn name(&self) -> &str;
}

impl Named for Component {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for Listener {
    fn name(&self) -> &str {
        &self.name
    }
}

/// Tables that came, went or changed.
fn each<T: Named>(
    names: &mut Vec<String>,
    section: &str,
    old: &[T],
    new: &[T],
    compare: impl Fn(&mut Vec<String>, &str, &T, &T),
) {
    for gone in old {
        match new.iter().find(|it| it.name() == gone.name()) {
            Some(kept) => compare(names, &format!("{section} `{}` ", kept.name()), gone, kept),
            None => names.push(format!("{section} `{}` (removed)", gone.name())),
        }
    }
    for come in new {
        if !old.iter().any(|it| it.name() == come.name()) {
            names.push(format!("{section} `{}` (new)", come.name()));
        }
    }
}

fn component(names: &mut Vec<String>, at: &str, old: &Component, new: &Component) {
    differing!(names, at, old, new, Component {
        name => "name",
        path => "path",
        namespace => "namespace",
        memory_limit => "memory_limit",
        max_concurrency => "max_concurrency",
        request_deadline => "request_deadline",
    });
}

fn listener(names: &mut Vec<String>, at: &str, old: &Listener, new: &Listener) {
    differing!(names, at, old, new, Listener {
        name => "name",
        listen => "listen",
        target => "component or upstream",
        routes => "route",
        spiffe_id => "spiffe_id",
        tls => "tls",
        timeouts => "timeouts",
        body_limits => "request_body",
        limits => "limits or http2",
        has_own_cap => "limits.max_connections",
        paths => "path",
        forwarding => "forward_client_cert or trusted_hops",
        context_extensions => "context_extensions",
    });
}
