//! Findings as text, each at its place in its file.

use std::io::{IsTerminal, Write};

use annotate_snippets::{
    AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str,
};
use sidegate_policy::PolicyFiles;
use sidegate_policy::lint::{Finding, Severity};

/// The findings as text for a terminal, with ANSI styles only where `color` is set.
pub(super) fn render(findings: &[Finding], files: &PolicyFiles, color: bool) -> String {
    let renderer = match color {
        true => Renderer::styled(),
        false => Renderer::plain(),
    };
    let mut text = String::new();
    for finding in findings {
        // A title is one line of untrusted text: the policy's names stand in it.
        let title = normalize_untrusted_str(&finding.message);
        text.push_str(&renderer.render(&[group(finding, &title, files)]));
        text.push_str("\n\n");
    }
    text
}

/// Writes talk to standard error. That nobody reads there is no reason to fail.
pub(super) fn tell(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Whether to color what is told.
pub(super) fn told_in_color() -> bool {
    crate::output::colored(std::io::stderr().is_terminal())
}

fn group<'a>(finding: &'a Finding, title: &'a str, files: &'a PolicyFiles) -> Group<'a> {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(title).id(finding.code);
    let file = finding.file.as_deref();
    let text = file.and_then(|file| files.text(file));
    let group = match (file, text, &finding.span) {
        (Some(file), Some(text), Some(span)) => title.element(
            Snippet::source(text)
                .path(file)
                .annotation(AnnotationKind::Primary.span(span.clone())),
        ),
        (Some(file), ..) => title.element(Origin::path(file)),
        (None, ..) => Group::with_title(title),
    };
    match &finding.help {
        None => group,
        Some(help) => group.element(Level::HELP.message(normalize_untrusted_str(help))),
    }
}
