//! Where a host is: what was looked up and checked is what is dialled.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::uri::Authority;
use tokio::time::Instant;

use super::UpstreamError;
use super::network::AddressCheck;

/// How long an answer counts.
const FRESH: Duration = Duration::from_secs(5);

/// Resolves one host.
#[derive(Debug)]
pub(super) struct Resolver {
    authority: Authority,
    check: AddressCheck,
    known: Mutex<Option<(Instant, Arc<[SocketAddr]>)>>,
}

impl Resolver {
    pub(super) fn new(authority: Authority, check: AddressCheck) -> Self {
        Self {
            authority,
            check,
            known: Mutex::default(),
        }
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Another one, which has not looked up anything.
    pub(super) fn anew(&self) -> Self {
        Self::new(self.authority.clone(), self.check.clone())
    }

    /// The addresses that may be dialled, in the order of the answer; there is one at least. What the
    /// configuration itself names as an address needs no check.
    pub(super) async fn addresses(&self) -> Result<Arc<[SocketAddr]>, UpstreamError> {
        let host = self.authority.host().trim_matches(['[', ']']);
        let port = self.authority.port_u16().unwrap_or(443);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok([SocketAddr::new(address, port)].into());
        }
        if let Some((since, addresses)) =
            &*self.known.lock().unwrap_or_else(PoisonError::into_inner)
            && since.elapsed() < FRESH
        {
            return Ok(Arc::clone(addresses));
        }
        let found = tokio::net::lookup_host((host, port)).await;
        let found: Vec<_> = found.map_err(UpstreamError::Resolve)?.collect();
        let allowed = found.iter().filter(|it| self.check.allows(it.ip()));
        let allowed: Arc<[_]> = allowed.copied().collect();
        if allowed.is_empty() {
            let host = host.to_owned();
            return Err(match found.first() {
                Some(address) => UpstreamError::AddressRefused {
                    host,
                    address: address.ip(),
                },
                None => UpstreamError::Resolve(std::io::ErrorKind::NotFound.into()),
            });
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some((Instant::now(), Arc::clone(&allowed)));
        Ok(allowed)
    }
}
