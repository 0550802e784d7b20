//! JSON bodies as Rego values.

use std::cell::Cell;
use std::fmt;

use regorus::Value;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::super::Members;
use super::BodyProblem;

/// How many arrays and objects may be inside each other. Whoever compares or
/// drops values goes down as deep.
pub(super) const DEPTH: usize = 100;

/// Parses one JSON value with nothing after it. Numbers that 64 bits do not
/// hold become floating-point numbers.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, BodyProblem> {
    let problem = Cell::new(BodyProblem::Json);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let node = Node {
        depth: 0,
        problem: &problem,
    };
    let value = node.deserialize(&mut deserializer);
    let value = value.map_err(|_| problem.get())?;
    deserializer.end().map_err(|_| BodyProblem::Json)?;
    Ok(value)
}

/// A value in the making, and how deep it is.
#[derive(Clone, Copy)]
struct Node<'a> {
    depth: usize,
    /// What is wrong, where it is something else than the syntax.
    problem: &'a Cell<BodyProblem>,
}

impl Node<'_> {
    fn inner<E: Error>(self) -> Result<Self, E> {
        if self.depth >= DEPTH {
            return Err(self.refuse(BodyProblem::JsonDepth));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }

    fn refuse<E: Error>(self, problem: BodyProblem) -> E {
        self.problem.set(problem);
        E::custom(problem)
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::from(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut members = Members::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(inner)?;
            if members.insert(Value::from(key), value).is_some() {
                return Err(self.refuse(BodyProblem::JsonDuplicateKey));
            }
        }
        Ok(Value::from(members))
    }
}
