//! Identities of clients and servers, all below one root, which is brought along to Sidegate too, so
//! that every proxy shows a chain of the same make.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, PeerIncompatible, SignatureScheme};
use sidegate_identity::TrustDomain;
use sidegate_identity::authority::{BroughtFiles, EmbeddedAuthority, Lifetimes};
use sidegate_identity::clock::{Clock, SystemClock};
use sidegate_identity::encoding::{certificates_pem, private_key_pem};
use sidegate_identity::entry::{Entry, EntryRequest};
use sidegate_identity::svid::X509Svid;

use crate::policy::cases::{IDENTITIES, identity};

pub(super) const TRUST_DOMAIN: &str = "bench.test";

/// Who the proxies are.
pub(super) const SERVER_ID: &str = "spiffe://bench.test/orders";

/// The name that clients ask for.
pub(super) const SERVER_NAME: &str = "orders.bench.test";

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Who takes part, and files of it for other programs.
pub(super) struct Credentials {
    folder: PathBuf,
    provider: Arc<CryptoProvider>,
    clients: Vec<X509Svid>,
}

/// The load's own check of servers: none. It costs what the load must not, and all is on loopback.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl Credentials {
    /// Makes the authority and mints everything, for a day.
    pub(super) fn mint(folder: &Path) -> Result<Self> {
        let trust_domain = TrustDomain::new(TRUST_DOMAIN)?;
        let now = SystemClock.now();
        let lifetimes = Lifetimes {
            root: DAY * 365,
            svid: DAY,
        };
        let root = root(folder)?;
        let authority = EmbeddedAuthority::brought(&root, trust_domain.clone(), lifetimes, now)?;
        let mint = |spiffe_id: String, dns_names: Vec<String>| -> Result<X509Svid> {
            let request = EntryRequest {
                spiffe_id,
                selectors: vec!["unix:uid:0".to_owned()],
                dns_names,
                ..EntryRequest::default()
            };
            Ok(authority.mint(&Entry::new(request, &trust_domain)?, now)?)
        };
        let server = mint(SERVER_ID.to_owned(), vec![SERVER_NAME.to_owned()])?;
        let clients = (0..IDENTITIES)
            .map(|number| mint(identity(number), Vec::new()))
            .collect::<Result<_>>()?;

        let chain = certificates_pem(server.chain());
        let key = private_key_pem(server.key());
        fs::write(folder.join("server.pem"), &chain)?;
        fs::write(folder.join("server.key"), &*key)?;
        fs::write(folder.join("both.pem"), format!("{chain}{}", *key))?;

        let mut provider = aws_lc_rs::default_provider();
        // One cipher for all: servers disagree about the best.
        let one = rustls::CipherSuite::TLS13_AES_256_GCM_SHA384;
        provider.cipher_suites.retain(|suite| suite.suite() == one);
        Ok(Self {
            folder: folder.to_owned(),
            provider: Arc::new(provider),
            clients,
        })
    }

    /// The folder with everything.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file of them: `server.pem`, `server.key`, `both.pem`, `roots.pem` or
    /// `root.key`.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What a client of this number connects with.
    pub(super) fn client(&self, number: usize, protocol: &[u8]) -> Result<Arc<ClientConfig>> {
        let svid = self
            .clients
            .get(number % IDENTITIES)
            .context("there are clients")?;
        let provider = Arc::clone(&self.provider);
        let verifier = Arc::new(Unverified(Arc::clone(&provider)));
        let key = PrivatePkcs8KeyDer::from(svid.key().to_vec());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(svid.chain().to_vec(), key.into())?;
        config.alpn_protocols = vec![protocol.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// Makes the root, `roots.pem` and `root.key`.
fn root(folder: &Path) -> Result<BroughtFiles> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "bench root");
    let name = format!("spiffe://{TRUST_DOMAIN}").as_str().try_into()?;
    params.subject_alt_names = vec![SanType::URI(name)];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let pair = KeyPair::generate()?;
    let (certificate, key) = (folder.join("roots.pem"), folder.join("root.key"));
    fs::write(&certificate, params.self_signed(&pair)?.pem())?;
    fs::write(&key, pair.serialize_pem())?;
    fs::set_permissions(&key, Permissions::from_mode(0o600))?;
    Ok(BroughtFiles {
        certificate,
        key,
        bundle: None,
    })
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
