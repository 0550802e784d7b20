//! What `explain` and `replay` print, as golden files.

use serde_json::{Value as Json, json};
use sidegate_policy::explain::{ExplainOptions, explain, read_set};
use sidegate_policy::question::InputDocument;
use sidegate_policy::replay::{LoggedDecision, Replay};

use super::replay::{Counts, Line};
use super::tests::{compare, files, pretty};
use super::{SCHEMA, explain_text, usable};

fn request(principal: &str, path: &[&str]) -> Json {
    json!({
        "attributes": {"request": {"http": {
            "method": "GET",
            "path": format!("/{}?token=s3cret", path.join("/")),
            "headers": {"authorization": "Bearer s3cret"},
        }}},
        "parsed_path": path,
        "source_principal": principal,
    })
}

#[test]
fn explanations_are_shown_as_the_golden_texts_say() {
    let files = files("explained");
    let sources = usable(&files).unwrap();
    let style = regex::Regex::new("\x1b\\[[0-9;]*m").unwrap();
    for (name, principal, path) in [
        (
            "stranger",
            "spiffe://prod.example/web",
            &["orders", "7"][..],
        ),
        (
            "blocked",
            "spiffe://prod.example/shop",
            &["orders", "internal"],
        ),
        ("allowed", "spiffe://prod.example/shop", &["orders", "7"]),
    ] {
        let input = InputDocument::parse(&request(principal, path).to_string()).unwrap();
        let explanation = explain(&sources, &input, &ExplainOptions::default()).unwrap();
        let text = explain_text::explanation(&explanation, &files, false);
        assert!(!text.contains("s3cret"), "{text}");
        compare(&format!("explained.{name}"), &text);
        let document = super::explain::Document {
            schema: SCHEMA,
            explanation: &explanation,
            decision_id: None,
            removed: &[],
        };
        let document = pretty(&document);
        assert!(!document.contains("s3cret"), "{document}");
        if name == "stranger" {
            compare(&format!("explained.{name}.json"), &document);
        }
        let styled = explain_text::explanation(&explanation, &files, true);
        assert_eq!(
            style.replace_all(&styled, ""),
            text,
            "color changes no word"
        );
    }
}

#[test]
fn a_read_set_is_shown_as_the_golden_text_says() {
    let sources = usable(&files("explained")).unwrap();
    let report = read_set(&sources, "envoy/authz/allow").unwrap();
    compare("explained.read-set", &explain_text::read_set(&report));
    compare("explained.read-set.json", &pretty(&report));
}

#[test]
fn replayed_decisions_are_shown_as_the_golden_texts_say() {
    let sources = usable(&files("explained")).unwrap();
    let mut replay = Replay::new(sources, None, super::input::TIME_LIMIT).unwrap();
    let shop = request("spiffe://prod.example/shop", &["orders"]);
    let stranger = request("spiffe://prod.example/we\u{1b}b", &["orders"]);
    let authorization = "/input/attributes/request/http/headers/authorization";
    let mut counts = Counts::default();
    let mut found = String::new();
    for (id, result, input, erased) in [
        ("stays", json!(true), shop.clone(), json!([])),
        ("now-denied", json!(true), stranger.clone(), json!([])),
        (
            "now-allowed",
            json!({"allowed": false}),
            shop.clone(),
            json!([]),
        ),
        ("erased", json!(true), shop, json!([authorization])),
        ("withheld", json!(true), Json::Null, json!(["/input"])),
    ] {
        let event = json!({
            "decision_id": id, "path": "envoy/authz/allow", "result": result, "input": input,
            "erased": erased, "timestamp": "2026-11-02T09:00:00Z",
        });
        let event: LoggedDecision = serde_json::from_value(event).unwrap();
        let replayed = replay.decide(&event);
        counts.add(&replayed);
        found.push_str(&super::replay::text(&event, &replayed));
        let line = serde_json::to_string(&Line::of(7, &event, &replayed)).unwrap();
        found.push_str(&format!("  {line}\n"));
    }
    found.push_str(&super::replay::summary(&counts));
    assert!(
        !found.contains("s3cret") && !found.contains('\u{1b}'),
        "{found}"
    );
    compare("explained.replay", &found);
}
