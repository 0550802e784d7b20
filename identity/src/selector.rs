//! Selectors: the facts about a workload that attestation found, in SPIRE's `type:value` form.

use std::fmt;
use std::str::FromStr;

/// One attested fact about a workload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    kind: Kind,
    value: String,
}

/// What a selector is about. Each kind belongs to one attestor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `unix:uid`, the process's effective user id.
    UnixUid,
    /// `unix:user`, that user's name.
    UnixUser,
    /// `unix:gid`, the process's effective group id.
    UnixGid,
    /// `unix:group`, that group's name.
    UnixGroup,
    /// `unix:supplementary_gid`, one of its supplementary group ids.
    UnixSupplementaryGid,
    /// `unix:path`, the executable's path.
    UnixPath,
    /// `unix:sha256`, the executable's SHA-256, hex.
    UnixSha256,
    /// `component:digest`, `sha256:<hex>` of the component's bytes.
    ComponentDigest,
    /// `component:signer`, the id of the key that signed it.
    ComponentSigner,
    /// `component:repository`, the OCI repository that it came from.
    ComponentRepository,
    /// `component:namespace`, the namespace that it was deployed to.
    ComponentNamespace,
    /// `component:name`, the name that its deployer gave it.
    ComponentName,
    /// `listener:name`, a listener of this process that fronts a local upstream.
    ListenerName,
    /// `host:self`, this process itself.
    Host,
}

/// Whose facts a selector tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attestor {
    /// Processes, by peer credentials of the Workload API's socket.
    Unix,
    /// Components that this process runs.
    Component,
    /// Listeners that this process serves.
    Listener,
    /// This process itself.
    Host,
}

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// There is no attestor that finds such facts.
    #[error("no attestor finds `{0}`; known are {known}", known = known_prefixes())]
    UnknownKind(String),
    /// The value is not of the form that its kind has.
    #[error("the value of `{prefix}` must be {expected}, not `{value}`")]
    BadValue {
        /// Attestor and key.
        prefix: &'static str,
        /// The form that it should have.
        expected: &'static str,
        /// What was found.
        value: String,
    },
}

impl Kind {
    const ALL: [Self; 14] = [
        Self::UnixUid,
        Self::UnixUser,
        Self::UnixGid,
        Self::UnixGroup,
        Self::UnixSupplementaryGid,
        Self::UnixPath,
        Self::UnixSha256,
        Self::ComponentDigest,
        Self::ComponentSigner,
        Self::ComponentRepository,
        Self::ComponentNamespace,
        Self::ComponentName,
        Self::ListenerName,
        Self::Host,
    ];

    /// Attestor and key, as they are written before the value.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::UnixUid => "unix:uid",
            Self::UnixUser => "unix:user",
            Self::UnixGid => "unix:gid",
            Self::UnixGroup => "unix:group",
            Self::UnixSupplementaryGid => "unix:supplementary_gid",
            Self::UnixPath => "unix:path",
            Self::UnixSha256 => "unix:sha256",
            Self::ComponentDigest => "component:digest",
            Self::ComponentSigner => "component:signer",
            Self::ComponentRepository => "component:repository",
            Self::ComponentNamespace => "component:namespace",
            Self::ComponentName => "component:name",
            Self::ListenerName => "listener:name",
            Self::Host => "host",
        }
    }

    /// Who finds facts of this kind.
    pub fn attestor(self) -> Attestor {
        match self {
            Self::UnixUid
            | Self::UnixUser
            | Self::UnixGid
            | Self::UnixGroup
            | Self::UnixSupplementaryGid
            | Self::UnixPath
            | Self::UnixSha256 => Attestor::Unix,
            Self::ComponentDigest
            | Self::ComponentSigner
            | Self::ComponentRepository
            | Self::ComponentNamespace
            | Self::ComponentName => Attestor::Component,
            Self::ListenerName => Attestor::Listener,
            Self::Host => Attestor::Host,
        }
    }

    /// `None` where the value fits, else the form that it should have.
    fn misfit(self, value: &str) -> Option<&'static str> {
        let (fits, expected) = match self {
            Self::UnixUid | Self::UnixGid | Self::UnixSupplementaryGid => {
                (is_canonical_number(value), "a decimal number")
            }
            Self::UnixPath => (value.starts_with('/'), "an absolute path"),
            Self::UnixSha256 => (is_sha256(value), "64 lower-case hex digits"),
            Self::ComponentDigest => (
                value.strip_prefix("sha256:").is_some_and(is_sha256),
                "`sha256:` and 64 lower-case hex digits",
            ),
            Self::Host => (value == "self", "`self`"),
            Self::UnixUser
            | Self::UnixGroup
            | Self::ComponentSigner
            | Self::ComponentRepository
            | Self::ComponentNamespace
            | Self::ComponentName
            | Self::ListenerName => (!value.is_empty(), "a text that is not empty"),
        };
        (!fits).then_some(expected)
    }
}

impl Selector {
    /// A fact that an attestor found. The value is taken as it is.
    pub fn attested(kind: Kind, value: impl Into<String>) -> Self {
        Self {
            kind,
            value: value.into(),
        }
    }

    /// What it is about.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What was found.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, value) = Kind::ALL
            .into_iter()
            .find_map(|kind| {
                let value = text.strip_prefix(kind.prefix())?.strip_prefix(':')?;
                Some((kind, value))
            })
            .ok_or_else(|| SelectorError::UnknownKind(text.to_owned()))?;
        if let Some(expected) = kind.misfit(value) {
            return Err(SelectorError::BadValue {
                prefix: kind.prefix(),
                expected,
                value: value.to_owned(),
            });
        }
        Ok(Self::attested(kind, value))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.kind.prefix(), self.value)
    }
}

fn known_prefixes() -> String {
    let prefixes: Vec<_> = Kind::ALL.into_iter().map(Kind::prefix).collect();
    prefixes.join(", ")
}

/// Attestors write numbers without sign or leading zeros; a selector that is written otherwise
/// could never match.
fn is_canonical_number(value: &str) -> bool {
    value
        .parse::<u32>()
        .is_ok_and(|number| number.to_string() == value)
}

fn is_sha256(value: &str) -> bool {
    value.len() == 64
        && value
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_read_and_written_in_the_same_form() {
        for text in [
            "unix:uid:1000",
            "unix:path:/usr/bin/env",
            "unix:supplementary_gid:0",
            "component:digest:sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "component:repository:registry.example/app",
            "listener:name:main",
            "host:self",
        ] {
            assert_eq!(text.parse::<Selector>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_selector_that_could_never_match_is_refused() {
        for text in [
            "",
            "unix",
            "unix:uid",
            "unix:uid:",
            "unix:uid:01",
            "unix:uid:+1",
            "unix:uid:root",
            "unix:uid:4294967296",
            "unix:path:bin/env",
            "unix:sha256:ABC",
            "component:digest:sha256:00",
            "component:digest:md5:00",
            "component:name:",
            "host:other",
            "docker:label:a:b",
            "k8s:ns:default",
        ] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
    }
}
