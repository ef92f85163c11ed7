//! SARIF 2.1.0 (OASIS), as code scanning reads it.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Value, json};

use crate::check::rule::{Rule, Severity};
use crate::check::rules;

use super::Report;

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";
/// What a path may not have in a URI.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');
/// The rule of what could not be read.
const SYNTAX: &str = "syntax";

/// The report.
pub fn render(report: &Report<'_>) -> String {
    let all = rules::all();
    let mut described: Vec<Value> = all.iter().map(|rule| describe(rule)).collect();
    described.push(json!({
        "id": SYNTAX,
        "shortDescription": { "text": "The file cannot be read" },
        "defaultConfiguration": { "level": "error" },
    }));
    let of_findings = report.findings.iter().map(|finding| {
        let (start, end) = (report.start(finding), report.end(finding));
        let index = all.iter().position(|rule| rule.id == finding.rule.id);
        json!({
            "ruleId": finding.rule.id,
            "ruleIndex": index,
            "level": level(finding.severity),
            "message": { "text": format!("{}: {}\nWrite:\n{}", finding.object, finding.message, finding.remedy) },
            "locations": [location(&report.files[finding.file].name, json!({
                "startLine": start.line,
                "startColumn": start.column,
                "endLine": end.line,
                "endColumn": end.column,
            }))],
        })
    });
    let of_problems = report.problems.iter().filter(|problem| !problem.is_note).map(|problem| {
        let place = report.place(problem);
        let help = problem.help.as_deref().unwrap_or_default();
        json!({
            "ruleId": SYNTAX,
            "ruleIndex": all.len(),
            "level": "error",
            "message": { "text": format!("{} {help}", problem.message).trim() },
            "locations": [location(&problem.name, json!({ "startLine": place.line, "startColumn": place.column }))],
        })
    });
    let results: Vec<Value> = of_findings.chain(of_problems).collect();
    let document = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "gracekeeper check",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": described,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    format!("{document:#}\n")
}

fn describe(rule: &Rule) -> Value {
    json!({
        "id": rule.id,
        "shortDescription": { "text": rule.summary },
        "fullDescription": { "text": rule.why },
        "help": {
            "text": format!("{}\n\nWrite:\n{}", rule.why, rule.remedy),
            "markdown": format!("{}\n\nWrite:\n\n```yaml\n{}```\n", rule.why, rule.remedy),
        },
        "defaultConfiguration": { "level": level(rule.severity) },
    })
}

fn location(name: &str, region: Value) -> Value {
    let uri = match name {
        "-" => "stdin".to_owned(),
        path => utf8_percent_encode(path.trim_start_matches("./"), PATH).to_string(),
    };
    json!({ "physicalLocation": { "artifactLocation": { "uri": uri }, "region": region } })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Hint => "note",
    }
}
