//! Names of subjects and issuers: `pkix.Name`.

use std::collections::BTreeMap;

use regorus::Value;
use x509_parser::x509::X509Name;

use super::fields::{dotted, identifier};
use crate::builtins::values::object;

/// The lists of a name, by the last number of their type `2.5.4.*`.
const LISTS: &[(&str, &str)] = &[
    ("2.5.4.6", "Country"),
    ("2.5.4.7", "Locality"),
    ("2.5.4.8", "Province"),
    ("2.5.4.9", "StreetAddress"),
    ("2.5.4.10", "Organization"),
    ("2.5.4.11", "OrganizationalUnit"),
    ("2.5.4.17", "PostalCode"),
];

/// What there is once; of several the last one counts.
const SINGLES: &[(&str, &str)] = &[("2.5.4.3", "CommonName"), ("2.5.4.5", "SerialNumber")];

/// `None` if a value is of no type of string that Go reads.
pub(super) fn document(name: &X509Name<'_>) -> Option<Value> {
    let mut members: BTreeMap<Value, Value> = BTreeMap::new();
    for (_, member) in LISTS {
        members.insert((*member).into(), Value::Null);
    }
    for (_, member) in SINGLES {
        members.insert((*member).into(), "".into());
    }
    let mut lists: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let mut names = Vec::new();
    for attribute in name.iter_attributes() {
        let kind = dotted(attribute.attr_type())?;
        let raw = attribute.attr_value();
        let value = Value::from(string(raw.tag().0, raw.data)?);
        if let Some((_, member)) = LISTS.iter().find(|(listed, _)| *listed == kind) {
            lists.entry(member).or_default().push(value.clone());
        }
        if let Some((_, member)) = SINGLES.iter().find(|(single, _)| *single == kind) {
            members.insert((*member).into(), value.clone());
        }
        names.push(object([
            ("Type", identifier(attribute.attr_type())?),
            ("Value", value),
        ]));
    }
    for (member, list) in lists {
        members.insert(member.into(), Value::from(list));
    }
    members.insert(
        "Names".into(),
        if names.is_empty() {
            Value::Null
        } else {
            Value::from(names)
        },
    );
    members.insert("ExtraNames".into(), Value::Null);
    Some(Value::from(members))
}

/// A string of ASN.1 by its tag.
fn string(tag: u32, bytes: &[u8]) -> Option<String> {
    match tag {
        // UTF8String.
        12 => String::from_utf8(bytes.to_vec()).ok(),
        // NumericString, PrintableString and IA5String are ASCII.
        18 | 19 | 22 => bytes.is_ascii().then(|| ascii(bytes)),
        // T61String, read as Latin-1, as Go does.
        20 => Some(ascii(bytes)),
        // BMPString, without the zero that ends it in some.
        30 => {
            let units = bytes.chunks(2).map(|pair| match pair {
                [high, low] => Some(u16::from_be_bytes([*high, *low])),
                _ => None,
            });
            let mut units = units.collect::<Option<Vec<u16>>>()?;
            if units.last() == Some(&0) {
                units.pop();
            }
            String::from_utf16(&units).ok()
        }
        _ => None,
    }
}

fn ascii(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}
