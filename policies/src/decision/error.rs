//! Why an answer cannot be carried out.

/// Why an answer cannot be carried out. Names keys, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecisionError {
    /// Neither a boolean nor an object.
    #[error("it is {found}, not a boolean or an object")]
    Type {
        /// What it is instead.
        found: &'static str,
    },
    /// The object does not say whether the request is allowed.
    #[error("it has no `allowed`")]
    AllowedMissing,
    /// A key that the decision point does not know.
    #[error("the key `{key}` is not supported")]
    Key {
        /// The key, escaped.
        key: String,
    },
    /// A key's value has another type.
    #[error("`{key}` must be {expected}")]
    ValueType {
        /// The key.
        key: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A status that a denial cannot have.
    #[error("`http_status` {status} is not a final status that Envoy knows")]
    Status {
        /// The status.
        status: i64,
    },
    /// A header's name or value that HTTP cannot carry.
    #[error("`{key}` has a header that is not valid HTTP: {header}")]
    Header {
        /// The key.
        key: &'static str,
        /// The header's name as the policy gave it, escaped.
        header: String,
    },
    /// A header that policies may not touch.
    #[error("`{key}` may not touch the header {header}")]
    ProtectedHeader {
        /// The key.
        key: &'static str,
        /// The header's name.
        header: String,
    },
    /// A query parameter that is not URL-encoded.
    #[error("`query_parameters_to_set` has a parameter that is not URL-encoded: {parameter}")]
    QueryParameter {
        /// The parameter's name as the policy gave it, escaped.
        parameter: String,
    },
    /// Query parameters that make the request target longer than HTTP carries.
    #[error("`query_parameters_to_set` makes the request target too long")]
    Target,
}
