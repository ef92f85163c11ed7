//! One JSON document: the findings, and what could not be read.

use serde_json::{Value, json};

use super::Report;

/// The report.
pub fn render(report: &Report<'_>) -> String {
    let findings: Vec<Value> = (report.findings.iter())
        .map(|finding| {
            let (start, end) = (report.start(finding), report.end(finding));
            json!({
                "id": finding.rule.id,
                "severity": finding.severity.name(),
                "file": report.files[finding.file].name,
                "line": start.line,
                "column": start.column,
                "endLine": end.line,
                "endColumn": end.column,
                "object": finding.object,
                "message": finding.message,
                "remedy": finding.remedy,
            })
        })
        .collect();
    let (notes, errors): (Vec<_>, Vec<_>) = (report.problems.iter())
        .map(|problem| {
            let place = report.place(problem);
            let value = json!({
                "file": problem.name,
                "line": place.line,
                "column": place.column,
                "message": problem.message,
                "help": problem.help,
            });
            (problem.is_note, value)
        })
        .partition(|(is_note, _)| *is_note);
    let values =
        |list: Vec<(bool, Value)>| list.into_iter().map(|(_, value)| value).collect::<Vec<_>>();
    let fixed: Vec<Value> = (report.fixed.iter())
        .map(|fixed| json!({"id": fixed.id, "file": fixed.file, "object": fixed.object}))
        .collect();
    let document = json!({
        "findings": findings,
        "errors": values(errors),
        "notes": values(notes),
        "fixed": fixed,
    });
    format!("{document:#}\n")
}
