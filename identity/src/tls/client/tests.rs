use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rustls::NamedGroup;

use super::*;
use crate::authority::{EmbeddedAuthority, Lifetimes};
use crate::entry::{Entry, EntryRequest};
use crate::svid::Issued;
use crate::tls::{ServerTls, TlsMode};

/// One side of a connection: an authority, and identities that come from it.
struct Side {
    trust_domain: TrustDomain,
    authority: EmbeddedAuthority,
    presented: Presented,
    entry: Arc<Entry>,
    /// Foreign bundles.
    foreign: BTreeMap<TrustDomain, Arc<X509Bundle>>,
    identities: watch::Sender<Arc<Identities>>,
    _folder: tempfile::TempDir,
}

impl Side {
    /// An entry that federates with `one.test` and `two.test`.
    fn new(trust_domain: &str, name: &str) -> Self {
        let trust_domain = TrustDomain::new(trust_domain).unwrap();
        let all = ["one.test", "two.test"].into_iter();
        let others = all.filter(|it| *it != trust_domain.as_str());
        let request = EntryRequest {
            spiffe_id: format!("{}/{name}", trust_domain.id_string()),
            selectors: vec![format!("listener:name:{name}")],
            federates_with: others.map(ToOwned::to_owned).collect(),
            ..EntryRequest::default()
        };
        let entry = Arc::new(Entry::new(request, &trust_domain).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let lifetimes = Lifetimes {
            root: Duration::from_secs(24 * 3600),
            svid: Duration::from_secs(3600),
        };
        let path = folder.path().join("authority.pem");
        let authority = EmbeddedAuthority::open(path, trust_domain.clone(), lifetimes, now());
        let empty = Identities::new(0, trust_domain.clone(), vec![], [].into(), [].into());
        let side = Self {
            authority: authority.unwrap(),
            presented: Presented {
                spiffe_id: entry.spiffe_id().clone(),
                selectors: entry.selectors().into(),
            },
            entry,
            foreign: BTreeMap::new(),
            identities: watch::Sender::new(Arc::new(empty)),
            _folder: folder,
            trust_domain,
        };
        side.renew();
        side
    }

    fn bundle(&self) -> Arc<X509Bundle> {
        let roots = self.authority.bundle().unwrap();
        Arc::new(roots)
    }

    fn trusts(&mut self, other: &Self) {
        self.foreign
            .insert(other.trust_domain.clone(), other.bundle());
        self.renew();
    }

    /// A generation with a new SVID.
    fn renew(&self) {
        let svid = Arc::new(self.authority.mint(&self.entry, now()).unwrap());
        let entry = Arc::clone(&self.entry);
        self.publish(vec![Issued { entry, svid }]);
    }

    fn publish(&self, issued: Vec<Issued>) {
        let mut bundles = self.foreign.clone();
        bundles.insert(self.trust_domain.clone(), self.bundle());
        let trust_domain = self.trust_domain.clone();
        let identities = Identities::new(1, trust_domain, issued, bundles, [].into());
        self.identities.send_replace(Arc::new(identities));
    }

    fn client(&self, expected: Expected) -> ClientTls {
        ClientTls::new(
            self.presented.clone(),
            expected,
            self.identities.subscribe(),
        )
        .unwrap()
    }

    fn server(&self) -> ServerTls {
        ServerTls::new(
            self.presented.clone(),
            self.identities.subscribe(),
            TlsMode::Mutual,
            &["h2", "http/1.1"],
        )
        .unwrap()
    }
}

/// The verifiers look at the real time.
fn now() -> SystemTime {
    use crate::clock::{Clock, SystemClock};
    SystemClock.now()
}

fn ids(ids: &[&str]) -> Vec<SpiffeId> {
    ids.iter().map(|id| SpiffeId::new(*id).unwrap()).collect()
}

fn one_of(expected: &[&str]) -> Expected {
    Expected::new(ids(expected), None).unwrap()
}

fn member_of(trust_domain: &str) -> Expected {
    Expected::new(vec![], Some(TrustDomain::new(trust_domain).unwrap())).unwrap()
}

/// A handshake between the two, and which name the server was asked for.
async fn connect(
    client: &ClientTls,
    server: &ServerTls,
    host: &str,
    protocols: &[&str],
) -> Result<(Secured<tokio::io::DuplexStream>, Option<String>), ClientTlsError> {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let acceptor = server.acceptor().clone();
    let accepted = tokio::spawn(async move {
        let stream = acceptor.accept(theirs).await.ok()?;
        let connection = stream.get_ref().1;
        let peer = ServerTls::peer(connection).unwrap().unwrap();
        let group = connection.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, NamedGroup::X25519MLKEM768);
        assert!(peer.spiffe_id.path().starts_with("/client"));
        Some(connection.server_name().map(ToOwned::to_owned))
    });
    let secured = client.connect(host, protocols, ours, now()).await?;
    Ok((secured, accepted.await.unwrap().unwrap()))
}

#[tokio::test]
async fn a_server_is_known_by_its_spiffe_id_and_not_by_its_name() {
    let mut client = Side::new("one.test", "client");
    let mut server = Side::new("two.test", "server");
    client.trusts(&server);
    server.trusts(&client);
    let server = server.server();
    for (expected, is_right) in [
        (one_of(&["spiffe://two.test/server"]), true),
        (
            one_of(&["spiffe://two.test/other", "spiffe://two.test/server"]),
            true,
        ),
        (one_of(&["spiffe://two.test/other"]), false),
        (one_of(&["spiffe://one.test/server"]), false),
        (member_of("two.test"), true),
        (member_of("one.test"), false),
    ] {
        let told = expected.to_string();
        let client = client.client(expected);
        let outcome = connect(&client, &server, "any.name.test", &["h2"]).await;
        match outcome {
            Ok((secured, name)) => {
                assert!(is_right, "{told}");
                assert_eq!(name.as_deref(), Some("any.name.test"));
                let found = &secured.grounds.server.spiffe_id;
                assert_eq!(found.to_string(), "spiffe://two.test/server");
                let protocol = secured.stream.get_ref().1.alpn_protocol();
                assert_eq!(protocol, Some(&b"h2"[..]));
            }
            Err(error) => {
                assert!(!is_right, "{told}: {error}");
                assert_eq!(error.code(), "SG0186");
                let text = error.to_string();
                let both = [told.as_str(), "`spiffe://two.test/server`"];
                assert!(both.iter().all(|part| text.contains(part)), "{text}");
            }
        }
    }
}

#[tokio::test]
async fn an_ip_address_is_no_server_name() {
    let client = Side::new("one.test", "client");
    let client_tls = client.client(member_of("one.test"));
    let server = client.server();
    for host in ["127.0.0.1", "[::1]"] {
        let (secured, name) = connect(&client_tls, &server, host, &[]).await.unwrap();
        assert_eq!(name, None, "{host}");
        assert_eq!(secured.stream.get_ref().1.alpn_protocol(), None);
    }
}

#[tokio::test]
async fn a_trust_domain_that_the_clients_entry_has_no_bundle_of_is_refused() {
    let client = Side::new("one.test", "client");
    let mut server = Side::new("two.test", "server");
    server.trusts(&client);
    let client = client.client(member_of("two.test"));
    let refused = connect(&client, &server.server(), "a.test", &[]).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), "SG0187");
    let text = refused.to_string();
    assert!(text.contains("no bundle for the trust domain"), "{text}");
}

#[tokio::test]
async fn what_does_not_speak_tls_is_told_apart() {
    use tokio::io::AsyncWriteExt;
    let client = Side::new("one.test", "client");
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    theirs
        .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        .await
        .unwrap();
    let client = client.client(member_of("one.test"));
    let refused = client.connect("a.test", &[], ours, now()).await;
    assert_eq!(refused.unwrap_err().code(), "SG0188");
}

#[tokio::test]
async fn a_connection_lives_by_its_bundle_its_entry_and_its_svid() {
    let mut client = Side::new("one.test", "client");
    let mut server = Side::new("two.test", "server");
    client.trusts(&server);
    server.trusts(&client);
    let tls = client.client(member_of("two.test"));
    let (secured, _) = connect(&tls, &server.server(), "a.test", &[])
        .await
        .unwrap();
    let trust = || tls.trust(&secured.grounds, now());
    assert_eq!(trust(), Trust::Held);
    client.renew();
    assert_eq!(trust(), Trust::Ending, "there is a newer SVID to show");
    client.foreign.clear();
    client.renew();
    assert_eq!(trust(), Trust::Gone, "de-federated");
    client.trusts(&Side::new("two.test", "server"));
    assert_eq!(trust(), Trust::Gone, "its root is gone");
    client.trusts(&server);
    assert_eq!(trust(), Trust::Ending);
    client.publish(vec![]);
    assert_eq!(trust(), Trust::Gone, "the entry is gone");
    let (ours, _theirs) = tokio::io::duplex(1024);
    let refused = tls.connect("a.test", &[], ours, now()).await;
    assert_eq!(refused.unwrap_err().code(), "SG0185");
}

#[test]
fn what_is_known_of_a_server_beforehand_is_what_all_expected_ones_share() {
    let one = Some(TrustDomain::new("one.test").unwrap());
    for (expected, principal) in [
        (
            one_of(&["spiffe://one.test/a"]),
            Some("spiffe://one.test/a"),
        ),
        (member_of("one.test"), Some("spiffe://one.test")),
        (
            one_of(&["spiffe://one.test/a", "spiffe://one.test/b"]),
            Some("spiffe://one.test"),
        ),
        (
            one_of(&["spiffe://one.test/a", "spiffe://two.test/b"]),
            None,
        ),
        (
            Expected::new(ids(&["spiffe://one.test/a"]), one.clone()).unwrap(),
            Some("spiffe://one.test/a"),
        ),
    ] {
        assert_eq!(expected.principal().as_deref(), principal, "{expected}");
    }
    let both = Expected::new(ids(&["spiffe://two.test/a"]), one).unwrap();
    assert!(
        !both.allows(&ids(&["spiffe://two.test/a"])[0]),
        "all must hold"
    );
    assert_eq!(Expected::new(vec![], None), None);
}
