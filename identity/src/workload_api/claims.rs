//! Claims as the Workload API sends them.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

/// A JSON object as a protobuf `Struct`.
pub(super) fn to_struct(claims: &serde_json::Map<String, serde_json::Value>) -> Struct {
    let fields = claims.iter();
    Struct {
        fields: fields
            .map(|(name, value)| (name.clone(), to_value(value)))
            .collect(),
    }
}

fn to_value(value: &serde_json::Value) -> Value {
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(*value),
        // Protobuf's numbers are doubles; a token's times fit.
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => Kind::StringValue(text.clone()),
        serde_json::Value::Array(values) => Kind::ListValue(ListValue {
            values: values.iter().map(to_value).collect(),
        }),
        serde_json::Value::Object(fields) => Kind::StructValue(to_struct(fields)),
    };
    Value { kind: Some(kind) }
}
