//! Values to try: those that a policy and its data name, and those that requests have.

use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::{Value as Json, json};

use super::bodies::Bodies;
use super::texts;
use crate::syntax::Step;

/// Texts taken out of the data.
const SAMPLES: usize = 64;

/// Texts that requests have.
const USUAL: [&str; 19] = [
    "",
    "GET",
    "POST",
    "PUT",
    "DELETE",
    "OPTIONS",
    "https",
    "http",
    "HTTP/1.1",
    "HTTP/2",
    "/",
    "/orders/7?item=a",
    "orders.example",
    "spiffe://sidegate.local/frontend",
    "spiffe://sidegate.local/orders",
    "spiffe://example.org/frontend",
    "Bearer token",
    "192.0.2.7",
    "7",
];

pub(super) struct Pool {
    texts: Vec<String>,
    /// Texts that may be a segment of a path.
    segments: Vec<String>,
    numbers: Vec<Json>,
    /// Values that are neither.
    others: Vec<Json>,
}

impl Pool {
    /// Collects what the bodies of the rules and the data name.
    pub(super) fn new(bodies: &Bodies<'_>, data: &Json) -> Self {
        let mut texts: Vec<String> = USUAL.iter().map(|text| (*text).to_owned()).collect();
        let mut numbers = vec![json!(-1), json!(7)];
        for rule in bodies.rules() {
            literals(rule, &mut texts, &mut numbers);
        }
        let mut others = numbers.clone();
        others.extend([json!(null), json!(true), json!([]), json!({}), json!(["x"])]);
        let named = texts.len();
        leaves(data, named.saturating_add(SAMPLES), &mut texts);
        let patterns = texts.iter().filter(|text| text.contains(['*', '{']));
        let matching: Vec<String> = patterns.map(|pattern| texts::of_glob(pattern)).collect();
        texts.extend(matching);
        texts.sort();
        texts.dedup();
        // The interpreter takes a number for the key of the same text, the machine does not.
        let like_numbers = texts.iter().filter_map(|text| text.parse::<i64>().ok());
        numbers.extend(like_numbers.map(Json::from));
        let segments = texts.iter().flat_map(|text| text.split('/'));
        let segments = segments.filter(|text| !text.contains(['*', '?', ':', ' ']));
        let mut segments: Vec<String> = segments.map(str::to_owned).collect();
        segments.sort();
        segments.dedup();
        Self {
            texts,
            segments,
            numbers,
            others,
        }
    }

    /// A value for a part of the document, of the kind that is always there: the engines need not
    /// agree about requests that there cannot be.
    pub(super) fn value(&self, path: &[Step], random: &mut SmallRng) -> Json {
        let names: Vec<&str> = path.iter().map_while(member).collect();
        match (names.as_slice(), path.len()) {
            (["parsed_path"], 1) => {
                let length = random.random_range(1..4);
                (0..length).map(|_| self.segment(random)).collect()
            }
            (["parsed_path"], _) => self.segment(random),
            (["parsed_query"], 1) => json!({ self.text(random): [self.text(random)] }),
            (["parsed_query", _], 2) => json!([self.text(random)]),
            ([.., "path" | ":path"], _) => {
                let length: usize = random.random_range(1..4);
                (0..length)
                    .map(|_| format!("/{}", self.segment(random).as_str().unwrap_or_default()))
                    .collect::<String>()
                    .into()
            }
            ([.., "size" | "seconds" | "nanos" | "portValue"], _) => {
                pick(&self.numbers, random).cloned().unwrap_or_default()
            }
            (["parsed_body", ..], _) if random.random() => {
                pick(&self.others, random).cloned().unwrap_or_default()
            }
            _ => self.text(random).into(),
        }
    }

    /// Any text.
    fn text(&self, random: &mut SmallRng) -> String {
        pick(&self.texts, random).cloned().unwrap_or_default()
    }

    fn segment(&self, random: &mut SmallRng) -> Json {
        let segment = pick(&self.segments, random);
        segment.cloned().unwrap_or_default().into()
    }
}

fn member(step: &Step) -> Option<&str> {
    match step {
        Step::Member(name) => Some(name),
        Step::Element(_) => None,
    }
}

fn pick<'a, Item>(items: &'a [Item], random: &mut SmallRng) -> Option<&'a Item> {
    match items.len() {
        0 => None,
        length => items.get(random.random_range(0..length)),
    }
}

/// The scalars that a syntax tree names.
fn literals(tree: &Json, texts: &mut Vec<String>, numbers: &mut Vec<Json>) {
    match tree {
        Json::Object(members) => {
            for (kind, member) in members {
                match (kind.as_str(), member.get("value")) {
                    ("String" | "RawString", Some(Json::String(text))) => texts.push(text.clone()),
                    ("Number", Some(number)) => {
                        numbers.push(number.clone());
                        numbers.extend(number.as_i64().map(|number| json!(number + 1)));
                        texts.push(number.to_string());
                    }
                    _ => literals(member, texts, numbers),
                }
            }
        }
        Json::Array(members) => members
            .iter()
            .for_each(|member| literals(member, texts, numbers)),
        _ => {}
    }
}

/// Keys and texts of the data, until there are enough; of long lists, the beginning.
fn leaves(data: &Json, enough: usize, texts: &mut Vec<String>) {
    const EACH: usize = 8;
    if texts.len() >= enough {
        return;
    }
    match data {
        Json::String(text) => texts.push(text.clone()),
        Json::Array(elements) => elements
            .iter()
            .take(EACH)
            .for_each(|element| leaves(element, enough, texts)),
        Json::Object(members) => {
            for (key, member) in members.iter().take(EACH) {
                texts.push(key.clone());
                leaves(member, enough, texts);
            }
        }
        _ => {}
    }
}
