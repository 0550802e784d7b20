//! What only a table of TOML, or an object of JSON, may stand for.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Named fields and nothing else: a derived struct would take an array for its fields in order.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Table<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_map(TableVisitor(PhantomData))
            .map(Self)
    }
}

struct TableVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for TableVisitor<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Named {
        name: String,
    }

    #[test]
    fn named_fields_are_taken_and_a_list_of_their_values_is_not() {
        let read = serde_json::from_str::<Table<Named>>;
        assert_eq!(read(r#"{"name":"one"}"#).unwrap().0.name, "one");
        for list in [r#"["one"]"#, "[]", r#""one""#, "null"] {
            let error = read(list).unwrap_err().to_string();
            assert!(error.contains("expected a map"), "{error}");
        }
        assert!(read("{}").is_err());
    }
}
