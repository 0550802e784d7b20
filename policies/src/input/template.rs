//! A document that is filled anew for each request: its objects stay, only their members change.
//!
//! Building objects is most of what a document costs. Here a member that a request does not have is
//! there and undefined, which only those policies could tell from absent that read a whole object:
//! for them there is no template.

use regorus::Value;
use regorus::value::Object;

use super::connection::ConnectionFacts;
use super::read_set::{Field, ReadSet};
use super::request::{ConnectionPart, InputKeys, RequestFacts};
use super::{Members, constant_attributes};

/// A document and its places, each with the key that leads to it.
pub(crate) struct Template {
    document: Value,
    parsed: Vec<(Value, Field)>,
    connection: Vec<(Value, ConnectionPart)>,
    time: bool,
    http: Vec<(Value, Field)>,
    headers: Vec<(Field, Value)>,
}

impl Template {
    /// A template for what is read; `None` for policies that read an object as a whole.
    pub(crate) fn new(keys: &InputKeys, reads: &ReadSet) -> Option<Self> {
        if reads.whole() || reads.contains(&Field::Body) {
            return None;
        }
        let own = |(key, field): (&Value, Field)| (key.clone(), field);
        let parsed: Vec<_> = keys.parsed_fields().map(own).into();
        let parsed = parsed
            .into_iter()
            .filter(|(_, whole)| reads.any(|field| field.is_part_of(whole)));
        let http: Vec<_> = keys.http_fields().map(own).into();
        let http = http.into_iter().filter(|(_, field)| reads.contains(field));
        let connection = keys.connection_parts();
        let connection = connection
            .iter()
            .filter(|(_, part)| reads.any(|field| field.is_of(*part)))
            .map(|(key, part)| ((*key).clone(), *part));
        let mut template = Self {
            document: Value::Undefined,
            parsed: parsed.collect(),
            connection: connection.collect(),
            time: reads.contains(&Field::Time),
            http: http.collect(),
            headers: reads.headers().to_vec(),
        };
        template.document = template.empty(keys);
        Some(template)
    }

    /// All objects, with nothing in them.
    fn empty(&self, keys: &InputKeys) -> Value {
        let nothing = || Value::Undefined;
        let mut http: Members = self
            .http
            .iter()
            .map(|(key, _)| (key.clone(), nothing()))
            .collect();
        if !self.headers.is_empty() {
            let headers = self.headers.iter().map(|(_, key)| (key.clone(), nothing()));
            http.insert(keys.headers.clone(), headers.collect::<Members>().into());
        }
        let mut request = Members::from([(keys.http.clone(), http.into())]);
        if self.time {
            request.insert(keys.time.clone(), nothing());
        }
        let mut attributes = constant_attributes();
        attributes.insert(keys.request.clone(), request.into());
        attributes.extend(
            self.connection
                .iter()
                .map(|(key, _)| (key.clone(), nothing())),
        );
        let mut document = Members::from([
            (keys.attributes.clone(), attributes.into()),
            (keys.version.clone(), keys.version_value.clone()),
        ]);
        document.extend(self.parsed.iter().map(|(key, _)| (key.clone(), nothing())));
        document.into()
    }

    /// What there is of a whole document in an empty template.
    pub(crate) fn shaped(&self, keys: &InputKeys, document: &Value) -> Value {
        shaped(&self.empty(keys), document)
    }

    /// The document of a request. Cheap only if the one of the last request is gone.
    pub(crate) fn fill(
        &mut self,
        keys: &InputKeys,
        connection: &ConnectionFacts,
        request: &RequestFacts,
    ) -> Value {
        let value = |field| keys.value(field, connection, request);
        if let Ok(document) = self.document.as_object_mut() {
            for (key, field) in &self.parsed {
                put(document, key, value(field));
            }
            if let Some(attributes) = object(document, &keys.attributes) {
                for (key, part) in &self.connection {
                    put(attributes, key, part.value(connection));
                }
                if let Some(request) = object(attributes, &keys.request) {
                    if self.time {
                        put(request, &keys.time, value(&Field::Time));
                    }
                    if let Some(http) = object(request, &keys.http) {
                        for (key, field) in &self.http {
                            put(http, key, value(field));
                        }
                        if let Some(headers) = object(http, &keys.headers) {
                            for (field, key) in &self.headers {
                                put(headers, key, value(field));
                            }
                        }
                    }
                }
            }
        }
        self.document.clone()
    }
}

/// The members of a template's object, with the values that another object has.
fn shaped(template: &Value, document: &Value) -> Value {
    let Value::Object(members) = template else {
        return document.clone();
    };
    let member = |key: &Value| match document {
        Value::Object(members) => members.get(key).cloned().unwrap_or(Value::Undefined),
        _ => Value::Undefined,
    };
    members
        .iter()
        .map(|(key, template)| (key.clone(), shaped(template, &member(key))))
        .collect::<Members>()
        .into()
}

fn put(object: &mut Object, key: &Value, value: Value) {
    if let Some(place) = object.get_mut(key) {
        *place = value;
    }
}

fn object<'a>(parent: &'a mut Object, key: &Value) -> Option<&'a mut Object> {
    parent.get_mut(key)?.as_object_mut().ok()
}
