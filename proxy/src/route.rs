//! Routes: which upstream a request goes to, by its normalized head.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method};

use crate::metrics::ListenerMetrics;
use crate::upstream::Upstream;

/// One of a listener's routes. A request goes to the first that it matches.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name, for logs and metrics; no other route of the listener has it.
    pub name: Arc<str>,
    /// Which requests it is for.
    pub matches: RouteMatch,
    /// Where they go.
    pub upstream: Upstream,
    /// From a request's head to its response's head.
    pub request_timeout: Duration,
    /// What the policy is told of the route; it counts before what it is told of the listener.
    pub context_extensions: BTreeMap<String, String>,
}

/// Which requests a route is for: those for which all that is named here holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteMatch {
    /// One of these; any host if there is none.
    pub hosts: Vec<HostPattern>,
    /// Any path without it.
    pub path: Option<PathMatch>,
    /// One of these; any method if there is none.
    pub methods: Vec<Method>,
    /// All of these, with exactly this value. Of a header that is there several times, one.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// A host name, or with a wildcard all names below one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// This host, in lower case.
    Exact(String),
    /// Whatever ends with this: `.example.org`, in lower case. At least one label comes before.
    Below(String),
}

/// Paths without their query, byte by byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// This path.
    Exact(String),
    /// This path and all below it: `/a` is for `/a` and `/a/b`, but not for `/ab`.
    Prefix(String),
}

/// Text that is no host pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a host, nor a host below `*.`")]
pub struct BadHostPattern;

impl Route {
    /// The name of the route for whatever matches no other.
    pub const DEFAULT: &'static str = "default";

    /// A route for whatever matches no other.
    pub fn any(upstream: Upstream, request_timeout: Duration) -> Self {
        Self {
            name: Self::DEFAULT.into(),
            matches: RouteMatch::default(),
            upstream,
            request_timeout,
            context_extensions: BTreeMap::new(),
        }
    }

    /// The same for another worker, which shares no connections with this one.
    pub(crate) fn for_worker(&self, metrics: &Arc<ListenerMetrics>) -> Self {
        Self {
            upstream: self.upstream.for_worker(metrics),
            ..self.clone()
        }
    }
}

impl RouteMatch {
    /// Whether it is for every request.
    pub fn is_any(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it is for a request, whose head is normalized.
    pub(crate) fn is_for(&self, head: &Parts, authority: &Authority) -> bool {
        let mut hosts = self.hosts.iter();
        let path = self.path.as_ref();
        (self.methods.is_empty() || self.methods.contains(&head.method))
            && path.is_none_or(|path| path.is_for(head.uri.path()))
            && (self.hosts.is_empty() || hosts.any(|host| host.is_for(authority.host())))
            && self.headers.iter().all(|(name, value)| {
                let mut values = head.headers.get_all(name).iter();
                values.any(|found| found == value)
            })
    }
}

impl HostPattern {
    fn is_for(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name),
            Self::Below(suffix) => {
                let start = host.len().checked_sub(suffix.len());
                let end = start
                    .filter(|start| *start > 0)
                    .and_then(|start| host.get(start..));
                end.is_some_and(|end| end.eq_ignore_ascii_case(suffix))
            }
        }
    }
}

impl FromStr for HostPattern {
    type Err = BadHostPattern;

    fn from_str(text: &str) -> Result<Self, BadHostPattern> {
        let (name, is_wildcard) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let authority: Authority = name.parse().map_err(|_| BadHostPattern)?;
        let is_host = authority.host() == name && !name.contains('*') && !name.starts_with('.');
        if !is_host || is_wildcard && name.starts_with('[') {
            return Err(BadHostPattern);
        }
        let name = name.to_ascii_lowercase();
        Ok(match is_wildcard {
            true => Self::Below(format!(".{name}")),
            false => Self::Exact(name),
        })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => formatter.write_str(name),
            Self::Below(suffix) => write!(formatter, "*{suffix}"),
        }
    }
}

impl PathMatch {
    fn is_for(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => {
                let prefix = prefix.trim_end_matches('/');
                path.strip_prefix(prefix)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_for(matches: &RouteMatch, target: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = http::Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let head = request.body(()).unwrap().into_parts().0;
        let authority = head.uri.authority().cloned().unwrap();
        matches.is_for(&head, &authority)
    }

    #[test]
    fn paths_match_by_segments() {
        for (path, target, expected) in [
            (PathMatch::Exact("/a".into()), "/a", true),
            (PathMatch::Exact("/a".into()), "/a?x=1", true),
            (PathMatch::Exact("/a".into()), "/a/", false),
            (PathMatch::Prefix("/a".into()), "/a", true),
            (PathMatch::Prefix("/a".into()), "/a/b", true),
            (PathMatch::Prefix("/a/".into()), "/a/b", true),
            (PathMatch::Prefix("/a".into()), "/ab", false),
            (PathMatch::Prefix("/a".into()), "/A", false),
            (PathMatch::Prefix("/".into()), "/anything", true),
        ] {
            let matches = RouteMatch {
                path: Some(path.clone()),
                ..RouteMatch::default()
            };
            let found = is_for(&matches, &format!("http://h{target}"), &[]);
            assert_eq!(found, expected, "{path:?} {target}");
        }
    }

    #[test]
    fn hosts_match_without_port_and_case() {
        for (pattern, host, expected) in [
            ("a.test", "a.test:8443", true),
            ("a.test", "A.Test", true),
            ("a.test", "b.a.test", false),
            ("*.a.test", "b.a.test", true),
            ("*.A.test", "c.b.a.TEST:1", true),
            ("*.a.test", "a.test", false),
            ("*.a.test", "ba.test", false),
            ("[::1]", "[::1]:80", true),
        ] {
            let matches = RouteMatch {
                hosts: vec![pattern.parse().unwrap()],
                ..RouteMatch::default()
            };
            let found = is_for(&matches, &format!("http://{host}/"), &[]);
            assert_eq!(found, expected, "{pattern} {host}");
        }
        for bad in [
            "", "*", "*.", "a:80", "a/b", "u@a", "*.*.a", "a.*", ".a", "*.[::1]",
        ] {
            assert_eq!(bad.parse::<HostPattern>(), Err(BadHostPattern), "{bad}");
        }
    }

    #[test]
    fn all_that_is_named_must_hold() {
        let matches = RouteMatch {
            hosts: vec!["a.test".parse().unwrap(), "b.test".parse().unwrap()],
            path: Some(PathMatch::Prefix("/x".into())),
            methods: vec![Method::GET, Method::HEAD],
            headers: vec![(
                HeaderName::from_static("x-canary"),
                HeaderValue::from_static("1"),
            )],
        };
        let canary = [("x-canary", "0"), ("x-canary", "1")];
        assert!(is_for(&matches, "http://b.test/x/y", &canary));
        assert!(!is_for(&matches, "http://c.test/x/y", &canary));
        assert!(!is_for(&matches, "http://b.test/y", &canary));
        assert!(!is_for(&matches, "http://b.test/x", &[("x-canary", "0")]));
        let posts = RouteMatch {
            methods: vec![Method::POST],
            ..RouteMatch::default()
        };
        assert!(!is_for(&posts, "http://b.test/x", &[]));
        assert!(!posts.is_any() && RouteMatch::default().is_any());
    }
}
