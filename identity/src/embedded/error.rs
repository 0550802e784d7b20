//! What the embedded source fails with.

use crate::authority::AuthorityError;
use crate::entry::EntryError;
use crate::federation::FederationError;
use crate::jwt::JwtError;
use crate::registry::RegistryError;
use crate::slots::SlotError;

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// What was asked for makes no sense.
    Request,
    /// What was asked about is not there.
    Absent,
    /// It does not go together with what is there.
    Conflict,
    /// The machine's, or our own.
    Ourselves,
}

/// Why the source cannot begin, or not do what an operator asks for.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The X.509 authority fails.
    #[error(transparent)]
    X509(#[from] AuthorityError),
    /// The JWT authority fails.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    /// The registry refuses.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// What was begun did not come to its end.
    #[error("the work ended before it was done: {0}")]
    Ended(String),
    /// A foreign bundle is refused.
    #[error(transparent)]
    Federation(#[from] FederationError),
}

impl EmbeddedError {
    /// The stable diagnostic code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::X509(error) => error.code(),
            Self::Jwt(error) => error.code(),
            Self::Registry(error) => error.code(),
            Self::Federation(error) => error.code(),
            Self::Ended(_) => "SG0125",
        }
    }

    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Registry(error) => match error {
                RegistryError::Entry(EntryError::Duplicate(_))
                | RegistryError::InConfiguration(_)
                | RegistryError::Configured(_)
                | RegistryError::TakenId(_) => Blame::Conflict,
                RegistryError::Entry(_) | RegistryError::BadId(_) => Blame::Request,
                RegistryError::UnknownId(_) => Blame::Absent,
                RegistryError::File { .. }
                | RegistryError::Damaged { .. }
                | RegistryError::BadEntry { .. } => Blame::Ourselves,
            },
            Self::Federation(error) => match error {
                FederationError::OwnTrustDomain(_) => Blame::Conflict,
                FederationError::Unknown(_) => Blame::Absent,
                FederationError::Refused { .. }
                | FederationError::Root { .. }
                | FederationError::Jwt(_) => Blame::Request,
                FederationError::File { .. } | FederationError::Damaged { .. } => Blame::Ourselves,
            },
            Self::X509(AuthorityError::Slot(error)) | Self::Jwt(JwtError::Slot(error)) => {
                match error {
                    SlotError::Unknown(_) => Blame::Absent,
                    SlotError::WrongPhase { .. } | SlotError::None(_) => Blame::Conflict,
                }
            }
            Self::X509(AuthorityError::NotOurs) => Blame::Conflict,
            Self::X509(_) | Self::Jwt(_) | Self::Ended(_) => Blame::Ourselves,
        }
    }

    /// What to do about it, where that is not plain from the message.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Registry(error) => error.hint(),
            Self::X509(_) | Self::Jwt(_) | Self::Federation(_) | Self::Ended(_) => None,
        }
    }
}
