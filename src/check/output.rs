//! Findings as text: for people, for programs, for code scanning, for pull requests.

mod github;
mod json;
mod sarif;
mod text;

use std::str::FromStr;

use crate::podspec::document::Place;

use super::fix::Fixed;
use super::input::Problem;
use super::manifests::File;
use super::rule::Finding;

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people: the source with the place underlined.
    Text,
    /// One JSON document.
    Json,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// Workflow commands of GitHub Actions, which become annotations.
    Github,
}

/// Everything there is to print.
#[derive(Debug)]
pub struct Report<'a> {
    /// The files that were read.
    pub files: &'a [File],
    /// What was found.
    pub findings: &'a [Finding],
    /// What could not be read.
    pub problems: &'a [Problem],
    /// What was fixed.
    pub fixed: &'a [Fixed],
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 4] = [Format::Text, Format::Json, Format::Sarif, Format::Github];
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            "sarif" => Ok(Format::Sarif),
            "github" => Ok(Format::Github),
            _ => Err("write text, json, sarif or github"),
        }
    }
}

impl Report<'_> {
    /// Where a finding begins.
    fn start(&self, finding: &Finding) -> Place {
        self.files[finding.file].stream.place(finding.span.start)
    }

    /// Where it ends.
    fn end(&self, finding: &Finding) -> Place {
        self.files[finding.file].stream.place(finding.span.end)
    }

    /// Where a problem is; the beginning of the file where that is not known.
    fn place(&self, problem: &Problem) -> Place {
        match problem.at {
            Some((file, at)) => self.files[file].stream.place(at),
            None => Place { line: 1, column: 1 },
        }
    }
}

/// The report in a format.
pub fn render(report: &Report<'_>, format: Format, color: bool) -> String {
    match format {
        Format::Text => text::render(report, color),
        Format::Json => json::render(report),
        Format::Sarif => sarif::render(report),
        Format::Github => github::render(report),
    }
}
