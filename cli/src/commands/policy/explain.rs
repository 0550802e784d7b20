//! `sidegate policy explain`.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::SystemTime;

use http::Method;
use http::request::Parts;
use serde::Serialize;
use sidegate_policy::explain::{
    ExplainOptions, Explanation, ReadSetReport, explain, read_set, request_document,
};
use sidegate_policy::question::{DecisionPoint, InputDocument};
use sidegate_policy::replay::{Events, LogError, LoggedDecision};
use sidegate_policy::{ConnectionParameters, PolicySources, RequestFacts};

use super::{SCHEMA, explain_text, findings, input, read, refused, refused_entrypoint, usable};
use crate::arguments::{ExplainArguments, OutputFormat};
use crate::failure::Failure;
use crate::output;

/// What `-o json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    pub(super) schema: u32,
    #[serde(flatten)]
    pub(super) explanation: &'a Explanation,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) decision_id: Option<&'a str>,
    /// What the log does not have, and the policy reads: the explanation goes without it.
    pub(super) removed: &'a [String],
}

/// What `--read-set -o json` prints.
#[derive(Debug, Serialize)]
struct ReadSetDocument<'a> {
    schema: u32,
    #[serde(flatten)]
    report: &'a ReadSetReport,
}

/// What is to be explained.
struct Asked {
    input: InputDocument,
    event: Option<LoggedDecision>,
}

/// Explains, and prints it. That the policy denies is no failure.
pub(super) fn execute(arguments: &ExplainArguments) -> Result<bool, Failure> {
    let files = read(&arguments.paths)?;
    let sources = usable(&files)?;
    if arguments.read_set {
        return tell_read_set(arguments, &sources);
    }
    let asked = asked(arguments)?;
    let logged = asked.event.as_ref().and_then(|it| it.path.as_deref());
    let entrypoint = arguments.entrypoint.as_deref().or(logged);
    let options = ExplainOptions {
        entrypoint: entrypoint
            .unwrap_or(DecisionPoint::Ingress.entrypoint())
            .to_owned(),
        time_limit: input::TIME_LIMIT,
        ..ExplainOptions::default()
    };
    let explanation = explain(&sources, &asked.input, &options).map_err(|error| match error {
        sidegate_policy::question::QuestionError::Policy(error) => {
            refused_entrypoint(error, &sources, &options.entrypoint)
        }
        other => input::failed(&other),
    })?;
    let removed = match &asked.event {
        None => Vec::new(),
        Some(event) => event
            .missing(&sources, &options.entrypoint, options.time_limit)
            .map_err(refused)?,
    };
    match arguments.output {
        OutputFormat::Json => output::print_json(&Document {
            schema: SCHEMA,
            explanation: &explanation,
            decision_id: asked.event.as_ref().map(|it| it.decision_id.as_str()),
            removed: &removed,
        })?,
        OutputFormat::Text => {
            for path in &removed {
                let path = path.escape_debug();
                findings::tell(&format!(
                    "the policy reads {path}, which the log does not have: it may have decided otherwise\n"
                ));
            }
            let before = asked.event.as_ref().and_then(LoggedDecision::verdict);
            if before.is_some_and(|verdict| verdict != explanation.decision.verdict) {
                findings::tell("the log has another verdict: the policy is another one\n");
            }
            let color = output::colored(std::io::stdout().is_terminal());
            output::print(&explain_text::explanation(&explanation, &files, color))?;
        }
    }
    Ok(true)
}

fn tell_read_set(arguments: &ExplainArguments, sources: &PolicySources) -> Result<bool, Failure> {
    let entrypoint = arguments.entrypoint.as_deref();
    let entrypoint = entrypoint.unwrap_or(DecisionPoint::Ingress.entrypoint());
    let report = read_set(sources, entrypoint)
        .map_err(|error| refused_entrypoint(error, sources, entrypoint))?;
    match arguments.output {
        OutputFormat::Json => output::print_json(&ReadSetDocument {
            schema: SCHEMA,
            report: &report,
        })?,
        OutputFormat::Text => output::print(&explain_text::read_set(&report))?,
    }
    Ok(true)
}

fn asked(arguments: &ExplainArguments) -> Result<Asked, Failure> {
    if let (Some(id), Some(log)) = (&arguments.decision, &arguments.log) {
        let event = find(log, id)?;
        let Some(logged) = &event.input else {
            let message = format!("the decision {id} has no input in the log");
            let failure = Failure::message("SG0295", message);
            return Err(failure.help("it was withheld, or never made: see its `error`"));
        };
        let input = InputDocument::parse(&logged.to_string());
        let input = input.map_err(|error| Failure::new("SG0286", &error))?;
        return Ok(Asked {
            input,
            event: Some(event),
        });
    }
    let input = match &arguments.input {
        Some(file) => input::document(file)?,
        None => told_request(arguments)?,
    };
    Ok(Asked { input, event: None })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time of a request that is told is now"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

/// The document of the request on the command line, as if it came over TLS from this machine.
fn told_request(arguments: &ExplainArguments) -> Result<InputDocument, Failure> {
    let unusable = |error: &dyn std::error::Error| Failure::new("SG0296", error);
    let path = arguments.path.as_ref().map_or("/", |path| path.as_str());
    let mut request = http::Request::builder().uri(path);
    if let Some(method) = &arguments.method {
        request = request.method(method);
    }
    for (name, value) in &arguments.headers {
        request = request.header(name, value);
    }
    let (head, ()) = request
        .body(())
        .map_err(|error| unusable(&error))?
        .into_parts();
    never_asked(&head)?;
    let declared = head.headers.get(http::header::CONTENT_LENGTH);
    let request = RequestFacts {
        declared_body_bytes: declared.and_then(|size| size.to_str().ok()?.parse().ok()),
        body: sidegate_policy::RequestBody::default(),
        head,
        scheme: "https".into(),
        host: arguments.host.clone(),
        request_id: "explained".to_owned(),
        time: now(),
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let connection = ConnectionParameters {
        downstream_address: address,
        local_address: address,
        source_principal: arguments.principal.as_ref().map(ToString::to_string),
        source_certificate: None,
        destination_principal: arguments.destination.as_ref().map(ToString::to_string),
        server_name: None,
        listener: String::new(),
        context_extensions: std::collections::BTreeMap::new(),
    };
    request_document(&connection, &request).map_err(|error| unusable(&error))
}

/// What the proxy refuses whatever the policy says.
fn never_asked(head: &Parts) -> Result<(), Failure> {
    let paths = sidegate_proxy::PathRules::default();
    let (status, problem) = match paths.ambiguity(head.uri.path()) {
        Some(problem) => (400, problem),
        None if head.method == Method::CONNECT => (
            400,
            "a CONNECT has no path; an input document can tell one".to_owned(),
        ),
        None => return Ok(()),
    };
    let message =
        format!("such a request is refused with {status} before the policy is asked: {problem}");
    let failure = Failure::message("SG0310", message);
    Err(match status {
        400 => failure.help(
            "a listener may let it through by `[listener.path]`: explain its decision from the log",
        ),
        _ => failure,
    })
}

/// The event of a decision, or of the request with this id.
fn find(log: &Path, id: &str) -> Result<LoggedDecision, Failure> {
    let mut unread = 0_usize;
    for event in events(log)? {
        match event {
            Ok((_, event)) if event.decision_id == id || event.request_id() == Some(id) => {
                return Ok(event);
            }
            Ok(_) => {}
            Err(error) if error.is_one_event() => unread = unread.saturating_add(1),
            Err(error) => return Err(Failure::new(error.code(), &error)),
        }
    }
    let message = format!("no event of {} is of {id}", log.display());
    let failure = Failure::message("SG0295", message);
    Err(match unread {
        0 => failure.help("logs are rotated: look in the files beside it, too"),
        _ => failure.help(format!("{unread} of its lines are no events")),
    })
}

/// The events of a file; `-` is standard input.
pub(super) fn events(log: &Path) -> Result<Events<'static>, Failure> {
    let reader: Box<dyn Read> = match log.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => {
            let file = File::open(log);
            Box::new(file.map_err(|error| {
                let message = format!("the log {} cannot be read: {error}", log.display());
                Failure::message("SG0288", message)
            })?)
        }
    };
    Events::new(reader).map_err(|error: LogError| Failure::new(error.code(), &error))
}
