//! `[[egress]]`, and who an upstream in the mesh must be.

use sidegate_identity::tls::Expected;
use sidegate_proxy::Protocol;
use sidegate_proxy::upstream::AddressCheck;

use super::{BodyLimits, Diagnostic, Key, Listener, Lowering, codes, values};
use crate::config::model::{Forwarding, Listen, ListenerTls, Outbound, PathRules};
use crate::config::raw::RawEgress;
use crate::config::upstream::{InMesh, Written};

/// What stands behind a listener or a route, as it is written.
#[derive(Default)]
pub(super) struct RawTarget {
    pub(super) component: Option<String>,
    pub(super) upstream: Option<String>,
    pub(super) expected_spiffe_ids: Option<Vec<String>>,
    pub(super) expected_trust_domain: Option<String>,
    pub(super) behind: Behind,
}

/// What stands in front of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Behind {
    /// Of an outbound listener, what the app speaks.
    pub(super) outbound: Option<Protocol>,
    /// Whether there is anything to show to a peer in the mesh.
    pub(super) has_identity: bool,
}

impl Lowering<'_> {
    /// An outbound listener: one for a local app's own requests.
    pub(super) fn egress(&mut self, at: &Key, raw: RawEgress) -> Option<Listener> {
        let name = self.required(raw.name, at.child("name"), values::name);
        let listen = self
            .required(raw.listen, at.child("listen"), values::loopback)
            .map(Listen::Address);
        let spiffe_id = match self.is_off {
            true => Some(None),
            false => {
                let key = at.child("spiffe_id");
                let required = self.required(raw.spiffe_id, key, values::spiffe_id);
                required.map(Some)
            }
        };
        let protocol = self.optional(
            raw.protocol,
            at.child("protocol"),
            values::outbound_protocol,
        );
        let protocol = protocol.unwrap_or_default();
        if protocol == Protocol::Tcp && !raw.route.is_empty() {
            let key = at.child("route").item(0);
            let title = "a route for what is not HTTP";
            let problem = Diagnostic::new(codes::EGRESS, title, self.keys.value(&key))
                .label("nothing is known of such connections to choose one by")
                .related(self.keys.value(&at.child("protocol")), "plain TCP")
                .help("write `upstream` beside `protocol`, or another [[egress]]");
            self.report(problem);
        }
        let behind = Behind {
            outbound: Some(protocol),
            has_identity: !self.is_off,
        };
        let routes = self.routes(at, raw.route, Some(PathRules::default()), behind);
        let is_optional = !routes.is_empty() || self.is_faulty(&at.child("route"));
        let target = RawTarget {
            component: None,
            upstream: raw.upstream,
            expected_spiffe_ids: raw.expected_spiffe_ids,
            expected_trust_domain: raw.expected_trust_domain,
            behind,
        };
        let target = self.target(at, target, is_optional);
        let allowed_addresses = raw.allowed_addresses.map(|networks| {
            let key = at.child("allowed_addresses");
            self.list(&key, &networks, values::network)
        });
        let timeouts = self.timeouts(&at.child("timeouts"), raw.timeouts.unwrap_or_default().0);
        let has_own_cap = raw
            .limits
            .as_ref()
            .is_some_and(|raw| raw.0.max_connections.is_some());
        let limits = self.limits(at, raw.limits, raw.http2);
        let context_extensions = self.context_extensions(
            &at.child("context_extensions"),
            raw.context_extensions.unwrap_or_default().0,
        );
        Some(Listener {
            name: name?,
            listen: listen?,
            target: target?,
            routes,
            spiffe_id: spiffe_id?,
            tls: match self.is_off {
                true => ListenerTls::Off,
                false => ListenerTls::default(),
            },
            protocol,
            sni: Vec::new(),
            paths: PathRules::default(),
            forwarding: Forwarding::default(),
            timeouts,
            body_limits: BodyLimits::default(),
            limits,
            has_own_cap,
            context_extensions,
            outbound: Some(Outbound {
                addresses: allowed_addresses.map_or(AddressCheck::Ordinary, AddressCheck::Within),
            }),
        })
    }

    /// Who a server must be. Said of one that shows no identity, and not said of one that does, is a
    /// problem. `None` where one was reported, or where nothing is to be said.
    pub(super) fn expected(
        &mut self,
        at: &Key,
        server: Option<&Written>,
        ids: Option<Vec<String>>,
        trust_domain: Option<String>,
    ) -> Option<Expected> {
        let (ids_key, domain_key) = (
            at.child("expected_spiffe_ids"),
            at.child("expected_trust_domain"),
        );
        let upstream_key = at.child("upstream");
        if !matches!(server, Some(Written::InMesh(_))) {
            let written = [
                (ids.is_some(), &ids_key),
                (trust_domain.is_some(), &domain_key),
            ];
            for (_, key) in written.into_iter().filter(|(is_written, _)| *is_written) {
                // What the upstream is may be reported already.
                if self.is_faulty(&upstream_key)
                    || server.is_none() && self.keys.contains(&upstream_key)
                {
                    continue;
                }
                let title = format!("`{key}` of what shows no SPIFFE ID");
                let problem = Diagnostic::new(codes::EXPECTED, title, self.keys.value(key))
                    .label("only a server that is reached by mutual TLS shows one")
                    .help("write the upstream as \"https://host:port\", or remove this");
                self.report(problem);
            }
            return None;
        }
        let count = ids.as_ref().map_or(0, Vec::len);
        let parsed = self.list(&ids_key, &ids.unwrap_or_default(), values::spiffe_id);
        let is_faulty =
            parsed.len() < count || self.is_faulty(&ids_key) || self.is_faulty(&domain_key);
        let has_domain = trust_domain.is_some();
        let trust_domain = self.optional(trust_domain, domain_key.clone(), values::trust_domain);
        if is_faulty || has_domain && trust_domain.is_none() {
            return None;
        }
        if let Some(domain) = &trust_domain {
            let foreign = parsed.iter().position(|id| !id.is_member_of(domain));
            if let Some(index) = foreign {
                let title = format!("`{ids_key}` names an ID of another trust domain");
                let value = self.keys.value(&ids_key.item(index));
                let problem = Diagnostic::new(codes::EXPECTED, title, value)
                    .label("no server is this one and of the trust domain")
                    .related(self.keys.value(&domain_key), "the trust domain")
                    .help("both must hold: remove one of them");
                self.report(problem);
                return None;
            }
        }
        let expected = Expected::new(parsed, trust_domain);
        if expected.is_none() {
            let title = "an upstream in the mesh that may be anybody";
            let problem = Diagnostic::new(codes::EXPECTED, title, self.keys.value(&upstream_key))
                .label("who must the server be?")
                .help(
                    "add `expected_spiffe_ids = [\"spiffe://…\"]`, or `expected_trust_domain = \"…\"`",
                );
            self.report(problem);
        }
        expected
    }

    /// Whether a server can stand where it is written.
    pub(super) fn fits(&mut self, key: &Key, server: &Written, behind: Behind) -> bool {
        let Behind {
            outbound,
            has_identity,
        } = behind;
        let takes_bytes = outbound.map(|protocol| protocol == Protocol::Tcp);
        let label = match (takes_bytes, server) {
            (_, Written::InMesh(_)) if !has_identity => {
                self.nothing_to_show(key);
                return false;
            }
            (Some(takes_bytes), Written::Plain(server)) if !has_identity => {
                match (server.is_tcp() == takes_bytes, server.has_host()) {
                    (true, true) => return true,
                    (_, false) => "must name a host and port: what is dialled is decided",
                    (false, true) if takes_bytes => {
                        "must begin with `tcp://`, as `protocol` is \"tcp\""
                    }
                    (false, true) => "must begin with `http://` or `h2c://`",
                }
            }
            (None, Written::Plain(_))
            | (None | Some(false), Written::InMesh(InMesh { is_http: true, .. }))
            | (Some(true), Written::InMesh(InMesh { is_http: false, .. })) => return true,
            (None, _) => "is for [[egress]] with `protocol = \"tcp\"` only",
            (Some(false), _) => "must begin with `https://`",
            (Some(true), _) => "must begin with `tls://`, as `protocol` is \"tcp\"",
        };
        let title = format!("`{key}` is not an upstream for what is sent there");
        let problem = Diagnostic::new(codes::EGRESS, title, self.keys.value(key)).label(label);
        let help = match (outbound, has_identity) {
            (None, _) => "write \"https://host:port\" for HTTP by mutual TLS",
            (Some(_), true) => "what an app sends goes to peers in the mesh, by mutual TLS",
            (Some(_), false) => "without identities, what an app sends goes out in plaintext",
        };
        self.report(problem.help(help));
        false
    }
}
