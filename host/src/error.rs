//! What can go wrong with the host itself and with one request, and what that means on the wire.

use std::time::Duration;

use http::StatusCode;

/// A host could not be built.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A limit cannot work.
    #[error("{field} {reason}")]
    Config {
        /// The field of [`HostConfig`](crate::HostConfig).
        field: &'static str,
        /// What is wrong with its value.
        reason: &'static str,
    },
    /// The engine refused its configuration, most often because the address space for
    /// `max_concurrency` instances cannot be reserved.
    #[error("the WebAssembly engine could not be set up")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The thread that keeps the guests' time could not be started.
    #[error("the thread that keeps the components' time could not be started")]
    Ticker(#[source] std::io::Error),
}

impl HostError {
    /// The stable diagnostic code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config { .. } => "SG0440",
            Self::Engine(_) => "SG0441",
            Self::Ticker(_) => "SG0442",
        }
    }
}

/// A component did not answer a request, or did not finish its answer.
///
/// `Display` and [`InvokeError::detail`] are for the operator; the caller may learn
/// [`InvokeError::status`] and [`InvokeError::caller_message`] only. The host has logged the error
/// (target `component`) by the time it is returned.
#[derive(Clone, Debug, thiserror::Error)]
pub enum InvokeError {
    /// All instances were in use for longer than `queue_wait`.
    #[error("all instances are in use")]
    Saturated,
    /// The request cannot be shown to a component: it names no authority.
    #[error("the request has neither an authority nor a host header")]
    InvalidRequest,
    /// No instance could be made, or the component failed as it started.
    #[error("the component could not be instantiated: {reason}")]
    Instantiation {
        /// What failed, in one line.
        reason: String,
        /// The whole error, with the WebAssembly backtrace where there is one.
        detail: String,
    },
    /// The component trapped.
    #[error("the component trapped: {reason}")]
    Trap {
        /// The trap, in one line.
        reason: String,
        /// The whole error with the WebAssembly backtrace.
        detail: String,
    },
    /// The component was refused memory beyond its limit, and trapped.
    #[error("the component needed more than its {limit} bytes of memory")]
    MemoryLimit {
        /// The limit, in bytes.
        limit: usize,
        /// The whole error with the WebAssembly backtrace.
        detail: String,
    },
    /// The component took longer than it may.
    #[error("the component did not finish within {} ms", after.as_millis())]
    DeadlineExceeded {
        /// The deadline that passed: until the head, or in total.
        after: Duration,
    },
    /// The component returned without setting a response.
    #[error("the component returned without a response")]
    NoResponse,
    /// The component answered with an error code of `wasi:http` in place of a response.
    #[error("the component answered with the error {error}")]
    GuestErrorCode {
        /// The error code as WASI names it.
        error: String,
    },
    /// The component's response head breaks HTTP.
    #[error("the component's response is not valid HTTP: {reason}")]
    InvalidResponse {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The component ended its body early: dropped it unfinished, or sent less or more than its
    /// `content-length`.
    #[error("the component did not finish its response's body")]
    IncompleteBody,
    /// The instance was stopped from outside: its caller went away, the runtime shut down.
    #[error("the instance was stopped before it had finished")]
    Cancelled,
}

/// One row of the table of [`InvokeError::wire`].
struct Wire {
    code: &'static str,
    label: &'static str,
    status: StatusCode,
    caller_message: &'static str,
}

impl InvokeError {
    /// Every label that there is.
    pub(crate) const LABELS: [&'static str; 11] = [
        "saturated",
        "invalid_request",
        "instantiation",
        "trap",
        "memory_limit",
        "deadline_exceeded",
        "no_response",
        "guest_error",
        "invalid_response",
        "incomplete_body",
        "cancelled",
    ];

    /// The stable diagnostic code.
    pub fn code(&self) -> &'static str {
        self.wire().code
    }

    /// The `outcome` label in metrics.
    pub fn label(&self) -> &'static str {
        self.wire().label
    }

    /// The status that the caller gets, where the head is not out yet.
    pub fn status(&self) -> StatusCode {
        self.wire().status
    }

    /// What the caller may read: nothing about the component's inside.
    pub fn caller_message(&self) -> &'static str {
        self.wire().caller_message
    }

    /// The whole error with its WebAssembly backtrace, for the operator, where there is one.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Instantiation { detail, .. }
            | Self::Trap { detail, .. }
            | Self::MemoryLimit { detail, .. } => Some(detail),
            Self::Saturated
            | Self::InvalidRequest
            | Self::DeadlineExceeded { .. }
            | Self::NoResponse
            | Self::GuestErrorCode { .. }
            | Self::InvalidResponse { .. }
            | Self::IncompleteBody
            | Self::Cancelled => None,
        }
    }

    fn wire(&self) -> Wire {
        const FAILED: &str = "the component failed";
        const INVALID: &str = "the component gave no valid response";
        let (code, label, status, caller_message) = match self {
            Self::Saturated => (
                "SG0420",
                "saturated",
                StatusCode::SERVICE_UNAVAILABLE,
                "the component is busy",
            ),
            Self::InvalidRequest => (
                "SG0421",
                "invalid_request",
                StatusCode::BAD_REQUEST,
                "the request names no host",
            ),
            Self::Instantiation { .. } => (
                "SG0422",
                "instantiation",
                StatusCode::INTERNAL_SERVER_ERROR,
                FAILED,
            ),
            Self::Trap { .. } => ("SG0423", "trap", StatusCode::INTERNAL_SERVER_ERROR, FAILED),
            Self::MemoryLimit { .. } => (
                "SG0424",
                "memory_limit",
                StatusCode::INTERNAL_SERVER_ERROR,
                FAILED,
            ),
            Self::DeadlineExceeded { .. } => (
                "SG0425",
                "deadline_exceeded",
                StatusCode::GATEWAY_TIMEOUT,
                "the component took too long",
            ),
            Self::NoResponse => ("SG0426", "no_response", StatusCode::BAD_GATEWAY, INVALID),
            Self::GuestErrorCode { .. } => {
                ("SG0427", "guest_error", StatusCode::BAD_GATEWAY, INVALID)
            }
            Self::InvalidResponse { .. } => (
                "SG0428",
                "invalid_response",
                StatusCode::BAD_GATEWAY,
                INVALID,
            ),
            Self::IncompleteBody => (
                "SG0429",
                "incomplete_body",
                StatusCode::BAD_GATEWAY,
                INVALID,
            ),
            Self::Cancelled => (
                "SG0430",
                "cancelled",
                StatusCode::SERVICE_UNAVAILABLE,
                FAILED,
            ),
        };
        Wire {
            code,
            label,
            status,
            caller_message,
        }
    }
}
