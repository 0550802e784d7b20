//! What the server is verified by at first contact.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::error::SpireError;
use crate::spiffe_bundle::SpiffeBundle;
use crate::svid::X509Bundle;
use crate::{chain, durable};

/// A bundle is far smaller.
pub(super) const LARGEST: u64 = 1024 * 1024;

/// Where the bundle comes from that the server is verified by at first contact. Later the state
/// directory has the newest.
#[derive(Clone)]
pub enum Bootstrap {
    /// A file: certificates as PEM, or a bundle in SPIFFE's JSON format.
    File(PathBuf),
    /// What a URL returns, in one of the same formats.
    Url {
        /// For messages.
        url: String,
        /// Fetches it; whom to trust for that is the caller's to say.
        fetch: Arc<dyn FetchBundle>,
    },
    /// Nowhere: the first bundle is taken from whoever answers at the server's address. Whoever can
    /// stand between us and the server then can be the authority for everything.
    Insecure,
}

/// Fetches a bundle over the network.
pub trait FetchBundle: Send + Sync + 'static {
    /// The document, at most a mebibyte; or why there is none.
    fn fetch(&self) -> FetchedBundle<'_>;
}

/// A bundle that is being fetched.
pub type FetchedBundle<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'a>>;

impl Bootstrap {
    /// The bundle; `None` where the first contact is to be trusted.
    pub(super) async fn bundle(&self) -> Result<Option<X509Bundle>, SpireError> {
        let (from, document) = match self {
            Self::Insecure => return Ok(None),
            Self::File(path) => {
                let document = durable::read_bounded(path, LARGEST);
                let document = document.map(|document| document.to_vec());
                (
                    path.display().to_string(),
                    document.map_err(|error| error.to_string()),
                )
            }
            Self::Url { url, fetch } => (url.clone(), fetch.fetch().await),
        };
        let bundle = document.and_then(|document| read(&document));
        let bundle = bundle.map_err(|problem| SpireError::Bootstrap { from, problem })?;
        Ok(Some(bundle))
    }
}

impl fmt::Debug for Bootstrap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => formatter.debug_tuple("File").field(path).finish(),
            Self::Url { url, .. } => formatter.debug_tuple("Url").field(url).finish(),
            Self::Insecure => formatter.write_str("Insecure"),
        }
    }
}

/// Reads a bundle in either format. It has at least one root, and each may sign.
fn read(document: &[u8]) -> Result<X509Bundle, String> {
    if u64::try_from(document.len()).is_ok_and(|length| length > LARGEST) {
        return Err(format!("it has more than {LARGEST} bytes"));
    }
    let roots = match document.trim_ascii_start().starts_with(b"{") {
        true => {
            let bundle = SpiffeBundle::parse(document).map_err(|error| chain(&error))?;
            bundle.x509_authorities
        }
        false => certificates(document)?,
    };
    if roots.is_empty() {
        return Err("it has no certificates".to_owned());
    }
    let bundle = X509Bundle::new(roots).map_err(|error| chain(&error))?;
    bundle.check_anchors().map_err(|error| chain(&error))?;
    Ok(bundle)
}

/// Certificates as PEM and nothing else.
pub(super) fn certificates(document: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let blocks = pem::parse_many(document).map_err(|error| error.to_string())?;
    let certificates = blocks.into_iter().map(|block| match block.tag() {
        "CERTIFICATE" => Ok(block.into_contents().into()),
        tag => Err(format!("there is a {tag} in it, not only certificates")),
    });
    certificates.collect()
}
