//! Trust bundles, as a Workload API gives them.

use std::collections::BTreeMap;

use sidegate_identity::TrustDomain;
use sidegate_identity::encoding::certificates_pem;
use sidegate_identity::spiffe_bundle::{JwtKey, SpiffeBundle, SpiffeBundleError, bundle_map_json};
use spiffe::transport::GrpcStatusCode;
use spiffe::{JwtBundle, JwtBundleSet, WorkloadApiClient, WorkloadApiError, X509BundleSet};

use super::{ask, files, has_code, refused};
use crate::arguments::{BundleArguments, BundleFormat, OutputFormat};
use crate::failure::Failure;
use crate::output;

type Bundles = BTreeMap<TrustDomain, SpiffeBundle>;

/// Fetches once, and prints or writes.
pub(super) fn show(arguments: &BundleArguments) -> Result<(), Failure> {
    let format = arguments.format.unwrap_or_default();
    let one = format == BundleFormat::Spiffe;
    let (mut bundles, own) = ask(&arguments.client.socket, async |client| {
        let bundles = fetch(&client).await?;
        let own = match arguments.trust_domain.clone() {
            None if one => Some(own_trust_domain(&client, &bundles).await?),
            selected => selected,
        };
        Ok((bundles, own))
    })?;
    if let Some(own) = &own {
        bundles = only(own, bundles)?;
    }
    let text = match (arguments.client.output, format) {
        (OutputFormat::Json, _) => bundle_map_json(&bundles) + "\n",
        (OutputFormat::Text, BundleFormat::Spiffe) => bundles
            .values()
            .map(|bundle| bundle.to_json() + "\n")
            .collect(),
        (OutputFormat::Text, BundleFormat::Pem) if own.is_some() => {
            bundles.values().map(pem).collect()
        }
        (OutputFormat::Text, BundleFormat::Pem) => bundles
            .iter()
            .map(|(trust_domain, bundle)| format!("# {trust_domain}\n{}", pem(bundle)))
            .collect(),
    };
    match &arguments.write {
        Some(file) => files::write(file, text.as_bytes()),
        None => output::print(&text),
    }
}

/// X.509 and JWT bundles. A profile that is switched off gives none.
async fn fetch(client: &WorkloadApiClient) -> Result<Bundles, Failure> {
    let x509 = client.fetch_x509_bundles().await;
    let jwt = client.fetch_jwt_bundles().await;
    let (x509, jwt) = match (x509, jwt) {
        (Err(error), Err(_)) => return Err(refused(error)),
        (x509, jwt) => (if_served(x509)?, if_served(jwt)?),
    };
    merge(&x509.unwrap_or_default(), &jwt.unwrap_or_default())
        .map_err(|error| Failure::new(error.code(), &error))
}

fn if_served<T>(fetched: Result<T, WorkloadApiError>) -> Result<Option<T>, Failure> {
    match fetched {
        Ok(bundles) => Ok(Some(bundles)),
        Err(error) if has_code(&error, GrpcStatusCode::Unimplemented) => Ok(None),
        Err(error) => Err(refused(error)),
    }
}

/// The trust domain of the caller's default SVID; a verifier without one may know a single bundle.
async fn own_trust_domain(
    client: &WorkloadApiClient,
    bundles: &Bundles,
) -> Result<TrustDomain, Failure> {
    let mut names = bundles.keys();
    if let (Some(name), None) = (names.next(), names.next()) {
        return Ok(name.clone());
    }
    let svid = client.fetch_x509_svid().await;
    let svid = svid.map_err(|error| refused(error).help("say which one by --trust-domain"))?;
    Ok(svid.spiffe_id().trust_domain().clone())
}

fn only(trust_domain: &TrustDomain, mut bundles: Bundles) -> Result<Bundles, Failure> {
    let Some(bundle) = bundles.remove(trust_domain) else {
        let names: Vec<_> = bundles.keys().map(TrustDomain::as_str).collect();
        let text = format!("the Workload API gives no bundle of `{trust_domain}`");
        let help = format!("it gives those of: {}", names.join(", "));
        return Err(Failure::message("SG0058", text).help(help));
    };
    Ok([(trust_domain.clone(), bundle)].into())
}

fn merge(x509: &X509BundleSet, jwt: &JwtBundleSet) -> Result<Bundles, SpiffeBundleError> {
    let mut bundles = Bundles::new();
    for (trust_domain, bundle) in x509.iter() {
        let authorities = bundle.authorities().iter();
        let authorities = authorities.map(|root| root.as_bytes().to_vec().into());
        bundles
            .entry(trust_domain.clone())
            .or_default()
            .x509_authorities = authorities.collect();
    }
    for (trust_domain, bundle) in jwt.iter() {
        bundles
            .entry(trust_domain.clone())
            .or_default()
            .jwt_authorities = jwt_keys(bundle)?;
    }
    Ok(bundles)
}

/// In the order of their ids: the client does not keep the one in which they came.
fn jwt_keys(bundle: &JwtBundle) -> Result<Vec<JwtKey>, SpiffeBundleError> {
    let keys = bundle.jwt_authorities();
    let mut keys = keys
        .filter_map(|key| JwtKey::parse(key.jwk_json()).transpose())
        .collect::<Result<Vec<_>, _>>()?;
    keys.sort_by(|one, other| one.id().cmp(other.id()));
    Ok(keys)
}

fn pem(bundle: &SpiffeBundle) -> String {
    certificates_pem(&bundle.x509_authorities)
}
