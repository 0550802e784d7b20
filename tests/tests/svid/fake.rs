//! A Workload API that says what a test wants, by bare HTTP/2.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::support::{Authority, leaf};

/// `X509SVIDResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SvidResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) svids: Vec<Svid>,
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub(crate) federated_bundles: BTreeMap<String, Vec<u8>>,
}

/// `X509SVID`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Svid {
    #[prost(string, tag = "1")]
    pub(crate) spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) x509_svid: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) x509_svid_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) bundle: Vec<u8>,
}

/// `X509BundlesResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct X509Bundles {
    #[prost(btree_map = "string, bytes", tag = "2")]
    pub(crate) bundles: BTreeMap<String, Vec<u8>>,
}

/// `JWTBundlesResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct JwtBundles {
    #[prost(btree_map = "string, bytes", tag = "1")]
    pub(crate) bundles: BTreeMap<String, Vec<u8>>,
}

/// What a method answers.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// A message; the stream then stays open until there is another reply.
    Message(Vec<u8>),
    /// A status that is not 0, and its message.
    Status(u16, &'static str),
}

type Replies = Arc<Mutex<BTreeMap<&'static str, watch::Sender<Reply>>>>;

/// It, at a socket.
pub(crate) struct Fake {
    pub(crate) socket: String,
    replies: Replies,
}

impl Fake {
    /// One that does not know any method yet.
    pub(crate) fn start(folder: &Path) -> Self {
        let path = folder.join("fake.sock");
        let listener = UnixListener::bind(&path).expect("the socket is free");
        let replies = Replies::default();
        let served = Arc::clone(&replies);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&served)));
            }
        });
        Self {
            socket: format!("unix://{}", path.display()),
            replies,
        }
    }

    /// Answers a method so from now on, on open streams too.
    pub(crate) fn set(&self, method: &'static str, reply: Reply) {
        let mut replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        match replies.get(method) {
            Some(sender) => drop(sender.send_replace(reply)),
            None => drop(replies.insert(method, watch::Sender::new(reply))),
        }
    }
}

impl Reply {
    pub(crate) fn of(message: &impl Message) -> Self {
        Self::Message(message.encode_to_vec())
    }
}

impl Svid {
    /// An SVID of a trust domain, whose bundle is a root that did not sign it.
    pub(crate) fn new(trust_domain: &str, root: &[u8]) -> Self {
        let spiffe_id = format!("spiffe://{trust_domain}/app");
        let identity = Authority::foreign(trust_domain).issue(&leaf(&[&spiffe_id]));
        Self {
            spiffe_id,
            x509_svid: identity.chain.iter().flat_map(|der| der.to_vec()).collect(),
            x509_svid_key: identity.key.secret_der().to_vec(),
            bundle: root.to_vec(),
        }
    }
}

/// A root certificate, DER.
pub(crate) fn root() -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("it is signed");
    certificate.der().to_vec()
}

/// `spiffe://` names with what belongs to them.
pub(crate) fn by_id<const N: usize>(members: [(&str, Vec<u8>); N]) -> BTreeMap<String, Vec<u8>> {
    members
        .map(|(name, value)| (format!("spiffe://{name}"), value))
        .into()
}

async fn serve(stream: UnixStream, replies: Replies) {
    let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
    // A client that goes away is no fault of it.
    while let Some(Ok((request, respond))) = connection.accept().await {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        let reply = {
            let replies = replies.lock().unwrap_or_else(PoisonError::into_inner);
            replies.get(method).map(watch::Sender::subscribe)
        };
        // What cannot be sent has no reader any more.
        tokio::spawn(async move { answer(request, respond, reply).await.ok() });
    }
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    reply: Option<watch::Receiver<Reply>>,
) -> Result<Infallible, h2::Error> {
    assert_eq!(request.headers()["workload.spiffe.io"], "true");
    let head = Response::builder().header("content-type", "application/grpc");
    let mut stream = respond.send_response(head.body(()).expect("a response"), false)?;
    let Some(mut reply) = reply else {
        stream.send_trailers(status(12, "unimplemented"))?;
        return std::future::pending().await;
    };
    loop {
        let now = reply.borrow_and_update().clone();
        match now {
            Reply::Message(message) => {
                let mut frame = BytesMut::new();
                frame.put_u8(0);
                frame.put_u32(u32::try_from(message.len()).expect("it is short"));
                frame.put_slice(&message);
                stream.send_data(frame.freeze(), false)?;
            }
            Reply::Status(code, message) => stream.send_trailers(status(code, message))?,
        }
        if reply.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn status(code: u16, message: &'static str) -> HeaderMap {
    HeaderMap::from_iter([
        (http::HeaderName::from_static("grpc-status"), code.into()),
        (
            http::HeaderName::from_static("grpc-message"),
            HeaderValue::from_static(message),
        ),
    ])
}
