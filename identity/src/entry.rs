//! Registration entries: which workload gets which SPIFFE ID.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spiffe::{SpiffeId, TrustDomain};

use crate::selector::{Attestor, Kind, Selector, SelectorError};

/// What an X.509-SVID may live.
pub const TTL_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(24 * 60 * 60);

/// What a JWT-SVID may live: as long as every key signs that is not yet in its last sixth.
pub const JWT_TTL_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(4 * 60 * 60);

/// Gives the workloads that have all of the selectors a SPIFFE ID, as an entry of SPIRE does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    spiffe_id: SpiffeId,
    selectors: Vec<Selector>,
    dns_names: Vec<String>,
    x509_svid_ttl: Option<Duration>,
    jwt_svid_ttl: Option<Duration>,
    hint: String,
    audiences: Vec<String>,
    federates_with: Vec<TrustDomain>,
}

/// An entry as somebody wrote it, not checked yet. Its JSON has the names of SPIRE's entries, and
/// lifetimes in seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryRequest {
    /// The SPIFFE ID to give.
    pub spiffe_id: String,
    /// Selectors in the form `type:value`; a workload must have all of them.
    pub selectors: Vec<String>,
    /// DNS names that the SVID carries beside its SPIFFE ID.
    #[serde(default)]
    pub dns_names: Vec<String>,
    /// The X.509-SVID's lifetime; the source's own default without it.
    #[serde(default, with = "seconds")]
    pub x509_svid_ttl: Option<Duration>,
    /// The lifetime of JWT-SVIDs; the source's own default without it.
    #[serde(default, with = "seconds")]
    pub jwt_svid_ttl: Option<Duration>,
    /// Tells a workload with several SVIDs what this one is for.
    #[serde(default)]
    pub hint: String,
    /// Audiences for which the workload may ask for JWT-SVIDs; none without any.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Foreign trust domains whose bundles the workload gets, and whose workloads it may verify.
    #[serde(default)]
    pub federates_with: Vec<String>,
}

/// Why an entry is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EntryError {
    /// Not a SPIFFE ID.
    #[error("`{id}` is not a SPIFFE ID")]
    BadSpiffeId {
        /// What was written.
        id: String,
        /// What is wrong with it.
        #[source]
        source: spiffe::SpiffeIdError,
    },
    /// An ID that the source cannot vouch for.
    #[error("`{id}` is outside the trust domain `{trust_domain}`")]
    ForeignTrustDomain {
        /// The ID.
        id: SpiffeId,
        /// The source's own trust domain.
        trust_domain: TrustDomain,
    },
    /// The trust domain's own ID, which no workload may have (X509-SVID.md section 3.1).
    #[error("`{0}` has no path: it names the trust domain, not a workload")]
    NoPath(SpiffeId),
    /// An ID that SPIRE keeps for itself.
    #[error("`{0}` lies under `/spire/`, which is reserved")]
    Reserved(SpiffeId),
    /// An entry that every workload would match.
    #[error("the entry for `{0}` has no selectors, so every workload would match it")]
    NoSelectors(SpiffeId),
    /// A text that is no selector.
    #[error("a selector of the entry for `{id}` cannot be used")]
    BadSelector {
        /// The entry's ID.
        id: SpiffeId,
        /// What is wrong with it.
        #[source]
        source: SelectorError,
    },
    /// Facts of different attestors: no workload has both.
    #[error("the entry for `{0}` mixes selectors of different attestors: no workload has both")]
    MixedAttestors(SpiffeId),
    /// A component that anybody who may deploy could imitate.
    #[error("the entry for `{0}` identifies a component by what its deployer chose")]
    ComponentByName(SpiffeId),
    /// A lifetime that is too short or too long, or not of whole seconds.
    #[error(
        "the {what} lifetime {}s of `{id}` is not one of whole seconds from 10s to {longest}",
        ttl.as_secs_f32()
    )]
    TtlOutOfRange {
        /// The entry's ID.
        id: SpiffeId,
        /// `X.509-SVID` or `JWT-SVID`.
        what: &'static str,
        /// What was asked for.
        ttl: Duration,
        /// What is allowed.
        longest: &'static str,
    },
    /// A name that no certificate should carry.
    #[error("`{name}` of the entry for `{id}` is not a DNS name")]
    BadDnsName {
        /// The entry's ID.
        id: SpiffeId,
        /// What was written.
        name: String,
    },
    /// The Workload API allows hints of 1,024 bytes.
    #[error("the hint of the entry for `{0}` is longer than 1024 bytes")]
    HintTooLong(SpiffeId),
    /// An audience that would name nobody.
    #[error("the entry for `{0}` has an empty audience")]
    EmptyAudience(SpiffeId),
    /// What names no trust domain, or not a foreign one.
    #[error("the entry for `{id}` cannot federate with `{name}`: {problem}")]
    BadFederation {
        /// The entry's ID.
        id: SpiffeId,
        /// What was written.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The same ID for the same selectors twice.
    #[error("there are two entries for `{0}` with the same selectors")]
    Duplicate(SpiffeId),
}

impl Entry {
    /// Checks what somebody wrote.
    ///
    /// # Errors
    /// The first rule that the request breaks; see [`EntryError`].
    pub fn new(request: EntryRequest, trust_domain: &TrustDomain) -> Result<Self, EntryError> {
        let id = SpiffeId::new(&request.spiffe_id).map_err(|source| EntryError::BadSpiffeId {
            id: request.spiffe_id,
            source,
        })?;
        if id.trust_domain() != trust_domain {
            return Err(EntryError::ForeignTrustDomain {
                id,
                trust_domain: trust_domain.clone(),
            });
        }
        match id.path() {
            "" => return Err(EntryError::NoPath(id)),
            "/spire" => return Err(EntryError::Reserved(id)),
            path if path.starts_with("/spire/") => return Err(EntryError::Reserved(id)),
            _ => {}
        }
        let selectors = check_selectors(&id, &request.selectors)?;
        if let Some(name) = request.dns_names.iter().find(|name| !is_dns_name(name)) {
            let name = name.clone();
            return Err(EntryError::BadDnsName { id, name });
        }
        for (what, ttl, range, longest) in [
            ("X.509-SVID", request.x509_svid_ttl, TTL_RANGE, "24h"),
            ("JWT-SVID", request.jwt_svid_ttl, JWT_TTL_RANGE, "4h"),
        ] {
            let wrong = |ttl: &Duration| !range.contains(ttl) || ttl.subsec_nanos() > 0;
            if let Some(ttl) = ttl.filter(wrong) {
                return Err(EntryError::TtlOutOfRange {
                    id,
                    what,
                    ttl,
                    longest,
                });
            }
        }
        if request.hint.len() > 1024 {
            return Err(EntryError::HintTooLong(id));
        }
        if request
            .audiences
            .iter()
            .any(|audience| audience.trim().is_empty())
        {
            return Err(EntryError::EmptyAudience(id));
        }
        let federates_with = check_federation(&id, request.federates_with)?;
        Ok(Self {
            spiffe_id: id,
            selectors,
            dns_names: request.dns_names,
            x509_svid_ttl: request.x509_svid_ttl,
            jwt_svid_ttl: request.jwt_svid_ttl,
            hint: request.hint,
            audiences: request.audiences,
            federates_with,
        })
    }

    /// Checks a whole list, each entry and that none stands twice.
    ///
    /// # Errors
    /// Everything that is wrong, each with the index of its entry.
    pub fn check_all(
        requests: impl IntoIterator<Item = EntryRequest>,
        trust_domain: &TrustDomain,
    ) -> Result<Vec<Self>, Vec<(usize, EntryError)>> {
        let mut entries: Vec<Self> = Vec::new();
        let mut errors = Vec::new();
        for (index, request) in requests.into_iter().enumerate() {
            match Self::new(request, trust_domain) {
                Ok(entry) if entries.iter().any(|other| other.is_twin_of(&entry)) => {
                    errors.push((index, EntryError::Duplicate(entry.spiffe_id)));
                }
                Ok(entry) => entries.push(entry),
                Err(error) => errors.push((index, error)),
            }
        }
        if errors.is_empty() {
            Ok(entries)
        } else {
            Err(errors)
        }
    }

    /// Whether a workload with these attested selectors gets this entry's ID: it must have all.
    pub fn matches(&self, attested: &[Selector]) -> bool {
        !self.selectors.is_empty()
            && self
                .selectors
                .iter()
                .all(|selector| attested.contains(selector))
    }

    /// Whether the workload may have a JWT-SVID for all of these audiences, of which there is one at
    /// least.
    pub fn allows(&self, audience: &[String]) -> bool {
        !audience.is_empty() && audience.iter().all(|name| self.audiences.contains(name))
    }

    /// The SPIFFE ID that it gives.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// Whose facts its selectors are.
    pub fn attestor(&self) -> Option<Attestor> {
        let first = self.selectors.first();
        first.map(|selector| selector.kind().attestor())
    }

    /// What a workload must be, sorted; never empty.
    pub fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    /// DNS names that the SVID carries.
    pub fn dns_names(&self) -> &[String] {
        &self.dns_names
    }

    /// The X.509-SVID's lifetime, if the entry sets one.
    pub fn x509_svid_ttl(&self) -> Option<Duration> {
        self.x509_svid_ttl
    }

    /// The lifetime of JWT-SVIDs, if the entry sets one.
    pub fn jwt_svid_ttl(&self) -> Option<Duration> {
        self.jwt_svid_ttl
    }

    /// What this SVID is for; may be empty.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// Foreign trust domains whose bundles belong to the workload's.
    pub fn federates_with(&self) -> &[TrustDomain] {
        &self.federates_with
    }

    /// The entry as it could be written.
    pub fn to_request(&self) -> EntryRequest {
        EntryRequest {
            spiffe_id: self.spiffe_id.to_string(),
            selectors: self.selectors.iter().map(ToString::to_string).collect(),
            dns_names: self.dns_names.clone(),
            x509_svid_ttl: self.x509_svid_ttl,
            jwt_svid_ttl: self.jwt_svid_ttl,
            hint: self.hint.clone(),
            audiences: self.audiences.clone(),
            federates_with: self
                .federates_with
                .iter()
                .map(ToString::to_string)
                .collect(),
        }
    }

    /// Whether the other one gives the same ID to the same workloads.
    pub fn is_twin_of(&self, other: &Self) -> bool {
        self.spiffe_id == other.spiffe_id && self.selectors == other.selectors
    }
}

impl EntryError {
    /// The stable diagnostic code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadSpiffeId { .. } => "SG0101",
            Self::ForeignTrustDomain { .. } => "SG0102",
            Self::NoPath(_) => "SG0103",
            Self::Reserved(_) => "SG0104",
            Self::NoSelectors(_) => "SG0105",
            Self::BadSelector { .. } => "SG0106",
            Self::MixedAttestors(_) => "SG0107",
            Self::ComponentByName(_) => "SG0108",
            Self::TtlOutOfRange { .. } => "SG0109",
            Self::BadDnsName { .. } => "SG0110",
            Self::HintTooLong(_) => "SG0111",
            Self::Duplicate(_) => "SG0112",
            Self::EmptyAudience(_) => "SG0113",
            Self::BadFederation { .. } => "SG0114",
        }
    }

    /// What to do about it, where that is not plain from the message.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::ComponentByName(_) => Some(
                "name its digest (component:digest:sha256:…), or its signer together with its \
                 repository: whoever may deploy chooses names and namespaces",
            ),
            Self::NoSelectors(_) => Some("say which workload it is for, such as unix:uid:1000"),
            Self::BadSpiffeId { .. }
            | Self::ForeignTrustDomain { .. }
            | Self::NoPath(_)
            | Self::Reserved(_)
            | Self::BadSelector { .. }
            | Self::MixedAttestors(_)
            | Self::TtlOutOfRange { .. }
            | Self::BadFederation { .. }
            | Self::BadDnsName { .. }
            | Self::HintTooLong(_)
            | Self::EmptyAudience(_)
            | Self::Duplicate(_) => None,
        }
    }
}

fn check_selectors(id: &SpiffeId, texts: &[String]) -> Result<Vec<Selector>, EntryError> {
    let mut selectors = texts
        .iter()
        .map(|text| text.parse())
        .collect::<Result<Vec<Selector>, _>>()
        .map_err(|source| EntryError::BadSelector {
            id: id.clone(),
            source,
        })?;
    selectors.sort();
    selectors.dedup();
    let Some(first) = selectors.first() else {
        return Err(EntryError::NoSelectors(id.clone()));
    };
    let attestor = first.kind().attestor();
    if selectors
        .iter()
        .any(|selector| selector.kind().attestor() != attestor)
    {
        return Err(EntryError::MixedAttestors(id.clone()));
    }
    if attestor == Attestor::Component && !pins_a_component(&selectors) {
        return Err(EntryError::ComponentByName(id.clone()));
    }
    Ok(selectors)
}

fn check_federation(id: &SpiffeId, names: Vec<String>) -> Result<Vec<TrustDomain>, EntryError> {
    let mut trust_domains = names
        .into_iter()
        .map(|name| {
            let problem = match TrustDomain::new(&name) {
                Ok(found) if found == *id.trust_domain() => "it is the entry's own trust domain",
                Ok(found) if found.as_str() == name => return Ok(found),
                Ok(_) => "write a trust domain's name alone",
                Err(_) => "it is not the name of a trust domain",
            };
            Err(EntryError::BadFederation {
                id: id.clone(),
                name,
                problem,
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    trust_domains.sort();
    trust_domains.dedup();
    Ok(trust_domains)
}

/// Whether whoever may deploy could *not* make another component match: the bytes are given, or
/// their signer and where they come from.
fn pins_a_component(selectors: &[Selector]) -> bool {
    let has = |kind| selectors.iter().any(|selector| selector.kind() == kind);
    has(Kind::ComponentDigest) || (has(Kind::ComponentSigner) && has(Kind::ComponentRepository))
}

/// LDH labels, lower case, at most 253 bytes, without wildcards. A name whose last label is all
/// digits would be an IPv4 address gone wrong.
fn is_dns_name(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Lifetimes as whole seconds, as SPIRE writes them.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        ttl: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        ttl.map(|ttl| ttl.as_secs()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_secs))
    }
}

#[cfg(test)]
mod tests;
