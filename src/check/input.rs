//! Files, folders and standard input, read into manifests; what cannot be read is a problem with its place.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;

use crate::podspec::Stream;
use crate::podspec::document::SyntaxError;

use super::manifests::File;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 64 << 20;

/// What could not be read.
#[derive(Debug)]
pub struct Problem {
    /// The file's name.
    pub name: String,
    /// Its index and the byte, where it was read at all.
    pub at: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// Whether this is a note, and no failure.
    pub is_note: bool,
}

impl Problem {
    /// Whether the exit status has to say so.
    pub fn fails(&self) -> bool {
        !self.is_note
    }

    fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        Self {
            name: path.display().to_string(),
            at: None,
            message: format!("cannot be read: {error}"),
            help: None,
            is_note: false,
        }
    }
}

/// Reads files and folders.
pub fn read(paths: &[PathBuf]) -> (Vec<File>, Vec<Problem>) {
    let mut files = Vec::new();
    let mut problems = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            match text_of(std::io::stdin().lock()) {
                Ok(text) => add(&mut files, &mut problems, "-".to_owned(), text, false),
                Err(e) => problems.push(Problem::unreadable(path, &e)),
            }
        } else if path.is_dir() {
            read_folder(path, &mut files, &mut problems);
        } else {
            read_file(path, &mut files, &mut problems);
        }
    }
    (files, problems)
}

/// A text that is in no file.
pub fn from_text(name: &str, text: String) -> (Vec<File>, Vec<Problem>) {
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    add(&mut files, &mut problems, name.to_owned(), text, false);
    (files, problems)
}

fn read_file(path: &Path, files: &mut Vec<File>, problems: &mut Vec<Problem>) {
    match std::fs::File::open(path).and_then(text_of) {
        Ok(text) => add(files, problems, path.display().to_string(), text, true),
        Err(e) => problems.push(Problem::unreadable(path, &e)),
    }
}

/// Everything below a folder that looks like a manifest. What .gitignore leaves out is left out, and so are the templates
/// of Helm charts, which are no YAML yet.
fn read_folder(folder: &Path, files: &mut Vec<File>, problems: &mut Vec<Problem>) {
    let mut charts = BTreeSet::new();
    let mut entries = WalkBuilder::new(folder);
    entries.sort_by_file_path(Path::cmp).follow_links(false);
    for entry in entries.build() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) => {
                let error = std::io::Error::other(e);
                problems.push(Problem::unreadable(folder, &error));
                continue;
            }
        };
        let path = entry.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        let is_manifest = matches!(extension, Some("yaml" | "yml" | "json"));
        if !is_manifest || !path.is_file() {
            continue;
        }
        match chart_of(path, folder) {
            Some(chart) => {
                charts.insert(chart);
            }
            None => {
                let before = problems.len();
                read_file(path, files, problems);
                // A broken file in a folder that is no manifest is not ours to judge.
                let is_ours = files
                    .last()
                    .is_none_or(|file| file.stream.text.contains("apiVersion"));
                if problems[before..]
                    .iter()
                    .any(|problem| problem.at.is_some())
                    && !is_ours
                {
                    problems.truncate(before);
                    files.pop();
                }
            }
        }
    }
    problems.extend(charts.into_iter().map(|chart| Problem {
        name: chart.display().to_string(),
        at: None,
        message: "is a Helm chart; its templates are no manifests yet".to_owned(),
        help: Some(format!(
            "helm template {} | gracekeeper check -",
            chart.display()
        )),
        is_note: true,
    }));
}

/// The chart whose template or values a file is.
fn chart_of(path: &Path, top: &Path) -> Option<PathBuf> {
    let mut inner = path.parent()?;
    loop {
        if inner.join("Chart.yaml").is_file() {
            return Some(inner.to_owned());
        }
        if inner == top {
            return None;
        }
        inner = inner.parent()?;
    }
}

fn text_of(from: impl std::io::Read) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    from.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        let message = format!("it is larger than {} MiB; split it", LARGEST >> 20);
        return Err(std::io::Error::other(message));
    }
    String::from_utf8(bytes).map_err(|e| {
        let message = format!("it is no UTF-8 at byte {}", e.utf8_error().valid_up_to());
        std::io::Error::new(std::io::ErrorKind::InvalidData, message)
    })
}

fn add(
    files: &mut Vec<File>,
    problems: &mut Vec<Problem>,
    name: String,
    text: String,
    on_disk: bool,
) {
    let stream = Stream::parse(text);
    let problem = |error: &SyntaxError, message: String, help| Problem {
        name: name.clone(),
        at: Some((files.len(), error.at)),
        message,
        help,
        is_note: false,
    };
    match stream.errors.as_slice() {
        // A template's documents fail one after the other for the same reason, which is said once.
        [first, ..] if stream.text.contains("{{") => problems.push(problem(
            first,
            format!(
                "this looks like a template, which is no YAML yet: {}",
                first.message
            ),
            Some("render it first: helm template CHART | gracekeeper check -".to_owned()),
        )),
        errors => problems
            .extend((errors.iter()).map(|error| problem(error, error.message.clone(), None))),
    }
    files.push(File {
        name,
        stream,
        on_disk,
    });
}
