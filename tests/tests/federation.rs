//! Trust domains that know each other by bundles that are handed over by hand.

mod bundles;
mod envoy;
pub(crate) mod foreign;
mod go;
mod kept;
mod peers;
mod secrets;
mod streams;
mod tokens;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use sidegate_tests::{Sidegate, sidegate};

use crate::support::{Configuration, Operator, identity_only, program, spiffe_id};
pub(crate) use foreign::{Foreign, bundle, set};

pub(crate) const OTHER: &str = "other.example";

/// A configuration like the usual one, whose component's entry federates with other trust domains.
fn federating(with: &[&str]) -> Configuration {
    let mut configuration = Configuration::new();
    let line = "dns_names = [\"localhost\"]\n";
    let lines = format!("{line}federates_with = {with:?}\n");
    configuration.entries = configuration.entries.replace(line, &lines);
    configuration
}

/// An entry for the program of the tests, which federates with these, and one for that under test,
/// which does not.
fn two_workloads(folder: &Path, with: &[&str]) -> Sidegate {
    let entry = |path: &str, selector: String| {
        let id = spiffe_id(path);
        format!(
            "\n[[identity.entry]]\nspiffe_id = \"{id}\"\nselectors = [{selector:?}]\n\
             audiences = [\"demo\"]\n"
        )
    };
    let sections = format!(
        "{}federates_with = {with:?}\n{}",
        entry("/tests", program(&ourselves())),
        entry("/plain", program(&sidegate())),
    );
    Sidegate::run(&identity_only(folder, &sections))
}

/// The trust domains in the JSON of `bundle list`.
fn listed(operator: &Operator) -> Vec<String> {
    let list = operator.ask(&["bundle", "list"]);
    assert_eq!(list["trust_domain"], "sidegate.local", "{list}");
    let names = list["bundles"].as_array().expect("a list").iter();
    names
        .map(|name| name.as_str().expect("a name").to_owned())
        .collect()
}

/// The members of a document.
fn members(document: &Value) -> &Map<String, Value> {
    document.as_object().expect("an object")
}

/// The program that the tests run in.
fn ourselves() -> PathBuf {
    std::env::current_exe().expect("its path is known")
}
