//! JWT-SVIDs: fetched, and validated.

use std::io::Read;

use serde::Serialize;
use spiffe::transport::{GrpcStatusCode, TransportError};
use spiffe::{JwtSvid, WorkloadApiError};

use super::{ask, refused, rfc3339};
use crate::arguments::{FetchJwtArguments, OutputFormat, ValidateArguments};
use crate::failure::Failure;
use crate::output;

/// A token longer than this is none.
const LONGEST_TOKEN: u64 = 64 * 1024;

#[derive(Debug, Serialize)]
struct Fetched<'a> {
    svids: Vec<Token<'a>>,
}

#[derive(Debug, Serialize)]
struct Token<'a> {
    spiffe_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    audience: &'a [String],
    /// RFC 3339.
    expires: String,
    token: &'a str,
}

#[derive(Debug, Serialize)]
struct Validated<'a> {
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    spiffe_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// Fetches once and prints.
pub(in crate::commands) fn fetch(arguments: &FetchJwtArguments) -> Result<(), Failure> {
    let svids = ask(&arguments.socket, async |client| {
        let (audience, id) = (&arguments.audience, arguments.spiffe_id.as_ref());
        client
            .fetch_all_jwt_svids(audience, id)
            .await
            .map_err(refused)
    })?;
    let svids: Vec<_> = svids.iter().map(Token::of).collect();
    match arguments.output {
        OutputFormat::Json => output::print_json(&Fetched { svids }),
        OutputFormat::Text => output::print(&svids.iter().map(Token::text).collect::<String>()),
    }
}

/// Asks whether a token is valid for an audience; prints the answer and says it.
pub(in crate::commands) fn validate(arguments: &ValidateArguments) -> Result<bool, Failure> {
    let token = token(&arguments.token)?;
    let answer = ask(&arguments.socket, async |client| {
        match client.validate_jwt_token(&arguments.audience, &token).await {
            Ok(svid) => Ok(Ok(svid.spiffe_id().to_string())),
            // The API's word for a token that is not valid.
            Err(WorkloadApiError::Transport(TransportError::Status(status)))
                if status.code() == GrpcStatusCode::InvalidArgument =>
            {
                Ok(Err(status.message().to_owned()))
            }
            Err(error) => Err(refused(error)),
        }
    })?;
    let validated = Validated {
        valid: answer.is_ok(),
        spiffe_id: answer.as_ref().ok().cloned(),
        reason: answer.as_ref().err().map(String::as_str),
    };
    match (arguments.output, &answer) {
        (OutputFormat::Json, _) => output::print_json(&validated)?,
        (OutputFormat::Text, Ok(id)) => output::print(&format!("valid: {id}\n"))?,
        (OutputFormat::Text, Err(reason)) => output::print(&format!("not valid: {reason}\n"))?,
    }
    Ok(validated.valid)
}

/// The token as given, or from standard input: arguments can be seen by other users.
fn token(argument: &str) -> Result<String, Failure> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut text = String::new();
    std::io::stdin()
        .take(LONGEST_TOKEN)
        .read_to_string(&mut text)
        .map_err(|error| Failure::new("SG0053", &error))?;
    Ok(text.trim().to_owned())
}

impl<'a> Token<'a> {
    fn of(svid: &'a JwtSvid) -> Self {
        Self {
            spiffe_id: svid.spiffe_id().to_string(),
            hint: svid.hint(),
            audience: svid.audience(),
            expires: rfc3339(svid.expiry().into()),
            token: svid.token(),
        }
    }

    fn text(&self) -> String {
        let Self {
            spiffe_id,
            audience,
            expires,
            token,
            ..
        } = self;
        let audience = audience.join(", ");
        format!("SPIFFE ID:  {spiffe_id}\nAudience:   {audience}\nValid to:   {expires}\n{token}\n")
    }
}
