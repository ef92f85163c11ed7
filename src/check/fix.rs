//! `--fix`: the remedies that are safe, as edits of the files.

use anyhow::Context as _;

use crate::podspec::Stream;
use crate::podspec::edit::{self, Edit};

use super::manifests::File;
use super::rule::Finding;

/// A remedy may make room for another; after so many rounds it is left at that.
const MOST_ROUNDS: usize = 8;

/// What was changed.
#[derive(Debug)]
pub struct Fixed {
    /// The rule.
    pub id: &'static str,
    /// The file.
    pub file: String,
    /// The object.
    pub object: String,
}

/// Changes the files and gives what was fixed, and what is left to do.
///
/// # Errors
/// When a file cannot be written.
pub fn apply(
    files: &mut [File],
    mut findings: Vec<Finding>,
    ignored: &[String],
) -> anyhow::Result<(Vec<Fixed>, Vec<Finding>)> {
    let mut fixed = Vec::new();
    for _ in 0..MOST_ROUNDS {
        let mut changes = changed(files, &findings);
        changes.retain(|change| files[change.file].on_disk);
        if changes.is_empty() {
            break;
        }
        for change in changes {
            let file = &mut files[change.file];
            std::fs::write(&file.name, &change.text)
                .with_context(|| format!("{} cannot be written", file.name))?;
            file.stream = Stream::parse(change.text);
            fixed.extend(change.findings.into_iter().map(|index| Fixed {
                id: findings[index].rule.id,
                file: file.name.clone(),
                object: findings[index].object.clone(),
            }));
        }
        findings = super::find(files, ignored);
    }
    Ok((fixed, findings))
}

/// A file as it is to be.
#[derive(Debug)]
pub struct Change {
    file: usize,
    text: String,
    /// The indexes of the findings that this mends.
    findings: Vec<usize>,
}

/// The files that have something to fix, changed. Edits that would touch each other wait for the next round.
pub fn changed(files: &[File], findings: &[Finding]) -> Vec<Change> {
    let mut changes = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let mut edits: Vec<Edit> = Vec::new();
        let mut mended = Vec::new();
        for (number, finding) in findings.iter().enumerate() {
            let is_free = |edit: &Edit| {
                edits.iter().all(|other| {
                    edit.range.end < other.range.start || other.range.end < edit.range.start
                })
            };
            if finding.file == index && !finding.fix.is_empty() && finding.fix.iter().all(is_free) {
                edits.extend(finding.fix.iter().cloned());
                mended.push(number);
            }
        }
        let text = edit::apply(&file.stream.text, &edits).filter(|_| !edits.is_empty());
        changes.extend(
            text.filter(|text| is_sound(&file.stream, text))
                .map(|text| Change {
                    file: index,
                    text,
                    findings: mended,
                }),
        );
    }
    changes
}

/// Whether the changed text is still YAML with as many documents. What is not is left for people to do.
fn is_sound(before: &Stream, text: &str) -> bool {
    let after = Stream::parse(text.to_owned());
    after.errors.len() == before.errors.len() && after.documents.len() == before.documents.len()
}
