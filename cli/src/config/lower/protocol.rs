//! `listener.protocol`, what it goes with, and `[[listener.sni]]`.

use http::Method;

use super::{Diagnostic, Key, Lowering, codes, values};
use crate::config::model::{Protocol, Sni, Target};
use crate::config::raw::{RawListener, RawSni};
use crate::table::Table;

impl Lowering<'_> {
    /// A listener's protocol; what has no effect with it is reported. `None` where there is a
    /// problem with the word itself.
    pub(super) fn protocol(&mut self, at: &Key, raw: &RawListener) -> Option<Protocol> {
        let key = at.child("protocol");
        let Some(text) = &raw.protocol else {
            return (!self.is_faulty(&key)).then_some(Protocol::Auto);
        };
        let protocol = self.parsed(text.as_str(), &key, values::protocol)?;
        let idle: &[_] = match protocol {
            Protocol::Auto | Protocol::Http2 => &[],
            Protocol::Http1 => &[(raw.http2.is_some(), "http2", "")],
            Protocol::Tcp => &for_requests(raw),
        };
        for (is_there, table, name) in idle {
            if !is_there {
                continue;
            }
            let own = match name.is_empty() {
                true => at.child(table),
                false => at.child(table).child(name),
            };
            let problem = Diagnostic::new(
                codes::NO_EFFECT,
                format!("`{own}` with `protocol = \"{text}\"`"),
                self.keys.value(&own),
            )
            .label("has no effect")
            .related(self.keys.value(&key), "with this protocol")
            .help("remove one of the two");
            self.report(problem);
        }
        Some(protocol)
    }

    /// Behind a listener for TCP there is one server for TCP, and behind no other.
    pub(super) fn behind_protocol(
        &mut self,
        at: &Key,
        protocol: Option<Protocol>,
        target: Option<&Target>,
    ) {
        let (Some(protocol), Some(target)) = (protocol, target) else {
            return;
        };
        let (name, is_tcp) = match target {
            Target::Component(_) => ("component", false),
            Target::Upstream(server) => ("upstream", server.is_tcp()),
        };
        let target_key = at.child(name);
        let problem = match (protocol == Protocol::Tcp, is_tcp) {
            (true, false) => Diagnostic::new(
                codes::PROTOCOL,
                format!("`{target_key}` takes requests"),
                self.keys.value(&target_key),
            )
            .label("there are none with `protocol = \"tcp\"`")
            .help("write `upstream = \"tcp://host:port\"` or \"unix+tcp:///run/app.sock\""),
            (false, true) => Diagnostic::new(
                codes::PROTOCOL,
                format!("`{target_key}` takes no requests"),
                self.keys.value(&target_key),
            )
            .label("requests come to this listener")
            .help(
                "add `protocol = \"tcp\"` to the listener, or make it the upstream of a \
                 [[listener.route]] with `methods = [\"CONNECT\"]`",
            ),
            _ => return,
        };
        self.report(problem);
    }

    /// A route is for `CONNECT` and to a server for TCP, or neither.
    pub(super) fn connect(
        &mut self,
        at: &Key,
        methods: &[Method],
        has_path: bool,
        target: Option<&Target>,
    ) {
        let Some(target) = target else {
            return;
        };
        let is_tcp = matches!(target, Target::Upstream(server) if server.is_tcp());
        let (upstream, methods_key) = (at.child("upstream"), at.child("methods"));
        if is_tcp && methods != [Method::CONNECT] {
            let problem = Diagnostic::new(
                codes::PROTOCOL,
                format!("`{upstream}` takes no requests but `CONNECT`"),
                self.keys.value(&upstream),
            )
            .label("the route is for others")
            .help("add `methods = [\"CONNECT\"]`, and nothing else there");
            self.report(problem);
        } else if !is_tcp && methods.contains(&Method::CONNECT) {
            let problem = Diagnostic::new(
                codes::PROTOCOL,
                format!("`{methods_key}` with `CONNECT`"),
                self.keys.value(&methods_key),
            )
            .label("what is behind the route takes requests, and no tunnels")
            .help("write a route of its own, with `upstream = \"tcp://host:port\"`");
            self.report(problem);
        } else if is_tcp && has_path {
            let name = ["path", "path_prefix"].map(|name| at.child(name));
            let [path, prefix] = name;
            let key = match self.keys.contains(&path) {
                true => path,
                false => prefix,
            };
            let problem = Diagnostic::new(
                codes::PROTOCOL,
                format!("`{key}` of a route for `CONNECT`"),
                self.keys.value(&key),
            )
            .label("no request gets here: a `CONNECT` has no path")
            .help("remove it; `hosts` compares with the host of the target");
            self.report(problem);
        }
    }

    /// The identities by server name, none of which is hidden by one before it.
    pub(super) fn sni(&mut self, at: &Key, raw: Vec<Table<RawSni>>) -> Vec<Sni> {
        let key = at.child("sni");
        let mut known: Vec<(String, Key)> = Vec::new();
        let mut all = Vec::new();
        for (index, Table(raw)) in raw.into_iter().enumerate() {
            let at = key.item(index);
            let names_key = at.child("server_names");
            if raw.server_names.is_empty() && !self.is_faulty(&names_key) {
                let problem = Diagnostic::new(
                    codes::SERVER_NAMES,
                    format!("`{at}` without server names"),
                    self.keys.value(&at),
                )
                .label("it is for nobody")
                .help("add `server_names = [\"a.example.org\"]`");
                self.report(problem);
            }
            let mut server_names = Vec::new();
            for (index, text) in raw.server_names.iter().enumerate() {
                let key = names_key.item(index);
                let Some(name) = self.parsed(text.as_str(), &key, values::server_name) else {
                    continue;
                };
                if let Some((_, first)) = known.iter().find(|(found, _)| *found == name) {
                    let problem = Diagnostic::new(
                        codes::SERVER_NAMES,
                        format!("the server name `{name}` is there twice"),
                        self.keys.value(&key),
                    )
                    .label("used again here")
                    .related(self.keys.value(first), "used here first");
                    self.report(problem);
                    continue;
                }
                known.push((name.clone(), key));
                server_names.push(name);
            }
            let id = self.required(raw.spiffe_id, at.child("spiffe_id"), values::spiffe_id);
            all.extend(id.map(|spiffe_id| Sni {
                server_names,
                spiffe_id,
            }));
        }
        all
    }
}

/// What is there that is about requests only, by table and key.
fn for_requests(raw: &RawListener) -> Vec<(bool, &'static str, &'static str)> {
    let mut found = vec![
        (raw.http2.is_some(), "http2", ""),
        (raw.request_body.is_some(), "request_body", ""),
        (!raw.route.is_empty(), "route", ""),
    ];
    if let Some(Table(timeouts)) = &raw.timeouts {
        found.extend([
            (timeouts.stream_idle.is_some(), "timeouts", "stream_idle"),
            (timeouts.body_read.is_some(), "timeouts", "body_read"),
            (timeouts.request.is_some(), "timeouts", "request"),
        ]);
    }
    if let Some(Table(limits)) = &raw.limits {
        found.extend([
            (
                limits.requests_per_second.is_some(),
                "limits",
                "requests_per_second",
            ),
            (limits.request_burst.is_some(), "limits", "request_burst"),
            (limits.max_headers.is_some(), "limits", "max_headers"),
            (
                limits.max_header_bytes.is_some(),
                "limits",
                "max_header_bytes",
            ),
            (limits.max_uri_bytes.is_some(), "limits", "max_uri_bytes"),
        ]);
    }
    found
}
