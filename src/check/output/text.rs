//! For people: each finding with its source, the place underlined, and what to write.

use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::check::manifests::File;
use crate::check::rule::Severity;
use crate::podspec::Stream;

use super::Report;

/// A place of more lines than this is shown by its first.
const MOST_LINES: usize = 6;

/// The report.
pub fn render(report: &Report<'_>, color: bool) -> String {
    let renderer = if color {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let mut out = String::new();
    for problem in report.problems {
        let level = if problem.is_note {
            Level::NOTE
        } else {
            Level::ERROR
        };
        let title = level.primary_title(match problem.at {
            Some(_) => problem.message.clone(),
            None => format!("{} {}", problem.name, problem.message),
        });
        let mut group = annotate_snippets::Group::with_title(title);
        if let Some((file, at)) = problem.at {
            let excerpt = Excerpt::new(&report.files[file], at..at + 1);
            group = group.element(excerpt.snippet());
        }
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help.clone()));
        }
        let _ = writeln!(out, "{}\n", renderer.render(&[group]));
    }
    for finding in report.findings {
        let level = match finding.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Hint => Level::INFO.with_name("hint"),
        };
        let excerpt = Excerpt::new(&report.files[finding.file], finding.span.clone());
        let title = level
            .primary_title(finding.message.clone())
            .id(finding.rule.id);
        let group = annotate_snippets::Group::with_title(title)
            .element(excerpt.snippet())
            .element(Level::NOTE.with_name("in").message(finding.object.clone()))
            .element(
                Level::HELP
                    .with_name("write")
                    .message(format!("\n{}", finding.remedy.trim_end())),
            );
        let _ = writeln!(out, "{}\n", renderer.render(&[group]));
    }
    for fixed in report.fixed {
        let _ = writeln!(
            out,
            "fixed {} in {} ({})",
            fixed.id, fixed.file, fixed.object
        );
    }
    out + &summary(report)
}

fn summary(report: &Report<'_>) -> String {
    let count = |severity| {
        (report.findings.iter())
            .filter(|finding| finding.severity == severity)
            .count()
    };
    let many = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let unread = report
        .problems
        .iter()
        .filter(|problem| !problem.is_note)
        .count();
    let mut line = format!(
        "{}, {}, {} in {}",
        many(count(Severity::Error), "error"),
        many(count(Severity::Warning), "warning"),
        many(count(Severity::Hint), "hint"),
        many(report.files.len(), "file"),
    );
    if unread > 0 {
        let _ = write!(line, "; {} could not be read", many(unread, "document"));
    }
    if let Some(finding) = report.findings.first() {
        let _ = write!(
            line,
            "; gracekeeper check --explain {} says why",
            finding.rule.id
        );
    }
    line + "\n"
}

/// Some lines of a file.
struct Excerpt<'a> {
    name: &'a str,
    text: &'a str,
    first_line: usize,
    span: Range<usize>,
}

impl<'a> Excerpt<'a> {
    fn new(file: &'a File, span: Range<usize>) -> Self {
        let stream: &Stream = &file.stream;
        let text = stream.text.as_str();
        let start = floor(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = |from: usize| text[from..].find('\n').map_or(text.len(), |at| from + at);
        let mut end = floor(text, span.end.max(start));
        let lines = stream.place(end).line - stream.place(start).line;
        if lines >= MOST_LINES {
            end = line_end(start);
        }
        let last = line_end(end);
        Self {
            name: &file.name,
            text: &text[line_start..last],
            first_line: stream.place(start).line,
            span: start - line_start..(end - line_start).max(start - line_start),
        }
    }

    fn snippet(&self) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        Snippet::source(self.text)
            .line_start(self.first_line)
            .path(self.name)
            .annotation(AnnotationKind::Primary.span(self.span.clone()))
    }
}

/// The nearest byte at or before this one that begins a character.
fn floor(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at)
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0)
}
