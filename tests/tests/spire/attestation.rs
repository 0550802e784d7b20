//! How the agent gets to be one, and stays one.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use sidegate_tests::Sidegate;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::gate::{
    DEMO, GREETER, Machine, Possession, component, context, eventually, given, is_up,
};
use super::played::Played;
use super::server::{Entry, Options, SpireServer, id};
use crate::sources::shown;
use crate::support::{address, listen, own_uid, write};
use crate::workload_api::{serial, spiffe_id};

static RSA: LazyLock<Possession> = LazyLock::new(|| Possession::new(&PKCS_RSA_SHA256));
static ECDSA: LazyLock<Possession> = LazyLock::new(|| Possession::new(&PKCS_ECDSA_P256_SHA256));

scenarios! {
    a_join_token_serves_once(Options::default());
    an_agent_has_the_entries_of_its_other_names(Options::default());
    a_certificate_with_an_rsa_key_attests(attestors(&RSA));
    a_certificate_with_an_ecdsa_key_attests(attestors(&ECDSA));
    a_restart_keeps_the_agent(Options::default());
    the_first_bundle_may_come_in_several_ways(Options::default());
    a_server_that_the_bundle_does_not_know_is_refused(Options::default());
}

fn attestors(possession: &Possession) -> Options {
    Options {
        attestors: Some(possession.authority.clone()),
        ..Options::default()
    }
}

async fn a_join_token_serves_once<S: SpireServer>(server: S) {
    let machine = Machine::joining(&server);
    machine.register(&server);
    let gate = machine.run();
    assert_eq!(gate.ready.listeners[0].spiffe_id, id(GREETER));
    assert_eq!(server.agents(), [machine.agent.as_str()]);
    is_up(&gate);
    for name in ["spire_agent.json", "spire_bundle.json"] {
        let kept = std::fs::metadata(machine.state().join(name)).expect("it is kept");
        assert_eq!(kept.permissions().mode() & 0o777, 0o600, "{name}");
    }

    let client = machine.client(&gate).await;
    assert_eq!(spiffe_id(&client.identity.chain[0]), id(DEMO));
    let answer = client.get("/hello").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains(&id(DEMO)), "{answer:?}");
    // What vouches for both sides is the server's bundle, all of it and nothing else.
    let context = context(&gate).await;
    let bundles = context.bundle_set();
    assert_eq!(bundles.len(), 1);
    let svid = context.default_svid().expect("an SVID");
    let bundle = bundles
        .get(svid.spiffe_id().trust_domain())
        .expect("its own");
    let roots = bundle
        .authorities()
        .iter()
        .map(|root| serial(root.as_bytes()));
    let theirs = pem::parse_many(server.bundle_pem()).expect("it is PEM");
    let theirs = theirs.iter().map(|root| serial(root.contents()));
    assert_eq!(Vec::from_iter(roots), Vec::from_iter(theirs));

    let thief = Machine::joining_as(&server, machine.agent.rsplit('/').next().unwrap());
    let output = thief.is_refused(&["error[SG", "already been used"]);
    let token = machine.agent.rsplit('/').next().unwrap();
    assert!(!output.stderr.contains(token), "{}", output.stderr);
}

async fn an_agent_has_the_entries_of_its_other_names<S: SpireServer>(server: S) {
    let machine = Machine::joining_as(&server, &server.join_token(Some(&id("/machines"))));
    let entry = |path, selector: &str| Entry::new(&id("/machines"), path, &[selector]);
    server.create(&entry(GREETER, &component()));
    server.create(&entry(DEMO, &own_uid()));
    let gate = machine.run();
    assert_eq!(machine.client(&gate).await.get("/hello").await.status, 200);
    // The name itself is nobody's.
    assert_eq!(given(&gate).await, [id(DEMO)]);
}

async fn a_certificate_with_an_rsa_key_attests<S: SpireServer>(server: S) {
    attests(&server, &RSA).await;
}

async fn a_certificate_with_an_ecdsa_key_attests<S: SpireServer>(server: S) {
    attests(&server, &ECDSA).await;
}

async fn attests(server: &impl SpireServer, possession: &Possession) {
    let machine = Machine::possessing(server, possession);
    machine.register(server);
    let gate = machine.run();
    assert_eq!(server.agents(), [machine.agent.as_str()]);
    assert_eq!(machine.client(&gate).await.get("/hello").await.status, 200);
    gate.stop();
    // It may come back with nothing kept.
    std::fs::remove_dir_all(machine.state()).expect("it was kept");
    let gate = machine.run();
    assert_eq!(machine.client(&gate).await.get("/hello").await.status, 200);
    // Others with a certificate of their own making may not.
    let other = Possession::new(&PKCS_ECDSA_P256_SHA256);
    Machine::possessing(server, &other).is_refused(&["error[SG", "x509pop"]);
}

async fn a_restart_keeps_the_agent<S: SpireServer>(server: S) {
    let machine = Machine::joining(&server);
    machine.register(&server);
    let gate = machine.run();
    let before = machine.client(&gate).await;
    gate.stop();
    // With a token that is used, nobody attests again.
    let gate = machine.run();
    let after = machine.client(&gate).await;
    assert_eq!(after.get("/hello").await.status, 200);
    let before = before.at(address(&gate));
    assert_eq!(before.get("/hello").await.status, 200);
    assert_eq!(server.agents(), [machine.agent.as_str()]);
    drop(gate);
    // Nor after a kill.
    let gate = machine.run();
    assert_eq!(machine.client(&gate).await.get("/hello").await.status, 200);
}

async fn the_first_bundle_may_come_in_several_ways<S: SpireServer>(server: S) {
    let file = |machine: &Machine| {
        let path = write(machine.folder.path(), "bundle.json", server.bundle_json());
        format!("trust_bundle = {path:?}")
    };
    let machine = Machine::joining(&server);
    let line = file(&machine);
    serves(&server, machine.with("trust_bundle", &line)).await;

    for text in [server.bundle_pem(), server.bundle_json()] {
        let url = listen(move |stream| say(TokioIo::new(stream), text.clone())).await;
        let line = format!("trust_bundle_url = \"{url}/bundle\"");
        let machine = Machine::joining(&server).with("trust_bundle", &line);
        serves(&server, machine).await;
    }

    let web = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("it is made");
    let chain = vec![web.cert.der().clone()];
    let key = PrivateKeyDer::Pkcs8(web.signing_key.serialize_der().into());
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(chain, key).expect("the key fits");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let text = server.bundle_pem();
    let url = listen(move |stream| {
        let (acceptor, text) = (acceptor.clone(), text.clone());
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                say(TokioIo::new(stream), text).await;
            }
        }
    })
    .await;
    let port = url.rsplit(':').next().expect("it has one");
    let machine = Machine::joining(&server);
    let path = write(machine.folder.path(), "web.pem", web.cert.pem());
    let url = format!("trust_bundle_url = \"https://localhost:{port}/bundle\"");
    let line = format!("{url}\ntrust_bundle_ca = {path:?}");
    serves(&server, machine.with("trust_bundle", &line)).await;
    // Another web server's word does not count.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("it is made");
    let machine = Machine::joining(&server);
    let path = write(machine.folder.path(), "web.pem", other.cert.pem());
    let line = format!("{url}\ntrust_bundle_ca = {path:?}");
    machine
        .with("trust_bundle", &line)
        .is_refused(&["error[SG"]);

    let line = "insecure_bootstrap = true";
    let machine = Machine::joining(&server).with("trust_bundle", line);
    let gate = serves(&server, machine).await;
    let log = gate.process.stderr();
    assert!(log.contains("nothing verifies the SPIRE server"), "{log}");
}

/// Answers every request with this.
async fn say<S>(stream: TokioIo<S>, text: String)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |_| {
        let response = Response::new(Full::new(Bytes::from(text.clone())));
        async { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new().serve_connection(stream, service);
    served.await.ok();
}

async fn serves(server: &impl SpireServer, machine: Machine) -> Sidegate {
    machine.register(server);
    let gate = machine.run();
    assert_eq!(machine.client(&gate).await.get("/hello").await.status, 200);
    gate
}

async fn a_server_that_the_bundle_does_not_know_is_refused<S: SpireServer>(server: S) {
    let other = Played::start("", &Options::default()).expect("it needs nothing");
    let machine = Machine::joining(&server);
    machine.register(&server);
    write(machine.folder.path(), "bundle.pem", other.bundle_pem());
    machine.is_refused(&["error[SG"]);
    assert!(server.agents().is_empty());
    // Nothing was used up by it.
    write(machine.folder.path(), "bundle.pem", server.bundle_pem());
    let gate = machine.run();
    eventually("an identity", async || {
        shown(&machine.client(&gate).await).await
    })
    .await;
}
