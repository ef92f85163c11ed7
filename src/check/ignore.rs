//! Findings that a comment or an annotation says to leave out.
//!
//! `# gracekeeper:ignore GK007, GK008` counts for its own line; on a line of its own, for the next line and what is
//! indented below it; before the first document of a file, for the whole file. Without ids it counts for all rules. The
//! annotation `gracekeeper.dev/ignore: GK007` counts for its object.

use crate::podspec::Stream;
use crate::podspec::document::Comment;

use super::manifests::{File, rule_ids};
use super::rule::Finding;

const MARK: &str = "gracekeeper:ignore";

/// Lines for which some rules are not applied.
#[derive(Debug)]
struct Scope {
    first: usize,
    last: usize,
    /// None for all.
    ids: Vec<String>,
}

/// Leaves out what is to be ignored.
pub fn leave_out(files: &[File], findings: &mut Vec<Finding>) {
    let scopes: Vec<Vec<Scope>> = files.iter().map(|file| scopes(&file.stream)).collect();
    findings.retain(|finding| {
        let line = files[finding.file].stream.place(finding.span.start).line;
        let by_comment = scopes[finding.file].iter().any(|scope| {
            (scope.first..=scope.last).contains(&line)
                && (scope.ids.is_empty() || scope.ids.iter().any(|id| id == finding.rule.id))
        });
        let by_annotation = finding.ignored.iter().any(|id| id == finding.rule.id);
        !by_comment && !by_annotation
    });
}

fn scopes(stream: &Stream) -> Vec<Scope> {
    (stream.comments.iter())
        .filter_map(|comment| scope(stream, comment))
        .collect()
}

fn scope(stream: &Stream, comment: &Comment) -> Option<Scope> {
    let rest = comment.text.trim_start().strip_prefix(MARK)?;
    let ids = rule_ids(rest).collect();
    let line = stream.place(comment.span.start).line;
    let first_content = (stream.documents.iter())
        .map(|document| document.root.span.start)
        .min();
    let (first, last) = if !comment.own_line {
        (line, line)
    } else if first_content.is_none_or(|start| comment.span.start < start) {
        (1, usize::MAX)
    } else {
        block_after(stream, line)
    };
    Some(Scope { first, last, ids })
}

/// The next line with content, and the last that is indented below it.
fn block_after(stream: &Stream, line: usize) -> (usize, usize) {
    let lines: Vec<&str> = stream.text.lines().collect();
    let is_content = |text: &str| !text.trim().is_empty() && !text.trim_start().starts_with('#');
    let indent = |text: &str| text.len() - text.trim_start().len();
    let Some(first) = (line..lines.len()).find(|&index| is_content(lines[index])) else {
        return (line, line);
    };
    let depth = indent(lines[first]);
    let is_item = |text: &str| text.trim_start().starts_with("- ");
    // A list may stand at the indentation of its key.
    let goes_on = |text: &str| {
        indent(text) > depth || (indent(text) == depth && is_item(text) && !is_item(lines[first]))
    };
    // Before a document's first key it counts for the whole document.
    let whole = depth == 0 && lines[first].starts_with("---");
    let last = (first + 1..lines.len())
        .take_while(|&index| {
            let text = lines[index];
            !is_content(text) || (whole && !text.starts_with("---")) || goes_on(text)
        })
        .last();
    (first + 1, last.unwrap_or(first) + 1)
}
