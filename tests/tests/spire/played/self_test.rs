//! The played server by a plain client, so that what it does is known before anybody is judged by
//! it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::messages::{
    AgentParams, AttestParams, AttestRequest, AttestResponse, AttestationData, BatchRequest,
    BatchResponse, Bundle, Empty, EntryMask, JwtRequest, JwtResponse, PostStatusRequest,
    RenewRequest, RenewResponse, RpcStatus, SvidParams, SyncRequest, SyncResponse,
};
use super::{Fault, Forgery, Played};
use crate::jwt::token::Token;
use crate::spire::server::{Entry, Kind, Options, SpireServer, id, joined};
use crate::workload_api::{serial, spiffe_id};

const AGENT: &str = "/spire.api.server.agent.v1.Agent";
const ENTRY: &str = "/spire.api.server.entry.v1.Entry";
const SVID: &str = "/spire.api.server.svid.v1.SVID";

/// Whoever the authorities vouch for: rustls would look for a host's name, which a server's SVID
/// does not have.
#[derive(Debug)]
struct AnyName(Arc<dyn ClientCertVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.0.verify_client_cert(leaf, intermediates, now)?;
        assert_eq!(spiffe_id(leaf), id("/spire/server"));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// A leaf and its key.
type Identity = (Vec<u8>, KeyPair);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_attests_once_and_the_agent_renews_by_using_its_next_svid() {
    let played = started();
    let token = played.join_token(None);
    let agent = joined(&token);
    let first = attest(&played, &token).await.expect("it is a good token");
    assert_eq!(spiffe_id(&first.0), agent);
    let refused = attest(&played, &token).await.expect_err("it was used");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("already been used"), "{refused}");

    let second = renew(&played, &first).await.expect("it may");
    post(&played, &first).await.expect("it is active still");
    post(&played, &second).await.expect("it is active by this");
    let refused = post(&played, &first).await.expect_err("it is stale");
    assert_eq!(reason(&refused), 3, "{refused}");
    played.ban(&agent);
    let refused = post(&played, &second).await.expect_err("it is banned");
    assert_eq!(reason(&refused), 4, "{refused}");
    played.evict(&agent);
    let refused = post(&played, &second).await.expect_err("it is unknown");
    assert_eq!(reason(&refused), 2, "{refused}");
    assert_eq!(played.seen().posted.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_come_whole_or_by_revision_and_their_svids_by_batch() {
    let played = started();
    let alias = id("/machine");
    let token = played.join_token(Some(&alias));
    let agent = attest(&played, &token).await.expect("it is a good token");
    let selectors = ["unix:uid:0"];
    let direct = played.create(&Entry::new(&joined(&token), "/a", &selectors));
    let below = played.create(&Entry::new(&alias, "/b", &selectors));
    played.create(&Entry::new(&id("/other"), "/c", &selectors));

    let whole = sync(&played, &agent, Vec::new()).await;
    assert_eq!(whole[0].entries.len(), 3, "{whole:?}");
    assert!(
        whole[0]
            .entries
            .iter()
            .all(|entry| entry.dns_names.is_empty())
    );
    played.behave(|it| it.page = 1);
    let wanted = vec![direct.clone(), below.clone(), "nothing".to_owned()];
    let pages = sync(&played, &agent, wanted).await;
    let more: Vec<_> = pages.iter().map(|page| page.more).collect();
    assert_eq!(more, [true, true, false, true, false]);
    assert_eq!(pages[4].entries[0].id, below);

    let key = KeyPair::generate().unwrap();
    let params = |entry: &str| SvidParams {
        entry_id: entry.to_owned(),
        csr: csr(&key),
    };
    let request = BatchRequest {
        params: vec![params(&below), params("nothing")],
    };
    let channel = || connect(&played, Some(&agent));
    let batch = format!("{SVID}/BatchNewX509SVID");
    let answer: BatchResponse = call(channel().await, &batch, request.clone())
        .await
        .unwrap();
    let codes = answer
        .results
        .iter()
        .map(|it| it.status.as_ref().unwrap().code);
    assert_eq!(Vec::from_iter(codes), [0, Code::NotFound as i32]);
    let chain = &answer.results[0].svid.as_ref().unwrap().cert_chain;
    assert_eq!(spiffe_id(&chain[0]), id("/b"));

    played.fault("BatchNewX509SVID", Fault::Forge(Forgery::Id));
    let forged: BatchResponse = call(channel().await, &batch, request.clone())
        .await
        .unwrap();
    let chain = &forged.results[0].svid.as_ref().unwrap().cert_chain;
    assert_eq!(spiffe_id(&chain[0]), id("/b-not"));
    for fault in [
        Fault::Cut,
        Fault::Oversize(5 << 20),
        Fault::Refuse(Code::Internal),
    ] {
        played.fault("BatchNewX509SVID", fault);
        let answer: Result<BatchResponse, _> = call(channel().await, &batch, request.clone()).await;
        answer.expect_err(&format!("{fault:?}"));
    }
    // What is too long for a client that expects less is a good message otherwise.
    played.fault("BatchNewX509SVID", Fault::Oversize(1 << 20));
    let longer: BatchResponse = call(channel().await, &batch, request).await.unwrap();
    assert_eq!(longer.results.len(), 2);

    let request = JwtRequest {
        entry_id: direct,
        audience: vec!["shop".to_owned()],
    };
    let method = format!("{SVID}/NewJWTSVID");
    let answer: JwtResponse = call(channel().await, &method, request).await.unwrap();
    let token = Token::new(&answer.svid.unwrap().token);
    assert_eq!(token.claims["sub"], id("/a"));
    assert_eq!(token.claims["aud"], serde_json::json!(["shop"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authorities_come_are_tainted_and_go() {
    let mut played = started();
    let before = played.bundle_pem();
    let steps: [fn(&Played, Kind); 3] = [Played::rotate, Played::taint, Played::revoke];
    let expected = [(2, 0), (2, 1), (1, 0)];
    let mut sequence = bundle(connect(&played, None).await).await.sequence_number;
    for (step, (all, tainted)) in steps.into_iter().zip(expected) {
        for kind in [Kind::X509, Kind::Jwt] {
            step(&played, kind);
        }
        let bundle = bundle(connect(&played, None).await).await;
        let (x509, jwt) = (&bundle.x509_authorities, &bundle.jwt_authorities);
        assert_eq!((x509.len(), jwt.len()), (all, all));
        let x509 = x509.iter().filter(|it| it.tainted).count();
        let jwt = jwt.iter().filter(|it| it.tainted).count();
        assert_eq!((x509, jwt), (tainted, tainted));
        assert_eq!(bundle.sequence_number, sequence + 2);
        sequence = bundle.sequence_number;
    }
    assert_ne!(played.bundle_pem(), before);
    let before = played.bundle_pem();
    let address = played.address().to_owned();
    played.stop();
    TcpStream::connect(&address).await.expect_err("it is away");
    played.start_again();
    assert_eq!(
        (played.address(), played.bundle_pem()),
        (&*address, before.clone())
    );
    played.stop();
    played.forget();
    played.start_again();
    assert_ne!(played.bundle_pem(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_by_its_age_and_the_next_call_has_another_one() {
    let played = started();
    played.behave(|it| it.connection_age = Duration::from_millis(50));
    let channel = connect(&played, None).await;
    while played.seen().connections < 3 {
        bundle(channel.clone()).await;
    }
}

fn started() -> Played {
    Played::start("", &Options::default()).expect("it needs nothing")
}

async fn attest(played: &Played, token: &str) -> Result<Identity, Status> {
    let key = KeyPair::generate().unwrap();
    let request = AttestRequest {
        params: Some(AttestParams {
            data: Some(AttestationData {
                kind: "join_token".to_owned(),
                payload: token.as_bytes().to_vec(),
            }),
            params: Some(AgentParams { csr: csr(&key) }),
        }),
        ..AttestRequest::default()
    };
    let method = format!("{AGENT}/AttestAgent");
    let answer = call(connect(played, None).await, &method, request).await;
    let answer: AttestResponse = answer?;
    let svid = answer.result.unwrap().svid.unwrap();
    Ok((svid.cert_chain[0].clone(), key))
}

async fn renew(played: &Played, agent: &Identity) -> Result<Identity, Status> {
    let key = KeyPair::generate().unwrap();
    let request = RenewRequest {
        params: Some(AgentParams { csr: csr(&key) }),
    };
    let method = format!("{AGENT}/RenewAgent");
    let answer: RenewResponse = call(connect(played, Some(agent)).await, &method, request).await?;
    let leaf = answer.svid.unwrap().cert_chain[0].clone();
    assert_ne!(serial(&leaf), serial(&agent.0));
    Ok((leaf, key))
}

async fn post(played: &Played, agent: &Identity) -> Result<Empty, Status> {
    let request = PostStatusRequest {
        current_bundle_serial: 1,
        agent_version: "1".to_owned(),
    };
    let channel = connect(played, Some(agent)).await;
    call(channel, &format!("{AGENT}/PostStatus"), request).await
}

/// All answers to a first request, and to one for these ids.
async fn sync(played: &Played, agent: &Identity, ids: Vec<String>) -> Vec<SyncResponse> {
    let mask = EntryMask {
        spiffe_id: true,
        selectors: true,
        revision_number: true,
        ..EntryMask::default()
    };
    let first = SyncRequest {
        output_mask: Some(mask),
        ..SyncRequest::default()
    };
    let second = SyncRequest {
        ids,
        ..SyncRequest::default()
    };
    let mut grpc = Grpc::new(connect(played, Some(agent)).await);
    grpc.ready().await.unwrap();
    let path = format!("{ENTRY}/SyncAuthorizedEntries").parse().unwrap();
    let requests = Request::new(tokio_stream::iter([first, second]));
    let codec = ProstCodec::<SyncRequest, SyncResponse>::default();
    let answers = grpc.streaming(requests, path, codec).await.unwrap();
    let mut answers = answers.into_inner();
    let mut all = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        all.push(answer);
    }
    all
}

async fn bundle(channel: Channel) -> Bundle {
    let method = "/spire.api.server.bundle.v1.Bundle/GetBundle";
    loop {
        match call(channel.clone(), method, Empty {}).await {
            Ok(bundle) => return bundle,
            // The connection's end came between: the next call has another one.
            Err(status) if status.source().is_some() => {}
            Err(status) => panic!("everybody may ask: {status}"),
        }
    }
}

/// The first answer to one request: what is one looks like a stream of one.
async fn call<Q, A>(channel: Channel, method: &str, request: Q) -> Result<A, Status>
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let mut grpc = Grpc::new(channel);
    let ready = grpc.ready().await;
    ready.map_err(|error| Status::unavailable(error.to_string()))?;
    let requests = Request::new(tokio_stream::iter([request]));
    let codec = ProstCodec::<Q, A>::default();
    let path = method.parse().unwrap();
    let answers = grpc.streaming(requests, path, codec).await?;
    let first = answers.into_inner().message().await?;
    first.ok_or_else(|| Status::unknown("no answer"))
}

async fn connect(played: &Played, agent: Option<&Identity>) -> Channel {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(played.bundle_pem().as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let verifier = AnyName(WebPkiClientVerifier::builder(roots.into()).build().unwrap());
    let config = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match agent {
        Some((leaf, key)) => {
            let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
            let chain = vec![leaf.clone().into()];
            config.with_client_auth_cert(chain, key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let address = played.address().to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let (connector, address) = (connector.clone(), address.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("localhost").expect("a name");
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector_lazy(connector)
}

/// A request for a certificate.
fn csr(key: &KeyPair) -> Vec<u8> {
    let request = CertificateParams::default().serialize_request(key);
    request.unwrap().der().to_vec()
}

/// The reason in the details of a refusal.
fn reason(status: &Status) -> i32 {
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    let details: RpcStatus = prost::Message::decode(status.details()).unwrap();
    let details = &details.details[0];
    assert!(
        details
            .type_url
            .ends_with("spire.api.types.PermissionDeniedDetails")
    );
    let details: super::messages::PermissionDeniedDetails =
        prost::Message::decode(&*details.value).unwrap();
    details.reason
}
