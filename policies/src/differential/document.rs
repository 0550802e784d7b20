//! Documents to ask about: OPA-Envoy's, with some parts chosen.

use std::mem::discriminant;

use serde_json::{Map, Value as Json};

use crate::syntax::{InputPath, Step};

/// A request like any other; what a policy asks for is put over it.
const BASE: &str = r#"{
  "attributes": {
    "contextExtensions": {"listener": "public"},
    "destination": {
      "address": {"socketAddress": {"address": "192.0.2.1", "portValue": 8443}},
      "principal": "spiffe://sidegate.local/orders"
    },
    "metadataContext": {},
    "request": {
      "http": {
        "headers": {
          ":authority": "orders.example",
          ":method": "GET",
          ":path": "/orders/7?item=a",
          ":scheme": "https",
          "accept": "application/json",
          "user-agent": "client/1.0",
          "x-request-id": "4b3a"
        },
        "host": "orders.example",
        "id": "4b3a",
        "method": "GET",
        "path": "/orders/7?item=a",
        "protocol": "HTTP/2",
        "scheme": "https",
        "size": 12
      },
      "time": {"nanos": 5, "seconds": 1700000000}
    },
    "routeMetadataContext": {},
    "source": {
      "address": {"socketAddress": {"address": "192.0.2.7", "portValue": 40001}},
      "certificate": "-----BEGIN%20CERTIFICATE-----%0A",
      "principal": "spiffe://sidegate.local/frontend"
    },
    "tlsSession": {"sni": "orders.example"}
  },
  "parsed_body": null,
  "parsed_path": ["orders", "7"],
  "parsed_query": {"item": ["a"]},
  "source_principal": "spiffe://sidegate.local/frontend",
  "truncated_body": false,
  "version": {"encoding": "protojson", "ext_authz": "v3"}
}"#;

/// Places that show the same; the second follows the first unless it was chosen itself.
const SAME: [(&str, &str); 5] = [
    (
        "attributes.request.http.method",
        "attributes.request.http.headers.:method",
    ),
    (
        "attributes.request.http.host",
        "attributes.request.http.headers.:authority",
    ),
    (
        "attributes.request.http.scheme",
        "attributes.request.http.headers.:scheme",
    ),
    (
        "attributes.request.http.path",
        "attributes.request.http.headers.:path",
    ),
    ("source_principal", "attributes.source.principal"),
];
const PATH: &str = "attributes.request.http.path";

/// No policy looks at an element further back, but for one that is a mistake.
const ELEMENTS: u64 = 64;

/// A document in the making.
#[derive(Debug, Clone)]
pub(super) struct Document {
    whole: Json,
    /// What a policy asks for: the first wish counts.
    chosen: Vec<InputPath>,
}

impl Document {
    pub(super) fn base() -> Self {
        Self::of(serde_json::from_str(BASE).unwrap_or_default())
    }

    /// One that is there already.
    pub(super) fn of(whole: Json) -> Self {
        Self {
            whole,
            chosen: Vec::new(),
        }
    }

    pub(super) fn at(&self, path: &[Step]) -> Option<&Json> {
        at(&self.whole, path)
    }

    /// What was chosen, in that order.
    pub(super) fn chosen(&self) -> &[InputPath] {
        &self.chosen
    }

    pub(super) fn is_chosen(&self, path: &[Step]) -> bool {
        self.chosen.iter().any(|chosen| chosen.starts_with(path))
    }

    /// Puts a value somewhere, unless that or a part of it was chosen already, or no request has
    /// such a value there.
    pub(super) fn choose(&mut self, path: &[Step], value: Json) {
        let taken = |chosen: &InputPath| chosen.starts_with(path) || path.starts_with(chosen);
        let header = path
            .iter()
            .any(|step| *step == Step::Member("headers".into()));
        let fits = match self.at(path) {
            None | Some(Json::Null) => !header || value.is_string(),
            Some(there) => discriminant(there) == discriminant(&value),
        };
        if fits && !self.chosen.iter().any(taken) {
            put(&mut self.whole, path, value);
            self.chosen.push(path.to_vec());
        }
    }

    /// Makes what is there an array of so many elements, unless some of it was chosen already.
    pub(super) fn resize(&mut self, path: &[Step], length: usize) {
        let kept = match self.at(path) {
            Some(Json::Array(elements)) => elements.clone(),
            _ => Vec::new(),
        };
        if !self.is_chosen(path) && length <= ELEMENTS as usize {
            let filler = std::iter::repeat_with(|| Json::from("x"));
            let elements = kept.into_iter().chain(filler).take(length).collect();
            put(&mut self.whole, path, elements);
        }
    }

    /// The document with another value somewhere, whatever was chosen there.
    pub(super) fn with(&self, path: &[Step], value: Json) -> Self {
        let mut changed = self.clone();
        put(&mut changed.whole, path, value);
        changed.chosen.push(path.to_vec());
        changed
    }

    /// The finished document without what is at a path.
    pub(super) fn without(&self, path: &[Step]) -> Json {
        let mut document = self.clone().finish();
        remove(&mut document, path);
        document
    }

    /// The document, with those places brought into line that show the same as a chosen one.
    pub(super) fn finish(mut self) -> Json {
        for (first, second) in SAME.map(|(first, second)| (fixed(first), fixed(second))) {
            match (self.is_chosen(&first), self.is_chosen(&second)) {
                (true, false) => self.copy(&first, &second),
                (false, true) => self.copy(&second, &first),
                _ => {}
            }
        }
        let (path, segments, query) = (fixed(PATH), fixed("parsed_path"), fixed("parsed_query"));
        let target = self.at(&path).and_then(Json::as_str).map(str::to_owned);
        let path_is_chosen = self
            .chosen
            .iter()
            .any(|chosen| *chosen == path || chosen.last() == Some(&Step::Member(":path".into())));
        if path_is_chosen {
            let target = target.unwrap_or_default();
            let (before, after) = target.split_once('?').unwrap_or((&target, ""));
            if !self.is_chosen(&segments) {
                let parts = before.trim_start_matches('/').split('/');
                put(&mut self.whole, &segments, parts.collect());
            }
            if !self.is_chosen(&query) {
                put(&mut self.whole, &query, query_object(after));
            }
        } else if self.is_chosen(&segments) {
            let parts: Option<Vec<&str>> = self
                .at(&segments)
                .and_then(Json::as_array)
                .and_then(|parts| parts.iter().map(Json::as_str).collect());
            if let Some(parts) = parts {
                let text = Json::from(format!("/{}", parts.join("/")));
                put(&mut self.whole, &path, text);
                self.copy(&path, &fixed("attributes.request.http.headers.:path"));
            }
        }
        self.whole
    }

    fn copy(&mut self, from: &[Step], to: &[Step]) {
        if let Some(value) = self.at(from).cloned() {
            put(&mut self.whole, to, value);
        }
    }
}

/// A path of members, with dots between them.
fn fixed(path: &str) -> InputPath {
    let members = path.split('.');
    members.map(|name| Step::Member(name.to_owned())).collect()
}

fn query_object(query: &str) -> Json {
    let mut object = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let list = object.entry(key).or_insert_with(|| Json::Array(Vec::new()));
        if let Json::Array(list) = list {
            list.push(value.into());
        }
    }
    object.into()
}

fn at<'a>(whole: &'a Json, path: &[Step]) -> Option<&'a Json> {
    path.iter().try_fold(whole, |value, step| match step {
        Step::Member(name) => value.get(name),
        Step::Element(index) => value.get(usize::try_from(*index).ok()?),
    })
}

/// Puts a value at a path, and what it takes to get there.
fn put(whole: &mut Json, path: &[Step], value: Json) {
    let Some((first, rest)) = path.split_first() else {
        *whole = value;
        return;
    };
    match first {
        Step::Member(name) => {
            if !whole.is_object() {
                *whole = Json::Object(Map::new());
            }
            if let Json::Object(members) = whole {
                put(members.entry(name).or_insert(Json::Null), rest, value);
            }
        }
        Step::Element(index) => {
            if !whole.is_array() {
                *whole = Json::Array(Vec::new());
            }
            let index = (*index).min(ELEMENTS) as usize;
            if let Json::Array(elements) = whole {
                while elements.len() <= index {
                    elements.push("x".into());
                }
                if let Some(element) = elements.get_mut(index) {
                    put(element, rest, value);
                }
            }
        }
    }
}

fn remove(whole: &mut Json, path: &[Step]) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    match (first, whole) {
        (Step::Member(name), Json::Object(members)) => {
            if rest.is_empty() {
                members.remove(name);
            } else if let Some(member) = members.get_mut(name) {
                remove(member, rest);
            }
        }
        (Step::Element(index), Json::Array(elements)) => {
            let index = usize::try_from(*index).unwrap_or(usize::MAX);
            if rest.is_empty() {
                elements.truncate(index);
            } else if let Some(element) = elements.get_mut(index) {
                remove(element, rest);
            }
        }
        _ => {}
    }
}
