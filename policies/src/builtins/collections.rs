//! Small builtins that the engine lacks: two of later versions of OPA, and
//! those that OPA keeps for policies in Rego v0.

use regorus::Value;

use super::values::{members, set, text};

/// `all(collection)`: whether every member is true.
pub(super) fn all(arguments: &[Value]) -> Option<Value> {
    let [collection] = arguments else { return None };
    let truth = Value::Bool(true);
    let all = members(collection)?.into_iter().all(|item| *item == truth);
    Some(all.into())
}

/// `any(collection)`: whether some member is true.
pub(super) fn any(arguments: &[Value]) -> Option<Value> {
    let [collection] = arguments else { return None };
    let any = members(collection)?.contains(&&Value::Bool(true));
    Some(any.into())
}

/// `array.flatten(array)`: the array with the members of its arrays.
pub(super) fn flatten(arguments: &[Value]) -> Option<Value> {
    let [Value::Array(array)] = arguments else {
        return None;
    };
    let mut flat = Vec::new();
    for item in array.iter() {
        match item {
            Value::Array(inner) => flat.extend(inner.iter().cloned()),
            other => flat.push(other.clone()),
        }
    }
    Some(Value::from(flat))
}

/// `object.get(object, key, default)`, or with the path of a member of members. A member without a
/// value is as one that is not there, which the engine's own does not say of all.
pub(super) fn get(arguments: &[Value]) -> Option<Value> {
    let [object @ Value::Object(_), key, default] = arguments else {
        return None;
    };
    let path = match key {
        Value::Array(path) => path.as_slice(),
        key => std::slice::from_ref(key),
    };
    let found = path
        .iter()
        .try_fold(object, |value, key| match &value[key] {
            Value::Undefined => None,
            member => Some(member),
        });
    Some(found.unwrap_or(default).clone())
}

/// `object.subset(whole, part)`: of objects with what is in them, of sets, of
/// arrays in their order, and of a set in an array. The engine's own panics
/// where the part is an empty array.
pub(super) fn subset(arguments: &[Value]) -> Option<Value> {
    let [whole, part] = arguments else {
        return None;
    };
    let subset = match (whole, part) {
        (Value::Array(whole), Value::Set(part)) => {
            part.iter_sorted().all(|item| whole.contains(item))
        }
        (whole, part) => is_subset(whole, part)?,
    };
    Some(subset.into())
}

/// `None` of values of different types, and of those that hold nothing.
fn is_subset(whole: &Value, part: &Value) -> Option<bool> {
    Some(match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part.iter().all(|(key, part)| {
            let whole = whole.get(key);
            whole.is_some_and(|whole| whole == part || is_subset(whole, part) == Some(true))
        }),
        (Value::Set(whole), Value::Set(part)) => part.is_subset(whole),
        (Value::Array(whole), Value::Array(part)) => {
            let (whole, part) = (whole.as_slice(), part.as_slice());
            part.is_empty() || whole.windows(part.len()).any(|window| window == part)
        }
        _ => return None,
    })
}

/// `strings.split_n(text, separator, count)`: the first parts, or the last ones
/// if the count is negative.
pub(super) fn split_n(arguments: &[Value]) -> Option<Value> {
    let [subject, separator, count] = arguments else {
        return None;
    };
    let (subject, separator) = (text(subject)?, text(separator)?);
    let count = count.as_i64().ok()?;
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let parts: Vec<Value> = if separator.is_empty() {
        subject
            .chars()
            .map(|character| Value::from(character.to_string()))
            .collect()
    } else {
        subject.split(separator).map(Value::from).collect()
    };
    let before = if count < 0 {
        parts.len().saturating_sub(wanted)
    } else {
        0
    };
    let parts = parts.into_iter().skip(before).take(wanted);
    Some(Value::from(parts.collect::<Vec<Value>>()))
}

/// `strings.count(text, part)`; the engine's own panics where the part is empty.
pub(super) fn count(arguments: &[Value]) -> Option<Value> {
    let [subject, part] = arguments else {
        return None;
    };
    let (subject, part) = (text(subject)?, text(part)?);
    // Before, between and after all characters where it is empty.
    Some(subject.matches(part).count().into())
}

/// `strings.replace_n(replacements, text)`: at every place the first of the
/// replacements that fits, in the order of their keys; what was put in is not
/// looked at again.
pub(super) fn replace_n(arguments: &[Value]) -> Option<Value> {
    let [Value::Object(replacements), subject] = arguments else {
        return None;
    };
    let pairs = replacements
        .iter_sorted()
        .map(|(old, new)| Some((text(old)?, text(new)?)));
    let pairs = pairs.collect::<Option<Vec<(&str, &str)>>>()?;
    let mut rest = text(subject)?;
    let mut replaced = String::with_capacity(rest.len());
    // An empty key fits everywhere, but only once between two characters.
    let mut after_empty = false;
    loop {
        let fitting = pairs
            .iter()
            .filter(|(old, _)| !(after_empty && old.is_empty()))
            .find_map(|(old, new)| Some((old, new, rest.strip_prefix(old)?)));
        if let Some((old, new, after)) = fitting {
            replaced.push_str(new);
            after_empty = old.is_empty();
            rest = after;
            if !after_empty || !rest.is_empty() {
                continue;
            }
        }
        let Some(first) = rest.chars().next() else {
            return Some(replaced.into());
        };
        replaced.push(first);
        rest = rest.get(first.len_utf8()..)?;
        after_empty = false;
    }
}

/// `set_diff(left, right)`.
pub(super) fn set_diff(arguments: &[Value]) -> Option<Value> {
    let [Value::Set(left), Value::Set(right)] = arguments else {
        return None;
    };
    Some(Value::from(left.difference(right)))
}

/// `cast_array(collection)`.
pub(super) fn cast_array(arguments: &[Value]) -> Option<Value> {
    let [collection] = arguments else { return None };
    let items = members(collection)?.into_iter().cloned();
    Some(Value::from(items.collect::<Vec<Value>>()))
}

/// `cast_set(collection)`.
pub(super) fn cast_set(arguments: &[Value]) -> Option<Value> {
    let [collection] = arguments else { return None };
    Some(set(members(collection)?.into_iter().cloned()))
}

pub(super) fn cast_boolean(arguments: &[Value]) -> Option<Value> {
    itself(arguments, |value| matches!(value, Value::Bool(_)))
}

pub(super) fn cast_null(arguments: &[Value]) -> Option<Value> {
    itself(arguments, |value| matches!(value, Value::Null))
}

pub(super) fn cast_object(arguments: &[Value]) -> Option<Value> {
    itself(arguments, |value| matches!(value, Value::Object(_)))
}

pub(super) fn cast_string(arguments: &[Value]) -> Option<Value> {
    itself(arguments, |value| matches!(value, Value::String(_)))
}

/// A value if it is of the type.
fn itself(arguments: &[Value], is: impl Fn(&Value) -> bool) -> Option<Value> {
    let [value] = arguments else { return None };
    is(value).then(|| value.clone())
}
