//! Workflow commands of GitHub Actions: each line becomes an annotation of the pull request.

use std::fmt::Write as _;

use crate::check::rule::Severity;

use super::Report;

/// The report.
pub fn render(report: &Report<'_>) -> String {
    let mut lines = String::new();
    for finding in report.findings {
        let (start, end) = (report.start(finding), report.end(finding));
        let command = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Hint => "notice",
        };
        let message = format!(
            "{}: {}\nWrite:\n{}",
            finding.object, finding.message, finding.remedy
        );
        let _ = writeln!(
            lines,
            "::{command} file={},line={},endLine={},col={},title={}::{}",
            property(&report.files[finding.file].name),
            start.line,
            end.line,
            start.column,
            finding.rule.id,
            data(message.trim_end()),
        );
    }
    for problem in report.problems {
        let place = report.place(problem);
        let command = if problem.is_note { "notice" } else { "error" };
        let help = problem.help.as_deref().unwrap_or_default();
        let _ = writeln!(
            lines,
            "::{command} file={},line={},col={}::{}",
            property(&problem.name),
            place.line,
            place.column,
            data(format!("{}\n{help}", problem.message).trim_end()),
        );
    }
    lines
}

/// A message, escaped as the runner's toolkit does it (actions/toolkit, packages/core/src/command.ts).
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// A property's value.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_ends_its_command_early() {
        assert_eq!(data("50%\nx"), "50%25%0Ax");
        assert_eq!(property("a:b,c"), "a%3Ab%2Cc");
    }
}
