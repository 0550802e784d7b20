//! Problems of a configuration file and how they are shown.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{
    AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str,
};

/// One problem of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Diagnostic {
    /// The stable code, `SGnnnn`.
    pub(crate) code: &'static str,
    pub(crate) title: String,
    /// Bytes of the file; `None` is the file as a whole.
    pub(crate) span: Option<Range<usize>>,
    /// Stands beside the caret.
    pub(crate) label: Option<String>,
    /// What to do about it.
    pub(crate) help: Option<String>,
    /// Other places that belong to the problem, each with its own label.
    pub(crate) related: Vec<(Range<usize>, String)>,
}

/// All problems of one configuration file, in file order, with the text they point into.
#[derive(Debug, Clone)]
pub(crate) struct Diagnostics {
    path: String,
    text: Arc<str>,
    list: Vec<Diagnostic>,
}

impl Diagnostic {
    pub(crate) fn new(
        code: &'static str,
        title: impl Into<String>,
        span: Option<Range<usize>>,
    ) -> Self {
        Self {
            code,
            title: title.into(),
            span,
            label: None,
            help: None,
            related: Vec::new(),
        }
    }

    #[must_use]
    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    #[must_use]
    pub(super) fn related(mut self, span: Option<Range<usize>>, label: &str) -> Self {
        self.related
            .extend(span.map(|span| (span, label.to_owned())));
        self
    }
}

impl Diagnostics {
    pub(super) fn new(path: String, text: Arc<str>, mut list: Vec<Diagnostic>) -> Self {
        list.sort_by_key(|diagnostic| {
            diagnostic
                .span
                .as_ref()
                .map_or(usize::MAX, |span| span.start)
        });
        Self { path, text, list }
    }

    #[cfg(test)]
    pub(crate) fn list(&self) -> &[Diagnostic] {
        &self.list
    }

    /// Each problem, with its place as `file:line:column` and as plain text.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&Diagnostic, String, String)> {
        let renderer = Renderer::plain();
        self.list.iter().map(move |diagnostic| {
            let rendered = renderer.render(&[self.group(diagnostic)]);
            (diagnostic, self.place(diagnostic), rendered)
        })
    }

    /// All problems as text for a terminal, with ANSI styles only where `color` is set.
    pub(crate) fn render(&self, color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut rendered = String::new();
        for diagnostic in &self.list {
            if !rendered.is_empty() {
                rendered.push('\n');
            }
            rendered.push_str(&renderer.render(&[self.group(diagnostic)]));
            rendered.push('\n');
        }
        rendered
    }

    fn place(&self, diagnostic: &Diagnostic) -> String {
        let start = diagnostic.span.as_ref().map(|span| span.start);
        let Some(before) = start.and_then(|start| self.text.get(..start)) else {
            return self.path.clone();
        };
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|it| *it != '\n').count() + 1;
        format!("{}:{line}:{column}", self.path)
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic) -> Group<'a> {
        let title = Level::ERROR
            .primary_title(&diagnostic.title)
            .id(diagnostic.code);
        let group = match &diagnostic.span {
            None => title.element(Origin::path(&self.path)),
            Some(span) => title.element(
                Snippet::source(&*self.text)
                    .path(&self.path)
                    .annotation(
                        AnnotationKind::Primary
                            .span(span.clone())
                            .label(diagnostic.label.as_deref().map(normalize_untrusted_str)),
                    )
                    .annotations(diagnostic.related.iter().map(|(span, label)| {
                        AnnotationKind::Context
                            .span(span.clone())
                            .label(normalize_untrusted_str(label))
                    })),
            ),
        };
        match &diagnostic.help {
            None => group,
            Some(help) => group.element(Level::HELP.message(normalize_untrusted_str(help))),
        }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.list.len() {
            1 => write!(formatter, "{} has a problem", self.path),
            count => write!(formatter, "{} has {count} problems", self.path),
        }
    }
}

/// The candidate that `word` is most likely a slip of the pen for, or `None`.
pub(super) fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
