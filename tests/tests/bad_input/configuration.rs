//! Configuration files that are refused whole, each problem at its place.

use std::path::Path;

use sidegate_tests::{Output, Sidegate};

use super::{assert_refused, refused, unlike_a_refusal};
use crate::support::{Configuration, folder, write};

/// `sidegate run` with a configuration, run to its end, and the text that it was.
fn run(configuration: &str) -> Output {
    let folder = folder();
    let path = write(folder.path(), "sidegate.toml", configuration);
    let output = start(&path);
    for made in ["workload.sock", "demo", "state/authority.pem"] {
        let made = folder.path().join(made);
        assert!(!made.exists(), "{} for {output:#?}", made.display());
    }
    output
}

/// `sidegate run` with a file, run to its end.
fn start(path: &Path) -> Output {
    let mut command = Sidegate::command("run");
    refused(command.args(["-o", "json"]).arg("--config").arg(path))
}

/// `file:line` of the first line of a text that begins with another.
fn place(text: &str, line: &str) -> String {
    let index = text.lines().position(|found| found.starts_with(line));
    format!("sidegate.toml:{}", index.expect("the line is there") + 1)
}

fn entry(lines: &str) -> String {
    let mut configuration = Configuration::new();
    configuration.entries.push_str("\n[[identity.entry]]\n");
    configuration.entries.push_str(lines);
    configuration.text()
}

#[test]
fn an_entry_that_anyone_could_take_over_is_refused_at_its_place() {
    let id = "spiffe_id = \"spiffe://sidegate.local/other\"";
    let digest = "0".repeat(64);
    // The entry, and what must be said.
    let other = "spiffe://sidegate.local/other";
    let by_uid = |id: &str| format!("spiffe_id = \"{id}\"\nselectors = [\"unix:uid:1\"]");
    let selected = |selectors: &str| format!("{id}\nselectors = [{selectors}]");
    let cases = [
        (selected("\"component:name:probe\""), other),
        (
            selected("\"component:name:probe\", \"component:namespace:default\""),
            other,
        ),
        (selected("\"component:namespace:default\""), other),
        (selected(""), other),
        (id.to_owned(), "selectors"),
        (selected("\"no-type\""), "no-type"),
        (selected("\"unix:uid:1\", \"unix:shoe:44\""), "unix:shoe"),
        (
            selected(&format!("\"component:digest:sha256:{}\"", &digest[1..])),
            "component:digest",
        ),
        (
            by_uid("spiffe://other.example/x"),
            "spiffe://other.example/x",
        ),
        (
            by_uid("spiffe://sidegate.local/spire/agent"),
            "spiffe://sidegate.local/spire/agent",
        ),
        (by_uid("spiffe://sidegate.local"), "path"),
        (
            by_uid("spiffe://sidegate.local/"),
            "spiffe://sidegate.local/",
        ),
        (
            by_uid("https://sidegate.local/x"),
            "https://sidegate.local/x",
        ),
    ];
    let mut wrong = Vec::new();
    for (lines, said) in cases {
        let text = entry(&lines);
        let output = run(&text);
        wrong.extend(unlike_a_refusal(&output, &[said, "^"]));
        // It points into the entry: its head or the line that is wrong.
        let entry = text.split(&lines).next().unwrap().lines().count();
        let places = entry..=entry + lines.lines().count();
        let pointed = places.into_iter().any(|line| {
            let place = format!("sidegate.toml:{line}:");
            output.stderr.contains(&place)
        });
        if !pointed {
            wrong.push(format!(
                "not in the entry at line {entry}: {}",
                output.stderr
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_entry_that_is_there_already_is_refused() {
    let uid = nix::unistd::getuid();
    let id = "spiffe://sidegate.local/demo";
    let again = format!("spiffe_id = \"{id}\"\nselectors = [\"unix:uid:{uid}\"]");
    assert_refused(&run(&entry(&again)), &[id, "sidegate.toml:", "^"]);
}

#[test]
fn a_key_that_is_not_known_is_refused_with_the_one_that_was_meant() {
    let good = Configuration::new().text();
    let cases = [
        ("trust_domain =", "trust_domian =", "trust_domain"),
        ("[admin]", "[admn]", "admin"),
        ("dns_names =", "dns_name =", "dns_names"),
        ("directory =", "directroy =", "directory"),
        ("component = ", "componnent = ", "component"),
    ];
    let mut wrong = Vec::new();
    for (right, typo, meant) in cases {
        let text = good.replacen(right, typo, 1);
        assert_ne!(text, good);
        let typo = typo.trim_matches(['[', ']', '=', ' ']);
        let line = text.lines().find(|line| line.contains(typo)).unwrap();
        let place = place(&text, line);
        wrong.extend(unlike_a_refusal(
            &run(&text),
            &[&place, typo, &format!("`{meant}`"), "^"],
        ));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_problems_are_shown_at_once() {
    let mut configuration = Configuration::new().timeouts("idle = \"soon\"\n");
    configuration.rest = "[log]\nlevel = \"loud\"\ncolour = true\n".to_owned();
    configuration.component = "memory_limit = 5\n".to_owned();
    let text = configuration.text();
    let output = run(&text);
    let places = ["idle = ", "colour = ", "memory_limit = ", "level = "];
    let places = places.map(|line| place(&text, line));
    assert_refused(&output, &places.each_ref().map(String::as_str));
    assert!(output.stderr.matches("error[SG").count() >= 4);
}

#[test]
fn values_out_of_their_bounds_and_references_to_nothing_are_refused() {
    let listener = |line: &str| {
        Configuration::new()
            .listener(&format!("[[listener]]\nname = \"main\"\n{line}\n"))
            .text()
    };
    let rest = |sections: &str| Configuration::new().rest(sections).text();
    let cases = [
        (listener("listen = \"127.0.0.1:0\""), "component"),
        (
            listener("listen = \"127.0.0.1:0\"\ncomponent = \"prode\""),
            "prode",
        ),
        (
            listener(
                "listen = \"127.0.0.1:0\"\ncomponent = \"probe\"\nupstream = \"http://127.0.0.1:9\"",
            ),
            "upstream",
        ),
        (
            listener("listen = \"localhost\"\ncomponent = \"probe\""),
            "localhost",
        ),
        (
            listener("listen = \"127.0.0.1:0\"\nupstream = \"https://127.0.0.1:9\""),
            "https://127.0.0.1:9",
        ),
        (
            Configuration::new().timeouts("idle = \"0s\"").text(),
            "idle",
        ),
        (
            Configuration::new().component("max_concurrency = 0").text(),
            "max_concurrency",
        ),
        (
            Configuration::new()
                .component("memory_limit = \"1KiB\"")
                .text(),
            "memory_limit",
        ),
        (rest("[proxy]\nworkers = 0"), "workers"),
        (rest("[policy]\npath = \"nowhere\""), "nowhere"),
        (
            rest("[policy]\npath = \"nowhere\"\ntimeout = \"1m\""),
            "timeout",
        ),
        (
            rest("[[svid_file]]\nspiffe_id = \"spiffe://sidegate.local/no\"\ndirectory = \"x\""),
            "spiffe://sidegate.local/no",
        ),
        (rest("[proxy"), "sidegate.toml:"),
        (String::new(), "identity"),
    ];
    let mut wrong = Vec::new();
    for (text, said) in cases {
        wrong.extend(unlike_a_refusal(&run(&text), &[said]));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_file_that_is_not_there_is_refused_by_name() {
    let folder = folder();
    let path = folder.path().join("nowhere.toml");
    let output = start(&path);
    assert_refused(&output, &["nowhere.toml"]);
}

#[test]
fn a_component_that_no_entry_names_gets_no_identity_and_nothing_starts() {
    let folder = folder();
    let mut configuration = Configuration::new();
    let digest = crate::support::digest(&sidegate_tests::guest("probe"));
    configuration.entries = configuration.entries.replace(&digest, &"0".repeat(64));
    let path = configuration.write(folder.path());
    let output = start(&path);
    assert_refused(&output, &["`main`", &digest]);
}
