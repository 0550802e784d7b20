//! A certificate's subject as text (RFC 2253), byte by byte as Envoy has it from BoringSSL.

use std::fmt::Write;

use x509_parser::asn1_rs::{Any, Tag, ToDer};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// The subject, its last part first. `None` if a part is not of its own encoding.
pub(super) fn subject(name: &X509Name<'_>) -> Option<String> {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for part in parts.into_iter().rev() {
        let attributes: Vec<_> = part.iter().collect();
        for (index, attribute) in attributes.into_iter().rev().enumerate() {
            if !text.is_empty() {
                text.push(if index == 0 { ',' } else { '+' });
            }
            push_attribute(&mut text, attribute)?;
        }
    }
    Some(text)
}

fn push_attribute(text: &mut String, attribute: &AttributeTypeAndValue<'_>) -> Option<()> {
    let oid = attribute.attr_type().to_id_string();
    let value = attribute.attr_value();
    let name = short_name(&oid);
    text.push_str(name.unwrap_or(&oid));
    text.push('=');
    match name.and_then(|_| characters(value)) {
        Some(characters) => escape(text, &characters?),
        // Of an unknown type or encoding, all that can be shown is its DER (section 2.4).
        None => {
            text.push('#');
            let der = value.to_der_vec().ok()?;
            for byte in &der {
                // Writing to a String cannot fail.
                let _ = write!(text, "{byte:02X}");
            }
        }
    }
    Some(())
}

/// What a string says, in UTF-8; outer `None` if it is no string, inner one if it is a broken one.
#[expect(clippy::option_option, reason = "the two are told differently")]
fn characters(value: &Any<'_>) -> Option<Option<Vec<u8>>> {
    let utf8 = |text: Option<String>| Some(text.map(String::into_bytes));
    match value.header.tag() {
        Tag::Utf8String => Some(Some(value.data.to_vec())),
        // Latin-1, whatever the standard says of them.
        Tag::NumericString
        | Tag::PrintableString
        | Tag::T61String
        | Tag::Ia5String
        | Tag::VisibleString
        | Tag::UtcTime
        | Tag::GeneralizedTime => utf8(Some(value.data.iter().copied().map(char::from).collect())),
        Tag::BmpString => utf8(code_points::<2>(value.data)),
        Tag::UniversalString => utf8(code_points::<4>(value.data)),
        _ => None,
    }
}

fn code_points<const WIDTH: usize>(data: &[u8]) -> Option<String> {
    let (points, []) = data.as_chunks::<WIDTH>() else {
        return None;
    };
    let point = |bytes: &[u8; WIDTH]| {
        bytes
            .iter()
            .fold(0, |point, byte| point << 8 | u32::from(*byte))
    };
    points
        .iter()
        .map(|bytes| char::from_u32(point(bytes)))
        .collect()
}

/// Adds a value so that nothing in it ends it (RFC 2253 section 2.4).
fn escape(text: &mut String, value: &[u8]) {
    let last = value.len().saturating_sub(1);
    for (index, byte) in value.iter().enumerate() {
        let is_end = index == 0 || index == last;
        match byte {
            // Writing to a String cannot fail.
            0..b' ' | 0x7f.. => {
                let _ = write!(text, "\\{byte:02X}");
            }
            b'\\' | b'"' | b',' | b'+' | b'<' | b'>' | b';' => {
                text.push('\\');
                text.push(char::from(*byte));
            }
            b' ' if is_end => text.push_str("\\ "),
            b'#' if index == 0 => text.push_str("\\#"),
            _ => text.push(char::from(*byte)),
        }
    }
}

/// The short names that BoringSSL knows of X.520's attributes, and a few others.
fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.13" => "description",
        "2.5.4.15" => "businessCategory",
        "2.5.4.16" => "postalAddress",
        "2.5.4.17" => "postalCode",
        "2.5.4.18" => "postOfficeBox",
        "2.5.4.20" => "telephoneNumber",
        "2.5.4.41" => "name",
        "2.5.4.42" => "GN",
        "2.5.4.43" => "initials",
        "2.5.4.44" => "generationQualifier",
        "2.5.4.45" => "x500UniqueIdentifier",
        "2.5.4.46" => "dnQualifier",
        "2.5.4.49" => "distinguishedName",
        "2.5.4.51" => "houseIdentifier",
        "2.5.4.65" => "pseudonym",
        "2.5.4.72" => "role",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.3" => "mail",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        "1.2.840.113549.1.9.2" => "unstructuredName",
        "1.2.840.113549.1.9.8" => "unstructuredAddress",
        _ => return None,
    })
}
