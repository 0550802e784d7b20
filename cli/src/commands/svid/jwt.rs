//! JWT-SVIDs: fetched, and validated.

use std::io::Read;
use std::path::Path;

use serde::Serialize;
use spiffe::JwtSvid;
use spiffe::transport::GrpcStatusCode;

use super::{ask, files, has_code, refused, rfc3339, words};
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
    #[serde(flatten)]
    place: Place<'a>,
}

/// A token is printed or written to a file, not both.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Place<'a> {
    Token(&'a str),
    File(String),
}

#[derive(Debug, Serialize)]
struct Validated<'a> {
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    spiffe_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// Fetches once, and prints or writes.
pub(super) fn fetch(arguments: &FetchJwtArguments) -> Result<(), Failure> {
    let svids = ask(&arguments.client.socket, async |client| {
        let (audience, id) = (&arguments.audience, arguments.spiffe_id.as_ref());
        client
            .fetch_all_jwt_svids(audience, id)
            .await
            .map_err(refused)
    })?;
    let svids = match &arguments.write {
        Some(file) => vec![write(file, &svids)?],
        None => svids.iter().map(Token::of).collect(),
    };
    match arguments.client.output {
        OutputFormat::Json => output::print_json(&Fetched { svids }),
        OutputFormat::Text => output::print(&svids.iter().map(Token::text).collect::<String>()),
    }
}

/// Writes the first, which is the default one among X.509-SVIDs (SPIFFE_Workload_API.md section 5.3).
fn write<'a>(file: &Path, svids: &'a [JwtSvid]) -> Result<Token<'a>, Failure> {
    let first = svids.first();
    let svid =
        first.ok_or_else(|| Failure::message("SG0050", "the Workload API gives no token"))?;
    files::write(file, svid.token().as_bytes())?;
    Ok(Token {
        place: Place::File(file.display().to_string()),
        ..Token::of(svid)
    })
}

/// Asks whether a token is valid for an audience; prints the answer and says it.
pub(super) fn validate(arguments: &ValidateArguments) -> Result<bool, Failure> {
    let token = token(&arguments.token)?;
    let answer = ask(&arguments.client.socket, async |client| {
        match client.validate_jwt_token(&arguments.audience, &token).await {
            Ok(svid) => Ok(Ok(svid.spiffe_id().to_string())),
            // The API's word for a token that is not valid.
            Err(error) if has_code(&error, GrpcStatusCode::InvalidArgument) => {
                Ok(Err(words(&error)))
            }
            Err(error) => Err(refused(error)),
        }
    })?;
    let validated = Validated {
        valid: answer.is_ok(),
        spiffe_id: answer.as_ref().ok().cloned(),
        reason: answer.as_ref().err().map(String::as_str),
    };
    match (arguments.client.output, &answer) {
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
            place: Place::Token(svid.token()),
        }
    }

    fn text(&self) -> String {
        let Self {
            spiffe_id,
            audience,
            expires,
            place,
            ..
        } = self;
        let audience = audience.join(", ");
        let place = match place {
            Place::Token(token) => (*token).to_owned(),
            Place::File(file) => format!("Token:      {file}"),
        };
        format!("SPIFFE ID:  {spiffe_id}\nAudience:   {audience}\nValid to:   {expires}\n{place}\n")
    }
}
