//! `[[listener.route]]`, and what is behind a listener or a route.

use std::collections::BTreeMap;
use std::ops::Not;

use http::{HeaderName, HeaderValue, Method};
use sidegate_proxy::{HostPattern, PathMatch, PathRules};

use super::egress::{Behind, RawTarget};
use super::{AT_LEAST_A_NANOSECOND, Diagnostic, Key, Lowering, codes, values};
use crate::config::model::{Route, RouteMatch, Target};
use crate::config::raw::RawRoute;
use crate::config::upstream::{self, Written};
use crate::config::values::Problem;
use crate::table::Table;

impl Lowering<'_> {
    /// A listener's routes, none of which is hidden by one before it. Without rules for paths, whose
    /// problems were reported, paths are taken as they are.
    pub(super) fn routes(
        &mut self,
        at: &Key,
        raw: Vec<Table<RawRoute>>,
        paths: Option<PathRules>,
        behind: Behind,
    ) -> Vec<Route> {
        let key = at.child("route");
        // A `CONNECT` goes to a route of its own, wherever that stands.
        let takes_requests = raw.iter().map(|Table(raw)| raw.methods != ["CONNECT"]);
        let takes_requests: Vec<bool> = takes_requests.collect();
        let numbered = raw.into_iter().enumerate();
        let routes = numbered.filter_map(|(index, Table(raw))| {
            let at = key.item(index);
            let route = self.route(&at, index, raw, paths, behind)?;
            let mut others = takes_requests
                .iter()
                .enumerate()
                .skip(index.saturating_add(1));
            let next = others.find(|(_, takes_requests)| **takes_requests);
            if let (true, Some((next, _))) = (route.matches.is_any(), next) {
                let next = self.keys.value(&key.item(next));
                let title = "a route after one that every request matches";
                let problem = Diagnostic::new(codes::NO_EFFECT, title, next)
                    .label("no request gets here")
                    .related(
                        self.keys.value(&at),
                        "names no host, path, method or header",
                    )
                    .help("say which requests the first one is for, or put it last");
                self.report(problem);
            }
            Some(route)
        });
        routes.collect()
    }

    fn route(
        &mut self,
        at: &Key,
        index: usize,
        raw: RawRoute,
        paths: Option<PathRules>,
        behind: Behind,
    ) -> Option<Route> {
        let name = self.optional(raw.name, at.child("name"), values::name);
        let hosts = self.list(&at.child("hosts"), &raw.hosts, host);
        let methods = self.list(&at.child("methods"), &raw.methods, method);
        let path = self.path(at, raw.path, raw.path_prefix, paths);
        let headers = self.headers(&at.child("headers"), raw.headers.unwrap_or_default().0);
        let target = RawTarget {
            component: raw.component,
            upstream: raw.upstream,
            expected_spiffe_ids: raw.expected_spiffe_ids,
            expected_trust_domain: raw.expected_trust_domain,
            behind,
        };
        let target = self.target(at, target, false);
        self.connect(
            at,
            &methods,
            path.is_some(),
            target.as_ref().and_then(Option::as_ref),
        );
        let request_timeout = self.optional(
            raw.request_timeout,
            at.child("request_timeout"),
            values::duration(AT_LEAST_A_NANOSECOND),
        );
        let context_extensions = self.context_extensions(
            &at.child("context_extensions"),
            raw.context_extensions.unwrap_or_default().0,
        );
        Some(Route {
            name: name.unwrap_or_else(|| Route::unnamed(index)),
            matches: RouteMatch {
                hosts,
                path,
                methods,
                headers,
            },
            target: target.flatten()?,
            request_timeout,
            context_extensions,
        })
    }

    pub(super) fn list<T>(
        &mut self,
        at: &Key,
        texts: &[String],
        parse: fn(&str) -> Result<T, Problem>,
    ) -> Vec<T> {
        let numbered = texts.iter().enumerate();
        let parsed =
            numbered.filter_map(|(index, text)| self.parsed(text.as_str(), &at.item(index), parse));
        parsed.collect()
    }

    fn path(
        &mut self,
        at: &Key,
        exact: Option<String>,
        prefix: Option<String>,
        paths: Option<PathRules>,
    ) -> Option<PathMatch> {
        let (key, other) = (at.child("path"), at.child("path_prefix"));
        if exact.is_some() && prefix.is_some() {
            let title = "a route with both `path` and `path_prefix`";
            let problem = Diagnostic::new(codes::NO_EFFECT, title, self.keys.value(&other))
                .label("only one of the two can hold")
                .related(self.keys.value(&key), "the other one")
                .help("remove one of them, or write two routes");
            self.report(problem);
        }
        let path = |text: &str| path(text, paths);
        let exact = self.optional(exact, key, path).map(PathMatch::Exact);
        let prefix = self.optional(prefix, other, path).map(PathMatch::Prefix);
        exact.or(prefix)
    }

    fn headers(
        &mut self,
        at: &Key,
        raw: BTreeMap<String, String>,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let headers = raw.iter().filter_map(|(name, value)| {
            let key = at.child(name);
            let name = self.parsed(name.as_str(), &key, header_name)?;
            let value = self.parsed(value.as_str(), &key, header_value)?;
            Some((name, value))
        });
        headers.collect()
    }

    /// What is behind a listener or a route. `None` where a problem was reported; where it is
    /// optional there may be nothing.
    #[expect(clippy::option_option, reason = "nothing is one of the answers")]
    pub(super) fn target(
        &mut self,
        at: &Key,
        raw: RawTarget,
        is_optional: bool,
    ) -> Option<Option<Target>> {
        let component_key = at.child("component");
        let upstream_key = at.child("upstream");
        let is_route = at.header().ends_with("route]]");
        let what = if is_route { "route" } else { "listener" };
        let RawTarget {
            component,
            upstream,
            expected_spiffe_ids: ids,
            expected_trust_domain: trust_domain,
            behind,
        } = raw;
        let outbound = behind.outbound;
        let (peer, expected, goes) = match behind.has_identity {
            true => (
                "`upstream = \"https://host:port\"`",
                " and `expected_spiffe_ids`",
                "what an app sends goes to peers in the mesh",
            ),
            false => (
                "`upstream = \"http://host:port\"`",
                "",
                "what an app sends goes to servers",
            ),
        };
        if let (Some(_), Some(_)) = (&component, outbound) {
            let title = "a component behind an outbound listener";
            let problem = Diagnostic::new(codes::EGRESS, title, self.keys.value(&component_key))
                .label(goes)
                .help(format!("write {peer}"));
            self.report(problem);
            return None;
        }
        match (component, upstream) {
            (Some(_), Some(_)) => {
                let problem = Diagnostic::new(
                    codes::LISTENER_TARGET,
                    format!("a {what} with both `component` and `upstream`"),
                    self.keys.value(&upstream_key),
                )
                .label("only one of the two can be behind it")
                .related(self.keys.value(&component_key), "the other one")
                .help(format!("remove one of them, or write two {what}s"));
                self.report(problem);
                None
            }
            (Some(name), None) => {
                self.expected(at, None, ids, trust_domain);
                self.parsed(name.as_str(), &component_key, values::text)
                    .map(|name| Some(Target::Component(name)))
            }
            (None, Some(address)) => {
                let server = self.parsed(address.as_str(), &upstream_key, upstream::upstream);
                let fits = match &server {
                    Some(server) => self.fits(&upstream_key, server, behind),
                    None => false,
                };
                if !fits {
                    return None;
                }
                let expected = self.expected(at, server.as_ref(), ids, trust_domain);
                let server = match server? {
                    Written::Plain(server) => server,
                    Written::InMesh(server) => server.expecting(expected?),
                };
                Some(Some(Target::Upstream(server)))
            }
            (None, None) if is_optional => {
                self.expected(at, None, ids, trust_domain);
                Some(None)
            }
            (None, None) => {
                if !self.is_faulty(&component_key) && !self.is_faulty(&upstream_key) {
                    let (title, help) = match outbound {
                        None => (
                            format!("a {what} with neither `component` nor `upstream`"),
                            "add `component = \"…\"` with the name of a [[component]], or \
                             `upstream = \"http://host:port\"`"
                                .to_owned(),
                        ),
                        Some(_) => (
                            match is_route {
                                true => "a route without `upstream`".to_owned(),
                                false => "an outbound listener without `upstream`".to_owned(),
                            },
                            format!("add {peer}{expected}"),
                        ),
                    };
                    let value = self.keys.value(at);
                    let problem = Diagnostic::new(codes::LISTENER_TARGET, title, value)
                        .label("nothing is behind it")
                        .help(help);
                    self.report(problem);
                }
                None
            }
        }
    }
}

fn host(text: &str) -> Result<HostPattern, Problem> {
    text.parse().map_err(|_| {
        Problem::new(
            codes::BAD_ROUTE,
            "is not a host",
            "expected a host without port",
        )
        .help("write it like \"a.example.org\", or \"*.example.org\" for all hosts below it")
    })
}

fn method(text: &str) -> Result<Method, Problem> {
    let has_lower_case = text.contains(|letter: char| letter.is_ascii_lowercase());
    let method = Method::from_bytes(text.as_bytes()).ok();
    method.filter(|_| !has_lower_case).ok_or_else(|| {
        let problem = Problem::new(codes::BAD_ROUTE, "is not a method", "not a method of HTTP");
        match has_lower_case {
            true => problem.help(format!("write \"{}\"", text.to_ascii_uppercase())),
            false => problem,
        }
    })
}

/// A path that a normalized request can have.
fn path(text: &str, paths: Option<PathRules>) -> Result<String, Problem> {
    let refused = |label: String| Problem::new(codes::BAD_ROUTE, "is not a path", label);
    if !text.starts_with('/') {
        return Err(refused("must begin with `/`".to_owned()));
    }
    match paths.and_then(|paths| paths.ambiguity(text)) {
        Some(problem) => Err(refused(format!("no request gets here: {problem}"))),
        None => match text.contains(['?', '#']).not() {
            true => Ok(text.to_owned()),
            false => Err(refused("must end before the query".to_owned())),
        },
    }
}

fn header_name(text: &str) -> Result<HeaderName, Problem> {
    let refused = || {
        Problem::new(
            codes::BAD_ROUTE,
            "is not a header",
            "not the name of a header",
        )
    };
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| refused())
}

fn header_value(text: &str) -> Result<HeaderValue, Problem> {
    let refused = || {
        Problem::new(
            codes::BAD_ROUTE,
            "is not a header",
            "not the value of a header",
        )
    };
    HeaderValue::from_str(text).map_err(|_| refused())
}
