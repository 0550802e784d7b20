//! `sidegate identity bundle`.

use std::io::Read;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{instance, print};
use crate::admin::{AdminClient, Bundle};
use crate::arguments::{
    BundleDeleteArguments, BundleSetArguments, BundleShowArguments, StateArguments,
};
use crate::failure::Failure;
use crate::output;

/// The trust domains whose bundles an instance knows.
#[derive(Debug, Serialize)]
struct Known {
    trust_domain: String,
    bundles: Vec<String>,
}

/// Prints one bundle, as it is given to others.
pub(super) async fn show(arguments: &BundleShowArguments) -> Result<(), Failure> {
    let admin = AdminClient::new(&arguments.state);
    let (own, mut bundles) = bundles(&admin).await?;
    let wanted = arguments.trust_domain.as_ref();
    let wanted = wanted.map_or(own.as_str(), |wanted| wanted.as_str());
    let bundle = bundles
        .remove(wanted)
        .ok_or_else(|| Failure::message("SG0144", format!("there is no bundle of `{wanted}`")))?;
    output::print_json(&bundle)
}

/// Prints the names of all.
pub(super) async fn list(arguments: &StateArguments) -> Result<(), Failure> {
    let (trust_domain, bundles) = bundles(&instance(arguments)).await?;
    let known = Known {
        trust_domain,
        bundles: bundles.into_iter().map(|(name, _)| name).collect(),
    };
    print(arguments, &known, |known| {
        let names = known.bundles.iter();
        let lines = names.map(|name| match *name == known.trust_domain {
            true => format!("{name} (own)\n"),
            false => format!("{name}\n"),
        });
        lines.collect()
    })
}

/// Has a foreign bundle taken.
pub(super) async fn set(arguments: &BundleSetArguments) -> Result<(), Failure> {
    let document = read(&arguments.file)?;
    let admin = instance(&arguments.instance);
    let path = format!("/v1/bundles/{}", arguments.trust_domain);
    let taken: Bundle = admin.put(&path, document).await?;
    print(&arguments.instance, &taken, |taken| {
        format!("took the bundle of {}\n", taken.trust_domain)
    })
}

/// Has a foreign bundle given up.
pub(super) async fn delete(arguments: &BundleDeleteArguments) -> Result<(), Failure> {
    let admin = instance(&arguments.instance);
    let path = format!("/v1/bundles/{}", arguments.trust_domain);
    let removed: Bundle = admin.delete(&path).await?;
    print(&arguments.instance, &removed, |removed| {
        format!("gave up the bundle of {}\n", removed.trust_domain)
    })
}

/// The own trust domain's name, and all bundles by name.
async fn bundles(admin: &AdminClient) -> Result<(String, Map<String, Value>), Failure> {
    #[derive(serde::Deserialize)]
    struct BundleMap {
        own: String,
        trust_domains: Map<String, Value>,
    }
    let map: BundleMap = admin.get("/v1/bundles").await?;
    Ok((map.own, map.trust_domains))
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    if file == Path::new("-") {
        let mut document = Vec::new();
        let read = std::io::stdin().lock().read_to_end(&mut document);
        return match read {
            Ok(_) => Ok(document),
            Err(error) => Err(Failure::new("SG0053", &error)),
        };
    }
    std::fs::read(file).map_err(|error| {
        let text = format!("{} cannot be read: {error}", file.display());
        Failure::message("SG0053", text)
    })
}
