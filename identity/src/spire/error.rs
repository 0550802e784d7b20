//! What goes wrong between the agent and its server.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use prost::Message;
use tonic::{Code, Status};

use super::proto::types::PermissionDeniedDetails;
use super::proto::types::permission_denied_details::Reason;

/// The call in which a node is attested.
pub(super) const ATTEST: &str = "AttestAgent";

/// What goes wrong between the agent and its server.
#[derive(Debug, thiserror::Error)]
pub enum SpireError {
    /// A file of the agent cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read`, `write` or `remove`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of the agent does not hold what it should.
    #[error("{} cannot be used: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// There is no bundle to verify the server with.
    #[error("the bootstrap bundle from {from} cannot be used: {problem}")]
    Bootstrap {
        /// The file or URL.
        from: String,
        /// What is wrong.
        problem: String,
    },
    /// What the node is to be attested by cannot be used.
    #[error("the node cannot be attested: {0}")]
    Attestation(String),
    /// The join token has been used, and the server wants another attestation.
    #[error("the server wants the node attested anew ({0}), and a join token serves once")]
    TokenSpent(Denial),
    /// There is no connection.
    #[error("cannot connect to the SPIRE server at {address}")]
    Connect {
        /// Host and port.
        address: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Whoever answers is not the trust domain's server, as far as its bundle here tells.
    #[error("who answers at {address} is not the trust domain's SPIRE server: {problem}")]
    Untrusted {
        /// Host and port.
        address: String,
        /// What is wrong with its certificate.
        problem: String,
    },
    /// The server refuses a call, or the connection broke.
    #[error("the SPIRE server does not carry out {method}")]
    Call {
        /// The gRPC method.
        method: &'static str,
        /// What it says.
        #[source]
        source: Said,
    },
    /// The server does not take what the node has shown to it.
    #[error("the SPIRE server does not attest this node")]
    NotAttested(#[source] Said),
    /// A call took too long.
    #[error("the SPIRE server does not answer {0} in time")]
    Timeout(&'static str),
    /// The server no longer takes the agent for what it says to be.
    #[error("the SPIRE server denies {method}: {reason}")]
    Denied {
        /// The gRPC method.
        method: &'static str,
        /// Why.
        reason: Denial,
    },
    /// What the server answers does not fit: nothing of it is taken.
    #[error("the answer to {method} is refused: {problem}")]
    Refused {
        /// The gRPC method.
        method: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The server has banned this agent: there is nothing more to do.
    #[error("the SPIRE server has banned this agent")]
    Banned,
    /// A key cannot be made.
    #[error("cannot make a key")]
    Key(#[from] rcgen::Error),
    /// There is no such entry, or there was no contact with the server yet.
    #[error("the SPIRE server has authorized no such entry")]
    UnknownEntry,
}

/// Why the server denies an agent what it asks for (`PermissionDeniedDetails` of its API).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The agent's SVID has expired.
    #[error("the agent's SVID has expired")]
    Expired,
    /// The server does not know the agent: it was evicted.
    #[error("the agent is not attested")]
    NotAttested,
    /// The agent has been given a newer SVID, and has used it.
    #[error("the agent's SVID is not the active one")]
    NotActive,
    /// The agent is banned.
    #[error("the agent is banned")]
    Banned,
    /// The agent must attest its node again instead of renewing its SVID.
    #[error("the agent must be attested again")]
    MustReattest,
}

/// What the server said, or what happened to the connection.
#[derive(Debug, thiserror::Error)]
#[error("{}", in_words(status))]
pub struct Said {
    pub(super) status: Status,
}

/// Why one attempt at a call ended.
#[derive(Debug)]
pub(super) enum Failure {
    /// By the server, or on the way.
    Status(Status),
    /// By this side: the answer does not fit.
    Refused(String),
}

/// `google.rpc.Status`, as it stands in `grpc-status-details-bin`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) details: Vec<prost_types::Any>,
}

impl SpireError {
    /// The stable diagnostic code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } | Self::Damaged { .. } | Self::Key(_) => "SG0138",
            Self::Connect { .. }
            | Self::Untrusted { .. }
            | Self::Call { .. }
            | Self::Timeout(_) => "SG0194",
            Self::Denied { .. } | Self::TokenSpent(_) | Self::NotAttested(_) => "SG0195",
            Self::Refused { .. } | Self::UnknownEntry => "SG0196",
            Self::Banned => "SG0197",
            Self::Bootstrap { .. } | Self::Attestation(_) => "SG0198",
        }
    }

    /// What to do about it, where that is not plain from the message.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::TokenSpent(_) => Some(
                "make a new join token at the server, put it where the old one was, and restart",
            ),
            Self::NotAttested(_) => Some(
                "a join token serves once: make a new one; `spire-server agent evict` lifts a ban",
            ),
            Self::Banned => {
                Some("delete the agent at the server to lift the ban, attest it again, and restart")
            }
            Self::Damaged { .. } => {
                Some("restore the file, or remove it to have the node attested again")
            }
            Self::Untrusted { .. } => Some(
                "if all of its authorities were replaced: put the new bundle in place, and a new join \
                 token if there was one, remove `spire_bundle.json` from the state directory, and \
                 restart",
            ),
            Self::File { .. }
            | Self::Bootstrap { .. }
            | Self::Attestation(_)
            | Self::Connect { .. }
            | Self::Call { .. }
            | Self::Timeout(_)
            | Self::Denied { .. }
            | Self::Refused { .. }
            | Self::Key(_)
            | Self::UnknownEntry => None,
        }
    }

    /// Whether it may pass by itself soon after a start, as while a server starts too.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Timeout(_) => true,
            Self::Call { source, .. } => !is_final(source.status.code()),
            Self::NotAttested(_)
            | Self::File { .. }
            | Self::Damaged { .. }
            | Self::Bootstrap { .. }
            | Self::Attestation(_)
            | Self::Untrusted { .. }
            | Self::TokenSpent(_)
            | Self::Denied { .. }
            | Self::Refused { .. }
            | Self::Banned
            | Self::Key(_)
            | Self::UnknownEntry => false,
        }
    }

    /// Whether it is about this call alone: others might succeed at the same time.
    pub(super) fn is_of_one_call(&self) -> bool {
        match self {
            Self::Call { source, .. } => source.status.source().is_none(),
            Self::Refused { .. } => true,
            _ => false,
        }
    }

    /// Whether the server is away, rather than unwilling.
    pub(crate) fn is_absence(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Untrusted { .. } | Self::Timeout(_) => true,
            Self::Call { source, .. } => {
                source.status.source().is_some() || source.status.code() == Code::Unavailable
            }
            _ => false,
        }
    }

    /// Whether the server has decided about what was shown to it.
    pub(super) fn is_decision(&self) -> bool {
        matches!(
            self,
            Self::Denied { .. } | Self::Refused { .. } | Self::NotAttested(_)
        )
    }

    /// From how an attempt ended.
    pub(super) fn of(method: &'static str, failure: Failure) -> Self {
        match failure {
            Failure::Refused(problem) => Self::Refused { method, problem },
            Failure::Status(source) => match Denial::of(&source) {
                Some(reason) => Self::Denied { method, reason },
                None if method == ATTEST && is_final(source.code()) => {
                    Self::NotAttested(Said { status: source })
                }
                None => Self::Call {
                    method,
                    source: Said { status: source },
                },
            },
        }
    }

    /// The code of gRPC that the server, or the library for it, gave.
    pub(super) fn grpc_code(&self) -> Option<Code> {
        match self {
            Self::Call { source, .. } => Some(source.status.code()),
            _ => None,
        }
    }
}

/// The server's own words, or what happened in the end: the library wraps it, and says it again each
/// time.
fn in_words(status: &Status) -> String {
    match status.source() {
        Some(cause) => format!("the connection broke: {}", innermost(cause)),
        None => format!("{:?}: {}", status.code(), status.message()),
    }
}

/// What is behind all other causes.
pub(super) fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost
}

/// Whether the same would end in the same way.
fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::NotFound
            | Code::Unauthenticated
    )
}

impl Denial {
    /// The reason that the server gives with a status, if it does.
    fn of(status: &Status) -> Option<Self> {
        if status.code() != Code::PermissionDenied {
            return None;
        }
        let details = RpcStatus::decode(status.details()).ok()?.details;
        let details = details.iter().find(|detail| {
            let name = detail.type_url.rsplit('/').next();
            name == Some("spire.api.types.PermissionDeniedDetails")
        })?;
        let details = PermissionDeniedDetails::decode(details.value.as_slice()).ok()?;
        match details.reason() {
            Reason::Unknown => None,
            Reason::AgentExpired => Some(Self::Expired),
            Reason::AgentNotAttested => Some(Self::NotAttested),
            Reason::AgentNotActive => Some(Self::NotActive),
            Reason::AgentBanned => Some(Self::Banned),
            Reason::AgentMustReattest => Some(Self::MustReattest),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<String> for Failure {
    fn from(problem: String) -> Self {
        Self::Refused(problem)
    }
}

impl From<&str> for Failure {
    fn from(problem: &str) -> Self {
        Self::Refused(problem.to_owned())
    }
}
