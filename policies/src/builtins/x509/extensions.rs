//! Extensions of certificates (RFC 5280 section 4.2) as fields of Go's
//! `x509.Certificate`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use regorus::Value;
use x509_parser::asn1_rs::{FromDer, Oid};
use x509_parser::extensions::{
    DistributionPointName, GeneralName, GeneralSubtree, ParsedExtension, X509Extension,
};

use super::fields::{Members, dotted, identifier, raw_extensions};
use super::uri;
use crate::builtins::values::{array_or_null, base64, object};

/// Extended key usages in the order of Go's numbers for them.
const EXTENDED_KEY_USAGES: &[&str] = &[
    "2.5.29.37.0",
    "1.3.6.1.5.5.7.3.1",
    "1.3.6.1.5.5.7.3.2",
    "1.3.6.1.5.5.7.3.3",
    "1.3.6.1.5.5.7.3.4",
    "1.3.6.1.5.5.7.3.5",
    "1.3.6.1.5.5.7.3.6",
    "1.3.6.1.5.5.7.3.7",
    "1.3.6.1.5.5.7.3.8",
    "1.3.6.1.5.5.7.3.9",
    "1.3.6.1.4.1.311.10.3.3",
    "2.16.840.1.113730.4.1",
    "1.3.6.1.4.1.311.2.1.22",
    "1.3.6.1.4.1.311.61.1.1",
];

/// More extensions in one certificate are refused.
const EXTENSIONS: usize = 128;

const OCSP: &str = "1.3.6.1.5.5.7.48.1";
const ISSUERS: &str = "1.3.6.1.5.5.7.48.2";

/// What the extensions say. Names are in the order of the certificate.
#[derive(Default)]
pub(super) struct Extensions<'a> {
    dns: Vec<&'a str>,
    emails: Vec<&'a str>,
    addresses: Vec<IpAddr>,
    uris: Vec<&'a str>,
    key_usage: u16,
    extended_key_usage: Vec<Value>,
    unknown_key_usage: Vec<Value>,
    basic_constraints: Option<(bool, Option<u32>)>,
    subject_key_id: Option<&'a [u8]>,
    authority_key_id: Option<&'a [u8]>,
    ocsp: Vec<&'a str>,
    issuers: Vec<&'a str>,
    revocations: Vec<&'a str>,
    policies: Vec<(Value, Value)>,
    inhibit_any_policy: Option<u32>,
    inhibit_policy_mapping: Option<u32>,
    require_explicit_policy: Option<u32>,
    policy_mappings: Vec<Value>,
    constraints_critical: bool,
    permitted: Subtrees<'a>,
    excluded: Subtrees<'a>,
    unhandled: Vec<Value>,
}

#[derive(Default)]
struct Subtrees<'a> {
    dns: Vec<&'a str>,
    ranges: Vec<Value>,
    emails: Vec<&'a str>,
    uris: Vec<&'a str>,
}

impl<'a> Extensions<'a> {
    /// `None` if an extension that is known is malformed, or is there twice.
    pub(super) fn read(extensions: &'a [X509Extension<'a>]) -> Option<Self> {
        if extensions.len() > EXTENSIONS {
            return None;
        }
        let mut read = Self::default();
        for (index, extension) in extensions.iter().enumerate() {
            let earlier = extensions.iter().take(index);
            if earlier
                .map(|extension| &extension.oid)
                .any(|oid| *oid == extension.oid)
            {
                return None;
            }
            read.extension(extension)?;
        }
        Some(read)
    }

    fn extension(&mut self, extension: &'a X509Extension<'a>) -> Option<()> {
        match extension.parsed_extension() {
            ParsedExtension::ParseError { .. } => return None,
            ParsedExtension::SubjectAlternativeName(names) => {
                let mut usable = false;
                for name in &names.general_names {
                    usable |= self.name(name)?;
                }
                if !usable && extension.critical {
                    self.unhandled.push(identifier(&extension.oid)?);
                }
            }
            ParsedExtension::KeyUsage(usage) => self.key_usage = usage.flags,
            ParsedExtension::ExtendedKeyUsage(_) => self.key_usages(extension.value)?,
            ParsedExtension::BasicConstraints(constraints) => {
                self.basic_constraints = Some((constraints.ca, constraints.path_len_constraint));
            }
            ParsedExtension::SubjectKeyIdentifier(id) => self.subject_key_id = Some(id.0),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                self.authority_key_id = id.key_identifier.as_ref().map(|id| id.0);
            }
            ParsedExtension::AuthorityInfoAccess(access) => {
                for description in access.iter() {
                    let GeneralName::URI(uri) = &description.access_location else {
                        continue;
                    };
                    match dotted(&description.access_method)?.as_str() {
                        OCSP => self.ocsp.push(uri),
                        ISSUERS => self.issuers.push(uri),
                        _ => {}
                    }
                }
            }
            ParsedExtension::CRLDistributionPoints(points) => {
                let names = points
                    .iter()
                    .filter_map(|point| match &point.distribution_point {
                        Some(DistributionPointName::FullName(names)) => Some(names),
                        _ => None,
                    });
                self.revocations.extend(names.flatten().filter_map(uri_of));
            }
            ParsedExtension::CertificatePolicies(policies) => {
                for policy in policies.iter() {
                    let numbers = identifier(&policy.policy_id)?;
                    self.policies
                        .push((numbers, dotted(&policy.policy_id)?.into()));
                }
            }
            ParsedExtension::PolicyMappings(mappings) => {
                for mapping in &mappings.mappings {
                    self.policy_mappings.push(object([
                        (
                            "IssuerDomainPolicy",
                            dotted(&mapping.issuer_domain_policy)?.into(),
                        ),
                        (
                            "SubjectDomainPolicy",
                            dotted(&mapping.subject_domain_policy)?.into(),
                        ),
                    ]));
                }
            }
            ParsedExtension::PolicyConstraints(constraints) => {
                self.require_explicit_policy = constraints.require_explicit_policy;
                self.inhibit_policy_mapping = constraints.inhibit_policy_mapping;
            }
            ParsedExtension::InhibitAnyPolicy(inhibit) => {
                self.inhibit_any_policy = Some(inhibit.skip_certs);
            }
            ParsedExtension::NameConstraints(constraints) => {
                self.constraints_critical = extension.critical;
                let mut all_known = self.permitted.read(
                    constraints
                        .permitted_subtrees
                        .as_deref()
                        .unwrap_or_default(),
                )?;
                all_known &= self
                    .excluded
                    .read(constraints.excluded_subtrees.as_deref().unwrap_or_default())?;
                if !all_known && extension.critical {
                    self.unhandled.push(identifier(&extension.oid)?);
                }
            }
            _ if extension.critical => self.unhandled.push(identifier(&extension.oid)?),
            _ => {}
        }
        Some(())
    }

    /// Takes one alternative name; whether it is of a kind that Go reads.
    fn name(&mut self, name: &'a GeneralName<'a>) -> Option<bool> {
        match name {
            GeneralName::DNSName(name) => self.dns.push(ascii(name)?),
            GeneralName::RFC822Name(email) => self.emails.push(ascii(email)?),
            GeneralName::URI(given) => {
                uri::document(ascii(given)?)?;
                self.uris.push(given);
            }
            GeneralName::IPAddress(address) => self.addresses.push(ip_address(address)?),
            GeneralName::Invalid(..) => return None,
            _ => return Some(false),
        }
        Some(true)
    }

    /// Read again because the parser does not keep their order.
    fn key_usages(&mut self, encoded: &[u8]) -> Option<()> {
        let (_, usages) = Vec::<Oid<'_>>::from_der(encoded).ok()?;
        for usage in usages {
            let name = dotted(&usage)?;
            match EXTENDED_KEY_USAGES.iter().position(|known| *known == name) {
                Some(number) => self.extended_key_usage.push(number.into()),
                None => self.unknown_key_usage.push(identifier(&usage)?),
            }
        }
        Some(())
    }

    /// Sets the fields that certificates and requests share.
    pub(super) fn set_names(&self, members: &mut Members) -> Option<()> {
        let addresses = self.addresses.iter();
        let addresses = addresses.map(|address| address.to_canonical().to_string().into());
        let uris = self.uris.iter().map(|given| uri::document(given));
        members.insert("DNSNames".into(), strings(&self.dns));
        members.insert("EmailAddresses".into(), strings(&self.emails));
        members.insert("IPAddresses".into(), array_or_null(addresses));
        members.insert(
            "URIs".into(),
            array_or_null(uris.collect::<Option<Vec<Value>>>()?),
        );
        Some(())
    }

    pub(super) fn uri_strings(&self) -> Value {
        strings(&self.uris)
    }

    /// Sets the fields that only certificates have.
    pub(super) fn set_all(
        &self,
        extensions: &[X509Extension<'_>],
        members: &mut Members,
    ) -> Option<()> {
        let mut set = |name: &str, value: Value| members.insert(name.into(), value);
        set("Extensions", raw_extensions(extensions)?);
        set("ExtraExtensions", Value::Null);
        set(
            "UnhandledCriticalExtensions",
            array_or_null(self.unhandled.iter().cloned()),
        );
        set("KeyUsage", u32::from(self.key_usage).into());
        set(
            "ExtKeyUsage",
            array_or_null(self.extended_key_usage.iter().cloned()),
        );
        set(
            "UnknownExtKeyUsage",
            array_or_null(self.unknown_key_usage.iter().cloned()),
        );
        let (authority, longest) = self.basic_constraints.unwrap_or_default();
        set(
            "BasicConstraintsValid",
            self.basic_constraints.is_some().into(),
        );
        set("IsCA", authority.into());
        let absent = if self.basic_constraints.is_some() {
            -1
        } else {
            0
        };
        set(
            "MaxPathLen",
            longest.map_or(i64::from(absent), i64::from).into(),
        );
        set("MaxPathLenZero", (longest == Some(0)).into());
        set("SubjectKeyId", bytes(self.subject_key_id));
        set("AuthorityKeyId", bytes(self.authority_key_id));
        set("OCSPServer", strings(&self.ocsp));
        set("IssuingCertificateURL", strings(&self.issuers));
        set("CRLDistributionPoints", strings(&self.revocations));
        let (numbers, names): (Vec<Value>, Vec<Value>) = self.policies.iter().cloned().unzip();
        set("PolicyIdentifiers", array_or_null(numbers));
        set("Policies", array_or_null(names));
        set(
            "PolicyMappings",
            array_or_null(self.policy_mappings.iter().cloned()),
        );
        for (name, zero_name, value) in [
            (
                "InhibitAnyPolicy",
                "InhibitAnyPolicyZero",
                self.inhibit_any_policy,
            ),
            (
                "InhibitPolicyMapping",
                "InhibitPolicyMappingZero",
                self.inhibit_policy_mapping,
            ),
            (
                "RequireExplicitPolicy",
                "RequireExplicitPolicyZero",
                self.require_explicit_policy,
            ),
        ] {
            set(name, value.unwrap_or_default().into());
            set(zero_name, (value == Some(0)).into());
        }
        set(
            "PermittedDNSDomainsCritical",
            self.constraints_critical.into(),
        );
        for (prefix, subtrees) in [("Permitted", &self.permitted), ("Excluded", &self.excluded)] {
            let mut set = |name: &str, value| set(&format!("{prefix}{name}"), value);
            set("DNSDomains", strings(&subtrees.dns));
            set("IPRanges", array_or_null(subtrees.ranges.iter().cloned()));
            set("EmailAddresses", strings(&subtrees.emails));
            set("URIDomains", strings(&subtrees.uris));
        }
        Some(())
    }
}

impl<'a> Subtrees<'a> {
    /// Whether all of them are of kinds that Go reads.
    fn read(&mut self, subtrees: &'a [GeneralSubtree<'a>]) -> Option<bool> {
        let mut all_known = true;
        for subtree in subtrees {
            match &subtree.base {
                GeneralName::DNSName(name) => self.dns.push(ascii(name)?),
                GeneralName::RFC822Name(email) => self.emails.push(ascii(email)?),
                GeneralName::URI(uri) => self.uris.push(ascii(uri)?),
                GeneralName::IPAddress(range) => {
                    let (address, mask) = range.split_at_checked(range.len().div_euclid(2))?;
                    self.ranges.push(object([
                        ("IP", ip_address(address)?.to_string().into()),
                        ("Mask", base64(mask)),
                    ]));
                }
                GeneralName::Invalid(..) => return None,
                _ => all_known = false,
            }
        }
        Some(all_known)
    }
}

fn uri_of<'a>(name: &'a GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::URI(uri) => Some(uri),
        _ => None,
    }
}

/// IA5String is ASCII.
fn ascii(text: &str) -> Option<&str> {
    text.is_ascii().then_some(text)
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(bytes).into());
    }
    let bytes = <[u8; 16]>::try_from(bytes).ok()?;
    Some(Ipv6Addr::from(bytes).into())
}

fn strings(texts: &[&str]) -> Value {
    array_or_null(texts.iter().map(|text| Value::from(*text)))
}

fn bytes(bytes: Option<&[u8]>) -> Value {
    bytes.map_or(Value::Null, base64)
}
