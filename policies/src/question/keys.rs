//! Keys that an object of a JSON document has twice: which of the two counts is not the same to
//! everybody who reads it.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::InputDocumentError;
use crate::error::EngineMessage;

/// The first of them, with its place. What is wrong otherwise is not told.
pub(super) fn duplicate(text: &str) -> Option<InputDocumentError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let error = Keys.deserialize(&mut deserializer).err()?;
    error.is_data().then(|| {
        let told = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        InputDocumentError {
            message: EngineMessage::new(told.strip_suffix(&place).unwrap_or(&told)),
            place: (error.line() > 0).then(|| (error.line(), error.column().max(1))),
        }
    })
}

/// Looks through one value.
#[derive(Clone, Copy)]
struct Keys;

impl<'de> DeserializeSeed<'de> for Keys {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keys {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if keys.contains(&key) {
                let problem = format!("an object has the key {key:?} twice");
                return Err(A::Error::custom(problem));
            }
            keys.insert(key);
            map.next_value_seed(self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::InputDocument;

    #[test]
    fn a_key_that_is_there_twice_is_refused_by_name_and_place() {
        for (text, key, place) in [
            (r#"{"user": "a", "user": "b"}"#, r#""user""#, (1, 20)),
            (r#"{"user": "a", "\u0075ser": "a"}"#, r#""user""#, (1, 25)),
            ("[{\"a\": {\n\"x\": 1,\n\"x\": 1}}]", r#""x""#, (3, 3)),
        ] {
            let error = InputDocument::parse(text).unwrap_err();
            let told = error.to_string();
            assert_eq!(told, format!("an object has the key {key} twice"), "{text}");
            assert_eq!(error.place, Some(place), "{text}");
        }
    }

    #[test]
    fn the_same_key_in_two_objects_is_no_duplicate() {
        for text in [
            r#"{"a": {"a": 1}, "b": [{"a": -1}, {"a": 1.5}], "c": null, "d": true, "e": "a"}"#,
            "18446744073709551616",
            "1e400",
        ] {
            assert!(super::duplicate(text).is_none(), "{text}");
        }
        assert!(InputDocument::parse(r#"{"a": [{"a": 1}, {"a": 2}]}"#).is_ok());
    }
}
