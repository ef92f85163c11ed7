//! What a rule is, and what it finds.

use std::fmt;
use std::ops::Range;

use crate::podspec::edit::Edit;

use super::manifests::{Manifests, PodFacts, Source};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Could be better.
    Hint,
    /// Requests are lost under some load or at some moment.
    Warning,
    /// It cannot work as written.
    Error,
}

/// A rule. Its texts are the page `docs/rules.md` and `gracekeeper check --explain`.
#[derive(Debug)]
pub struct Rule {
    /// `GK` and three digits.
    pub id: &'static str,
    /// The worst that its findings are.
    pub severity: Severity,
    /// What is wrong, in one sentence.
    pub summary: &'static str,
    /// Why, with the source of what Kubernetes does.
    pub why: &'static str,
    /// What to write, as YAML.
    pub remedy: &'static str,
    /// Finds it.
    pub find: Find,
}

/// How a rule looks.
#[derive(Debug, Clone, Copy)]
pub enum Find {
    /// At one pod spec after the other.
    Pod(fn(&PodFacts<'_>, &mut Findings)),
    /// At all objects together.
    All(fn(&Manifests<'_>, &mut Findings)),
}

/// Something found.
#[derive(Debug)]
pub struct Finding {
    /// By which rule.
    pub rule: &'static Rule,
    /// How bad it is here.
    pub severity: Severity,
    /// The index of the file.
    pub file: usize,
    /// The bytes to underline.
    pub span: Range<usize>,
    /// The object, such as `Deployment shop/web`.
    pub object: String,
    /// What the object's or the pod's annotation says to ignore.
    pub ignored: Vec<String>,
    /// What is wrong, with the values.
    pub message: String,
    /// What to write.
    pub remedy: String,
    /// The remedy as edits, where it is safe to make them without a look.
    pub fix: Vec<Edit>,
}

/// What the rule at work has found.
#[derive(Debug)]
pub struct Findings {
    rule: &'static Rule,
    found: Vec<Finding>,
}

impl Rule {
    /// Everything it finds.
    pub fn findings(&'static self, manifests: &Manifests<'_>) -> Vec<Finding> {
        let mut findings = Findings {
            rule: self,
            found: Vec::new(),
        };
        match self.find {
            Find::All(find) => find(manifests, &mut findings),
            Find::Pod(find) => manifests
                .pods
                .iter()
                .for_each(|pod| find(pod, &mut findings)),
        }
        findings.found
    }
}

impl Findings {
    /// Notes a finding at these bytes; its remedy is the rule's until another is given.
    pub fn add(
        &mut self,
        source: &Source<'_>,
        span: &Range<usize>,
        message: impl Into<String>,
    ) -> &mut Finding {
        let index = self.found.len();
        self.found.push(Finding {
            rule: self.rule,
            severity: self.rule.severity,
            file: source.file,
            span: span.clone(),
            object: source.object.title(),
            ignored: source.ignored(),
            message: message.into(),
            remedy: self.rule.remedy.to_owned(),
            fix: Vec::new(),
        });
        &mut self.found[index]
    }
}

impl Finding {
    /// What to write, with this object's values.
    pub fn remedy(&mut self, remedy: impl Into<String>) -> &mut Self {
        self.remedy = remedy.into();
        self
    }

    /// Less bad here than the rule's findings usually are.
    pub fn severity(&mut self, severity: Severity) -> &mut Self {
        self.severity = severity;
        self
    }

    /// An edit that is safe.
    pub fn fix(&mut self, edit: Option<Edit>) -> &mut Self {
        self.fix.extend(edit);
        self
    }
}

impl Severity {
    /// As written in JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Hint => "hint",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Severity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Severity::Hint, Severity::Warning, Severity::Error]
            .into_iter()
            .find(|severity| severity.name() == text)
            .ok_or_else(|| "write error, warning or hint".to_owned())
    }
}
