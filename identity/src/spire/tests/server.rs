//! The server that the tests play: TLS that asks for a certificate and looks at it later, as SPIRE's
//! does, and the calls that an agent makes.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use rcgen::KeyPair;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::desk::Desk;
use super::world::{Fault, TRUST_DOMAIN, World};
use crate::clock::Clock;
use crate::spire::proto::{agent, bundle, entry, svid};

/// What a connection's client showed.
#[derive(Debug, Clone)]
pub(super) struct Shown(pub(super) Option<CertificateDer<'static>>);

struct Connection(TlsStream<TcpStream>);

/// Takes any certificate whose key the client has.
#[derive(Debug)]
struct AnyClient;

/// Serves until the test ends. Connections live no longer than `age`.
pub(super) async fn serve(world: Arc<Mutex<World>>, age: Option<Duration>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connections, incoming) = mpsc::channel::<io::Result<Connection>>(8);
    let desk = Desk(Arc::clone(&world));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (config, fault) = {
                let mut world = world.lock().unwrap();
                world.connections += 1;
                (config(&world), world.fault)
            };
            // What is no TLS, or is turned away by the client, is not ours to complain about.
            let Ok(mut stream) = TlsAcceptor::from(config).accept(stream).await else {
                continue;
            };
            if fault == Fault::Garbage {
                let _ = stream.write_all(&[0x5a; 4096]).await;
                let _ = stream.shutdown().await;
            } else {
                let _ = connections.send(Ok(Connection(stream))).await;
            }
        }
    });
    let mut server = Server::builder();
    if let Some(age) = age {
        server = server.max_connection_age(age);
    }
    let server = server
        .add_service(agent::agent_server::AgentServer::new(desk.clone()))
        .add_service(bundle::bundle_server::BundleServer::new(desk.clone()))
        .add_service(entry::entry_server::EntryServer::new(desk.clone()))
        .add_service(svid::svid_server::SvidServer::new(desk));
    tokio::spawn(server.serve_with_incoming(ReceiverStream::new(incoming)));
    address
}

fn config(world: &World) -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let id = format!("spiffe://{TRUST_DOMAIN}/spire/server");
    let life = Duration::from_secs(3600);
    let leaf = world.signer().leaf(&id, &key, world.clock.now(), life);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(AnyClient))
        .with_single_cert(vec![leaf], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("only TLS 1.3 is offered")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let algorithms = provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl Connected for Connection {
    type ConnectInfo = Shown;

    fn connect_info(&self) -> Shown {
        let chain = self.0.get_ref().1.peer_certificates();
        let leaf = chain.and_then(<[_]>::first);
        Shown(leaf.map(|leaf| leaf.clone().into_owned()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
