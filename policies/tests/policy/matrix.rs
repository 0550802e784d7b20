//! The golden authorization matrix: what the stock policy answers whom.
//!
//! Every row is asked through the same API as in service. What changes is
//! written beside the file, to be reviewed and put in its place.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Method, Request};
use sidegate_policy::{
    AdmitFacts, ConnectionFacts, ConnectionParameters, DecisionPoint, EgressRequest, Evaluator,
    Policy, PolicyOptions, PolicySources, Workload,
};

use crate::common::{connection_parameters, metrics, request};

const OURS: &str = "spiffe://sidegate.local/orders";

/// Who asks, by the name in the matrix.
const ACTORS: [(&str, Option<&str>); 7] = [
    ("itself", Some(OURS)),
    ("neighbour", Some("spiffe://sidegate.local/frontend")),
    ("named admin", Some("spiffe://sidegate.local/admin")),
    ("foreign", Some("spiffe://example.org/frontend")),
    ("look-alike", Some("spiffe://sidegate.local.evil/orders")),
    ("no SPIFFE ID", Some("CN=orders")),
    ("anonymous", None),
];

const METHODS: [Method; 3] = [Method::GET, Method::POST, Method::DELETE];

const PATHS: [&str; 8] = [
    "/",
    "/orders/7",
    "/v1/admin",
    "/admin",
    "/admin/users",
    "/ADMIN",
    "/%61dmin",
    "/orders/..",
];

/// Where a workload's request goes: host, and the SPIFFE ID of a peer in the
/// mesh.
const DESTINATIONS: [(&str, Option<&str>); 5] = [
    ("orders", Some(OURS)),
    ("partner", Some("spiffe://example.org/partner")),
    ("look-alike", Some("spiffe://sidegate.local.evil/orders")),
    ("api.example", None),
    ("169.254.169.254", None),
];

const IDENTITIES: [(&str, Option<&str>); 5] = [
    ("none", None),
    ("workload", Some("spiffe://sidegate.local/hello")),
    ("trust domain", Some("spiffe://sidegate.local")),
    ("authority", Some("spiffe://sidegate.local/spire/server")),
    ("no SPIFFE ID", Some("hello")),
];

const CAPABILITIES: [&[&str]; 3] = [&[], &["egress"], &["egress", "credentials"]];

fn evaluator(point: DecisionPoint) -> Evaluator {
    let options = PolicyOptions {
        entrypoint: point.entrypoint().to_owned(),
        decision_timeout: Duration::from_secs(30),
        ..PolicyOptions::default()
    };
    let policy = Policy::load(PolicySources::stock().unwrap(), &options).unwrap();
    policy.evaluator(&metrics()).unwrap()
}

fn connection(actor: Option<&str>) -> ConnectionFacts {
    ConnectionFacts::new(ConnectionParameters {
        source_principal: actor.map(str::to_owned),
        destination_principal: Some(OURS.to_owned()),
        ..connection_parameters()
    })
}

/// A matrix in the making.
struct Matrix(String);

impl Matrix {
    fn heading(&mut self, point: DecisionPoint, columns: [&str; 3]) {
        let [actor, action, resource] = columns;
        let name = point.name();
        writeln!(self.0, "\n# {name}: {}", point.entrypoint()).unwrap();
        writeln!(self.0, "# {actor:<14} {action:<20} {resource:<20} answer").unwrap();
    }

    fn row(&mut self, actor: &str, action: &str, resource: &str, allowed: bool) {
        let answer = if allowed { "allow" } else { "deny" };
        writeln!(self.0, "{actor:<16} {action:<20} {resource:<20} {answer}").unwrap();
    }
}

fn matrix() -> String {
    let mut matrix = Matrix(
        "# What the stock policy answers, for the service spiffe://sidegate.local/orders.\n"
            .to_owned(),
    );

    matrix.heading(DecisionPoint::Ingress, ["caller", "method", "path"]);
    let mut ingress = evaluator(DecisionPoint::Ingress);
    for (name, actor) in ACTORS {
        for method in METHODS {
            for path in PATHS {
                let request = request(Request::builder().method(&method).uri(path));
                let allowed = ingress.decide(&connection(actor), request).is_ok();
                matrix.row(name, method.as_str(), path, allowed);
            }
        }
    }

    matrix.heading(DecisionPoint::Connect, ["peer", "action", "listener"]);
    // The document of `connect` is a part of the one of `ingress`.
    let mut connect = evaluator(DecisionPoint::Connect);
    for (name, actor) in ACTORS {
        let allowed = connect.decide(&connection(actor), request(Request::get("/")));
        matrix.row(name, "connect", "public", allowed.is_ok());
    }

    matrix.heading(DecisionPoint::Egress, ["workload", "method", "destination"]);
    let mut egress = evaluator(DecisionPoint::Egress);
    for (name, actor) in ACTORS {
        let workload = Arc::new(Workload {
            principal: actor.map(str::to_owned),
            selectors: Vec::new(),
        });
        for (host, peer) in DESTINATIONS {
            let request = EgressRequest {
                head: request(Request::get("/")).head,
                scheme: "https".to_owned(),
                host: host.to_owned(),
                address: None,
                principal: peer.map(str::to_owned),
                time: SystemTime::UNIX_EPOCH,
            };
            let connection = connection(actor);
            let allowed = egress.egress(&connection, &workload, request).is_ok();
            matrix.row(name, "GET", host, allowed);
        }
    }

    matrix.heading(DecisionPoint::Admit, ["identity", "capabilities", "digest"]);
    let mut admit = evaluator(DecisionPoint::Admit);
    let digests = [
        ("a digest", format!("sha256:{}", "0a".repeat(32))),
        ("none", String::new()),
    ];
    for (name, identity) in IDENTITIES {
        for capabilities in CAPABILITIES {
            for (digest_name, digest) in &digests {
                let component = AdmitFacts {
                    digest: digest.clone(),
                    signer: None,
                    repository: None,
                    namespace: "default".to_owned(),
                    name: "hello".to_owned(),
                    requested_identity: identity.map(str::to_owned),
                    capabilities: capabilities.iter().map(ToString::to_string).collect(),
                };
                let wanted = match capabilities {
                    [] => "none".to_owned(),
                    some => some.join(" "),
                };
                let allowed = admit.admit(&component).is_ok();
                matrix.row(name, &wanted, digest_name, allowed);
            }
        }
    }
    matrix.0
}

#[test]
fn the_stock_policy_answers_as_the_golden_matrix_says() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("rego/matrix.golden");
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    let found = matrix();
    let new = golden.with_extension("golden.new");
    if found == expected {
        let _ = std::fs::remove_file(&new);
        return;
    }
    std::fs::write(&new, &found).unwrap();
    let rows = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (expected, found) = (rows(&expected), rows(&found));
    let gone = expected.iter().filter(|row| !found.contains(row));
    let added = found.iter().filter(|row| !expected.contains(row));
    let changed: Vec<String> = gone
        .map(|row| format!("- {row}"))
        .chain(added.map(|row| format!("+ {row}")))
        .collect();
    panic!(
        "{} says otherwise; what is answered now is in {}\n{}",
        golden.display(),
        new.display(),
        changed.join("\n")
    );
}
