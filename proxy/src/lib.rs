//! The data plane: accept, identify, authorize, connect, stream.
//!
//! [`inbound`] tells a request's way from the socket to the upstream and back. A [`Proxy`] runs it
//! on worker threads, each with a runtime, listening sockets, an evaluator and connection pools of
//! its own.
#![warn(missing_docs)]

pub mod access_log;
mod activity;
mod body;
mod connect;
mod connections;
mod contained;
mod error;
mod generation;
mod guard;
mod head;
mod headers;
mod inbound;
mod limits;
mod line_format;
mod listener;
mod metrics;
mod open_request;
mod orders;
mod outbound;
mod path;
mod protocol;
mod recheck;
mod replayed;
mod request_body;
mod route;
mod server;
mod serving;
mod swap;
pub mod trace;
mod trust;
mod tunnel;
mod upgrade;
pub mod upstream;
mod worker;

pub use body::{BoxBody, BoxError};
pub use generation::{PolicySwap, PreparedGeneration, RetiredGeneration};
pub use headers::{ClientCertDetails, ForwardClientCert, Forwarding};
pub use limits::{Http2Limits, Limits, RequestRate};
pub use line_format::LineFormat;
pub use listener::{BindError, BodyLimits, BoundListener, InheritError, ListenerConfig, Timeouts};
pub use metrics::ProxyMetrics;
pub use outbound::Outbound;
pub use path::{Backslashes, DotSegments, DoubleSlashes, EscapedSlashes, PathRules, Semicolons};
pub use protocol::Protocol;
pub use request_body::RequestBody;
pub use route::{BadHostPattern, HostPattern, PathMatch, Route, RouteMatch};
pub use server::{Proxy, ProxyConfig, StartError};
pub use swap::{ListenerSwap, NextListener, PreparedListeners};
