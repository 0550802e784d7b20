//! What must fit together across sections: names, addresses, directories, references.
//!
//! This works on the raw configuration, so that a value refused elsewhere hides nothing here.

use std::collections::HashMap;
use std::collections::hash_map;
use std::hash::Hash;
use std::net::SocketAddr;
use std::path::{Component, PathBuf};

use sidegate_proxy::Route;

use super::codes;
use super::diagnostic::{Diagnostic, did_you_mean};
use super::key::Key;
use super::lower::Lowering;
use super::model::{self, Admin, Listen};
use super::raw::{RawConfig, RawIdentity};
use crate::table::Table;

pub(super) fn check(raw: &RawConfig, lowering: &mut Lowering<'_>) {
    let component_names = raw.component.iter().enumerate().filter_map(|(index, raw)| {
        let name = raw.0.name.as_deref()?;
        Some((name, Key::component(index).child("name")))
    });
    let what = "is the name of two components";
    unique(lowering, component_names, codes::DUPLICATE_NAME, what);

    let listener_names = raw.listener.iter().enumerate().filter_map(|(index, raw)| {
        let name = raw.0.name.as_deref()?;
        Some((name, Key::listener(index).child("name")))
    });
    let egress_names = raw.egress.iter().enumerate().filter_map(|(index, raw)| {
        let name = raw.0.name.as_deref()?;
        Some((name, Key::egress(index).child("name")))
    });
    let listener_names = listener_names.chain(egress_names);
    let what = "is the name of two listeners";
    unique(lowering, listener_names, codes::DUPLICATE_NAME, what);

    routes(raw, lowering);
    bundles(raw, lowering);
    addresses(raw, lowering);
    directories(raw, lowering);
    components(raw, lowering);
    // Where there are none, each that is used is a problem already.
    if !lowering.is_off() {
        identities(raw, lowering);
    }
}

/// Names of routes, those included that routes have without being given one.
fn routes(raw: &RawConfig, lowering: &mut Lowering<'_>) {
    for (index, Table(listener)) in raw.listener.iter().enumerate() {
        let at = Key::listener(index);
        let own = match (&listener.upstream, &listener.component) {
            (Some(_), _) => Some("upstream"),
            (None, Some(_)) => Some("component"),
            (None, None) => None,
        };
        let default = own.map(|own| (Route::DEFAULT.to_owned(), at.child(own)));
        let routes = listener.route.iter().enumerate().map(|(index, raw)| {
            let key = at.child("route").item(index);
            match &raw.0.name {
                Some(name) => (name.clone(), key.child("name")),
                None => (model::Route::unnamed(index), key),
            }
        });
        let names = default.into_iter().chain(routes);
        let what = "is the name of two routes";
        unique(lowering, names, codes::DUPLICATE_NAME, what);
    }
}

fn bundles(raw: &RawConfig, lowering: &mut Lowering<'_>) {
    let Some(Table(policy)) = &raw.policy else {
        return;
    };
    let names = policy.bundle.iter().enumerate().filter_map(|(index, raw)| {
        let name = raw.0.name.as_deref()?;
        Some((name, Key::bundle(index).child("name")))
    });
    let what = "is the name of two bundles";
    unique(lowering, names, codes::DUPLICATE_NAME, what);
    if policy.path.is_some() && !policy.bundle.is_empty() {
        let keys = lowering.keys();
        let problem = Diagnostic::new(
            codes::PATH_AND_BUNDLES,
            "`policy.path` together with `[[policy.bundle]]`",
            keys.value(&Key::of("policy").child("path")),
        )
        .label("a policy is either this")
        .related(keys.value(&Key::bundle(0)), "or this")
        .help("remove the path, or make it a bundle of its own with `path`");
        lowering.report(problem);
    }
}

/// Port 0 is left to the system, so it clashes with nothing.
fn addresses(raw: &RawConfig, lowering: &mut Lowering<'_>) {
    let parse = |text: &Option<String>| text.as_deref()?.parse::<SocketAddr>().ok();
    let admin = raw.admin.as_ref().and_then(|raw| raw.0.listen.as_ref());
    let admin = match admin {
        Some(text) => text.parse().ok(),
        None => Some(Admin::default().listen),
    };
    let admin = admin.map(|address| (address, Key::of("admin").child("listen")));
    let listeners = raw.listener.iter().enumerate().filter_map(|(index, raw)| {
        let address = parse(&raw.0.listen)?;
        Some((address, Key::listener(index).child("listen")))
    });
    let egress = raw.egress.iter().enumerate().filter_map(|(index, raw)| {
        let address = parse(&raw.0.listen)?;
        Some((address, Key::egress(index).child("listen")))
    });
    let listeners = listeners.chain(egress);
    let used = admin.into_iter().chain(listeners);
    let used = used.filter(|(address, _)| address.port() != 0);
    let what = "is listened on twice";
    unique(lowering, used, codes::DUPLICATE_ADDRESS, what);
    let passed = raw.listener.iter().enumerate().filter_map(|(index, raw)| {
        let listen = raw.0.listen.as_deref()?;
        let is_passed = listen.starts_with(Listen::SYSTEMD);
        is_passed.then(|| (listen, Key::listener(index).child("listen")))
    });
    unique(lowering, passed, codes::DUPLICATE_ADDRESS, what);
}

fn directories(raw: &RawConfig, lowering: &mut Lowering<'_>) {
    let base = lowering.base().to_owned();
    let state = identity(raw).and_then(|raw| raw.state.as_ref());
    let state = state.map(|text| (text, Key::of("identity").child("state")));
    let files = raw.svid_file.iter().enumerate().filter_map(|(index, raw)| {
        let directory = raw.0.directory.as_ref()?;
        Some((directory, Key::svid_file(index).child("directory")))
    });
    // `demo`, `./demo` and `demo/` are one; links and `..` are left to the file system.
    let plain = |text: &String| -> PathBuf {
        let path = base.join(text);
        let parts = path.components();
        parts.filter(|part| *part != Component::CurDir).collect()
    };
    let used = state
        .into_iter()
        .chain(files)
        .map(|(text, key)| (plain(text).display().to_string(), key));
    let what = "is used twice";
    unique(lowering, used, codes::DUPLICATE_DIRECTORY, what);
}

fn components(raw: &RawConfig, lowering: &mut Lowering<'_>) {
    let known = raw.component.iter().map(|raw| raw.0.name.as_deref());
    let Some(known) = complete(lowering, &Key::of("component"), known) else {
        return;
    };
    let targets = raw.listener.iter().enumerate().flat_map(|(index, raw)| {
        let key = Key::listener(index);
        let routes = raw.0.route.iter().enumerate().map({
            let key = key.child("route");
            move |(index, raw)| (key.item(index), raw.0.component.as_deref())
        });
        routes.chain([(key, raw.0.component.as_deref())])
    });
    for (key, name) in targets {
        let Some(name) = name.filter(|name| !known.contains(name)) else {
            continue;
        };
        let key = key.child("component");
        let problem = Diagnostic::new(
            codes::UNKNOWN_COMPONENT,
            format!("there is no component `{name}`"),
            lowering.keys().value(&key),
        )
        .label("no [[component]] has this name");
        let meant = did_you_mean(name, known.iter().copied());
        lowering.report(with_known(problem, meant, &known, "component"));
    }
}

/// Every SPIFFE ID that is used must be one that an entry gives out.
fn identities(raw: &RawConfig, lowering: &mut Lowering<'_>) {
    // A SPIRE server tells its entries later.
    if identity(raw).is_some_and(|raw| raw.source.as_deref() == Some("spire-server")) {
        return;
    }
    let entries = identity(raw).map_or(&[][..], |raw| &raw.entry);
    let known = entries.iter().map(|raw| raw.0.spiffe_id.as_deref());
    let Some(known) = complete(lowering, &Key::of("identity").child("entry"), known) else {
        return;
    };
    let listeners = raw.listener.iter().enumerate().flat_map(|(index, raw)| {
        let key = Key::listener(index);
        let by_name = raw.0.sni.iter().enumerate().map({
            let key = key.child("sni");
            move |(index, raw)| {
                let key = key.item(index).child("spiffe_id");
                (raw.0.spiffe_id.as_deref(), key)
            }
        });
        by_name.chain([(raw.0.spiffe_id.as_deref(), key.child("spiffe_id"))])
    });
    let egress = raw.egress.iter().enumerate().map(|(index, raw)| {
        let key = Key::egress(index).child("spiffe_id");
        (raw.0.spiffe_id.as_deref(), key)
    });
    let listeners = listeners.chain(egress);
    let files = raw.svid_file.iter().enumerate().map(|(index, raw)| {
        let key = Key::svid_file(index).child("spiffe_id");
        (raw.0.spiffe_id.as_deref(), key)
    });
    for (id, key) in listeners.chain(files) {
        let Some(id) = id else { continue };
        // An ID that is none is reported as such, once.
        if known.contains(&id) || super::values::spiffe_id(id).is_err() {
            continue;
        }
        let problem = Diagnostic::new(
            codes::UNKNOWN_IDENTITY,
            format!("no entry gives out `{id}`"),
            lowering.keys().value(&key),
        )
        .label("no [[identity.entry]] has this SPIFFE ID");
        // The trust domains are mostly the same and must not make the rest look alike.
        let meant = did_you_mean(path_of(id), known.iter().map(|id| path_of(id)));
        let meant = meant.and_then(|path| known.iter().find(|id| path_of(id) == path));
        lowering.report(with_known(
            problem,
            meant.copied(),
            &known,
            "identity.entry",
        ));
    }
}

fn identity(raw: &RawConfig) -> Option<&RawIdentity> {
    raw.identity.as_ref().map(|Table(raw)| raw)
}

/// The names of all of an array's tables, or `None` where some were lost to other problems: then
/// nothing can be said about what is not among them.
fn complete<'r>(
    lowering: &Lowering<'_>,
    array: &Key,
    names: impl Iterator<Item = Option<&'r str>>,
) -> Option<Vec<&'r str>> {
    let names: Option<Vec<&str>> = names.collect();
    names.filter(|_| !lowering.is_faulty(array))
}

fn path_of(id: &str) -> &str {
    let rest = id.strip_prefix("spiffe://").unwrap_or(id);
    rest.split_once('/').map_or(rest, |(_, path)| path)
}

fn with_known(
    problem: Diagnostic,
    meant: Option<&str>,
    known: &[&str],
    section: &str,
) -> Diagnostic {
    match meant {
        Some(meant) => problem.help(format!("did you mean \"{meant}\"?")),
        None if known.is_empty() => problem.help(format!("there is no [[{section}]] at all")),
        None => problem.help(format!("known: \"{}\"", known.join("\", \""))),
    }
}

/// Reports every use after the first.
fn unique<T: Eq + Hash + ToString>(
    lowering: &mut Lowering<'_>,
    uses: impl Iterator<Item = (T, Key)>,
    code: &'static str,
    what: &str,
) {
    let mut first_uses = HashMap::new();
    for (value, key) in uses {
        match first_uses.entry(value) {
            hash_map::Entry::Vacant(free) => {
                free.insert(key);
            }
            hash_map::Entry::Occupied(taken) => {
                let title = format!("`{}` {what}", taken.key().to_string());
                let keys = lowering.keys();
                let problem =
                    Diagnostic::new(code, title, keys.value(&key)).label("used again here");
                let problem = if keys.contains(taken.get()) {
                    problem.related(keys.value(taken.get()), "used here first")
                } else {
                    problem.help(format!("it is the default of `{}`", taken.get()))
                };
                lowering.report(problem);
            }
        }
    }
}
