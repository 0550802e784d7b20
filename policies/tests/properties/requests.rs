//! Requests by chance, of values that the policies name.

use std::fmt;
use std::time::SystemTime;

use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use sidegate_policy::{ConnectionFacts, ConnectionParameters, RequestFacts};

/// A request and its connection. What is not here is the same for all.
#[derive(Clone)]
pub(crate) struct Asked {
    principal: Option<&'static str>,
    server_name: Option<&'static str>,
    listener: &'static str,
    method: &'static str,
    segments: Vec<&'static str>,
    query: Vec<(&'static str, &'static str)>,
    role: Option<&'static str>,
    authorization: Option<&'static str>,
    host: &'static str,
    size: Option<u64>,
}

/// A request.
pub(crate) fn asked() -> impl Strategy<Value = Asked> {
    let segment = select(vec!["a", "b", "admin", "1", "", "A", "public"]);
    let value = select(vec!["a", "b", "1", ""]);
    let connection = (
        option::weighted(
            0.8,
            select(vec![
                "spiffe://x.test/a",
                "spiffe://x.test/b",
                "spiffe://y.test/a",
            ]),
        ),
        option::weighted(0.5, select(vec!["a", "b"])),
        select(vec!["public", ""]),
    );
    let head = (
        select(vec!["GET", "POST", "DELETE", "get"]),
        proptest::collection::vec(segment, 0..4),
        proptest::collection::vec((select(vec!["a", "b", "k"]), value.clone()), 0..3),
        option::weighted(0.6, select(vec!["a", "b", "admin", "GET", "1"])),
        option::weighted(0.4, select(vec!["Bearer a", "a"])),
        select(vec!["a", "b.test", ""]),
        option::of(0_u64..3),
    );
    (connection, head).prop_map(|(connection, head)| {
        let (principal, server_name, listener) = connection;
        let (method, segments, query, role, authorization, host, size) = head;
        Asked {
            principal,
            server_name,
            listener,
            method,
            segments,
            query,
            role,
            authorization,
            host,
            size,
        }
    })
}

/// Requests that each differ from the one before in few parts, and come again.
pub(crate) fn sequence() -> impl Strategy<Value = Vec<Asked>> {
    let changes = proptest::collection::vec((0..8_usize, asked()), 1..12);
    (asked(), changes).prop_map(|(first, changes)| {
        let mut sequence = vec![first];
        for (part, other) in changes {
            let mut next = sequence.last().unwrap().clone();
            match part {
                0 => next.principal = other.principal,
                1 => next.method = other.method,
                2 => next.segments = other.segments,
                3 => next.query = other.query,
                4 => next.role = other.role,
                5 => next.listener = other.listener,
                6 => next.host = other.host,
                _ => next.authorization = other.authorization,
            }
            sequence.push(next);
        }
        let again = sequence.clone();
        sequence.into_iter().chain(again).collect()
    })
}

impl Asked {
    pub(crate) fn connection(&self) -> ConnectionFacts {
        ConnectionFacts::new(ConnectionParameters {
            downstream_address: "192.0.2.7:40001".parse().unwrap(),
            local_address: "192.0.2.1:8443".parse().unwrap(),
            source_principal: self.principal.map(str::to_owned),
            source_certificate: None,
            destination_principal: Some("spiffe://x.test/a".to_owned()),
            server_name: self.server_name.map(str::to_owned),
            context_extensions: std::collections::BTreeMap::new(),
            listener: self.listener.to_owned(),
        })
    }

    pub(crate) fn request(&self) -> RequestFacts {
        let mut builder = http::Request::builder()
            .method(self.method)
            .uri(self.target());
        if let Some(role) = self.role {
            builder = builder.header("x-role", role);
        }
        if let Some(authorization) = self.authorization {
            builder = builder.header("authorization", authorization);
        }
        let (head, ()) = builder.body(()).unwrap().into_parts();
        RequestFacts {
            head,
            scheme: "https".into(),
            host: self.host.to_owned(),
            request_id: "1".to_owned(),
            time: SystemTime::UNIX_EPOCH,
            declared_body_bytes: self.size,
            body: sidegate_policy::RequestBody::default(),
        }
    }

    fn target(&self) -> String {
        let path = format!("/{}", self.segments.join("/"));
        let pairs: Vec<String> = self
            .query
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        match pairs.is_empty() {
            true => path,
            false => format!("{path}?{}", pairs.join("&")),
        }
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            principal,
            server_name,
            listener,
            method,
            role,
            authorization,
            host,
            size,
            ..
        } = self;
        write!(
            formatter,
            "{method} {} (from {principal:?}, listener {listener:?}, sni {server_name:?}, x-role {role:?}, authorization {authorization:?}, host {host:?}, size {size:?})",
            self.target()
        )
    }
}
