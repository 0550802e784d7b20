//! YAML as OPA reads it: the first of several documents, with merged keys, of
//! equal keys the last, and names that are texts.

use std::collections::BTreeMap;
use std::fmt;

use regorus::Value;
use serde::de::{
    Deserialize, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::values::text;

/// `yaml.unmarshal(text)`.
pub(super) fn unmarshal(arguments: &[Value]) -> Option<Value> {
    let [yaml] = arguments else { return None };
    let mut documents = yaml_serde::Deserializer::from_str(text(yaml)?);
    let first = match documents.next() {
        // Nothing at all is null.
        Some(document) => match Option::<Node>::deserialize(document).ok()? {
            Some(node) => node.value()?,
            None => Value::Null,
        },
        None => Value::Null,
    };
    // The rest is read only to see that it can be.
    for document in documents {
        Option::<Node>::deserialize(document).ok()?;
    }
    Some(first)
}

/// `yaml.is_valid(text)`: false of what is no string.
pub(super) fn is_valid(arguments: &[Value]) -> Option<Value> {
    let [_] = arguments else { return None };
    Some(unmarshal(arguments).is_some().into())
}

/// A document as it stands there.
enum Node {
    Scalar(Value),
    /// A number that no JSON has.
    Unwritable,
    Sequence(Vec<Node>),
    Mapping(Vec<(Node, Node)>),
}

impl Node {
    /// `None` where JSON could not have it.
    fn value(self) -> Option<Value> {
        match self {
            Self::Scalar(value) => Some(value),
            Self::Unwritable => None,
            Self::Sequence(items) => {
                let items = items.into_iter().map(Self::value);
                items.collect::<Option<Vec<Value>>>().map(Value::from)
            }
            Self::Mapping(members) => members_of(members).map(Value::from),
        }
    }
}

/// Members by name; what is merged gives way to what is there, and what is
/// merged first to nothing that is merged later.
fn members_of(pairs: Vec<(Node, Node)>) -> Option<BTreeMap<Value, Value>> {
    let mut members = BTreeMap::new();
    let mut merged = BTreeMap::new();
    for (name, value) in pairs {
        let name = name_of(&name)?;
        if &*name != "<<" {
            members.insert(Value::from(name), value.value()?);
            continue;
        }
        let sources = match value {
            Node::Mapping(source) => vec![source],
            Node::Sequence(sources) => {
                let sources = sources.into_iter().map(|source| match source {
                    Node::Mapping(source) => Some(source),
                    _ => None,
                });
                sources.collect::<Option<Vec<_>>>()?
            }
            _ => return None,
        };
        for source in sources {
            for (name, value) in members_of(source)? {
                merged.entry(name).or_insert(value);
            }
        }
    }
    for (name, value) in merged {
        members.entry(name).or_insert(value);
    }
    Some(members)
}

fn name_of(node: &Node) -> Option<String> {
    match node {
        Node::Scalar(Value::String(name)) => Some(name.to_string()),
        Node::Scalar(Value::Bool(name)) => Some(name.to_string()),
        Node::Scalar(Value::Number(name)) => Some(name.format_decimal()),
        _ => None,
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(if value.is_finite() {
            Node::Scalar(value.into())
        } else {
            Node::Unwritable
        })
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Node::Mapping(members))
    }

    /// A tag that is not YAML's own says nothing.
    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Node, A::Error> {
        let (_, value): (String, _) = tagged.variant()?;
        value.newtype_variant()
    }
}
