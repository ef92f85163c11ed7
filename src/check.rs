//! `gracekeeper check`: reads manifests, or what a cluster has, and says what would go wrong at termination.
//!
//! `input` reads, `manifests` puts objects in relation, the `rules` find, `ignore` leaves out what is not to be
//! said, `fix` changes files and `output` prints. A rule never prints, and a printer knows no rule.

mod cluster;
mod explain;
mod fix;
mod ignore;
mod input;
mod manifests;
mod output;
mod rule;
mod rules;
mod sidecar;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use crate::config::ConfigErrors;
use input::Problem;
use manifests::{File, Manifests};
use output::{Format, Report};
use rule::{Finding, Severity};

/// Flags of `check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files or folders with manifests; - is standard input
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// How to print: text, json, sarif or github
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: String,

    /// From which severity on findings make the exit status 1: error, warning or hint
    #[arg(long, value_name = "SEVERITY", default_value = "error")]
    fail_on: String,

    /// A rule not to apply, such as GK007. Repeatable
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    ignore: Vec<String>,

    /// Writes the remedies that are safe into the files, and prints the rest
    #[arg(long)]
    fix: bool,

    /// Explains a rule, such as GK007, or all of them
    #[arg(long, value_name = "ID", conflicts_with_all = ["paths", "cluster"])]
    explain: Option<String>,

    /// Checks what runs in the cluster of your kubeconfig; it is only asked for lists
    #[arg(long)]
    cluster: bool,

    /// The namespace in that cluster; the kubeconfig's own unless given
    #[arg(long, short, value_name = "NAMESPACE", requires = "cluster")]
    namespace: Option<String>,

    /// All namespaces of that cluster
    #[arg(long, short = 'A', requires = "cluster", conflicts_with = "namespace")]
    all_namespaces: bool,

    /// Colours: auto, always or never
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: String,
}

/// What to do, checked.
#[derive(Debug)]
pub struct Settings {
    task: Task,
    format: Format,
    fail_on: Severity,
    ignore: Vec<String>,
    fix: bool,
    color: bool,
}

#[derive(Debug)]
enum Task {
    Explain(String),
    Files(Vec<PathBuf>),
    Cluster(cluster::Scope),
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing at or above `--fail-on`, and every file could be read.
    Clean,
    /// Something was found, or could not be read.
    Findings,
}

impl Args {
    /// Checks the flags.
    pub fn validate(self, errors: &mut ConfigErrors) -> Option<Settings> {
        let format = errors.check("format", &self.format, self.format.parse());
        let fail_on = errors.check("fail-on", &self.fail_on, self.fail_on.parse());
        let unknown = |id: &str| {
            rules::by_id(id)
                .map(|rule| rule.id.to_owned())
                .ok_or("there is no such rule; gracekeeper check --explain all lists them")
        };
        let ignore = (self.ignore.iter())
            .filter_map(|id| errors.check("ignore", id, unknown(id)))
            .collect();
        let color = match self.color.as_str() {
            "auto" => io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            "always" => true,
            "never" => false,
            other => {
                errors.add("color", other, "write auto, always or never");
                false
            }
        };
        let task = match self.explain {
            Some(id) if id == "all" => Task::Explain(id),
            Some(id) => Task::Explain(errors.check("explain", &id, unknown(&id))?),
            None if self.cluster => Task::Cluster(cluster::Scope {
                namespace: self.namespace,
                all: self.all_namespaces,
            }),
            None => Task::Files(self.paths.clone()),
        };
        match &task {
            Task::Files(paths) if paths.is_empty() => errors.say(
                "there is nothing to check; write a file or a folder, - for standard input, or --cluster",
            ),
            Task::Files(paths) if self.fix && paths.iter().any(|path| path.as_os_str() == "-") => {
                errors.say("--fix changes files, and standard input is none; write the file's name");
            }
            Task::Cluster(_) if self.fix => errors.say(
                "--fix changes files and never a cluster; check the files that it is made from",
            ),
            Task::Cluster(_) if !self.paths.is_empty() => {
                errors.say("--cluster and files are checked one at a time; leave out one of them");
            }
            _ => {}
        }
        Some(Settings {
            task,
            format: format?,
            fail_on: fail_on?,
            ignore,
            fix: self.fix,
            color,
        })
    }
}

/// Checks and prints.
///
/// # Errors
/// When the cluster cannot be asked, or nothing can be printed.
pub async fn run(settings: Settings) -> anyhow::Result<Outcome> {
    let (mut files, problems) = match &settings.task {
        Task::Explain(id) => {
            write(&explain::text(id))?;
            return Ok(Outcome::Clean);
        }
        Task::Files(paths) => input::read(paths),
        Task::Cluster(scope) => cluster::read(scope).await?,
    };
    let mut findings = find(&files, &settings.ignore);
    let mut fixed = Vec::new();
    if settings.fix {
        (fixed, findings) = fix::apply(&mut files, findings, &settings.ignore)?;
    }
    let report = Report {
        files: &files,
        findings: &findings,
        problems: &problems,
        fixed: &fixed,
    };
    write(&output::render(&report, settings.format, settings.color))?;
    let fails = findings
        .iter()
        .any(|finding| finding.severity >= settings.fail_on);
    Ok(match fails || problems.iter().any(Problem::fails) {
        true => Outcome::Findings,
        false => Outcome::Clean,
    })
}

/// Everything that the rules find and nothing says to ignore, in the order of the files.
fn find(files: &[File], ignored: &[String]) -> Vec<Finding> {
    let manifests = Manifests::of(files);
    let mut findings: Vec<Finding> = (rules::all().into_iter())
        .filter(|rule| !ignored.iter().any(|id| id == rule.id))
        .flat_map(|rule| rule.findings(&manifests))
        .collect();
    ignore::leave_out(files, &mut findings);
    findings.sort_by_key(|finding| (finding.file, finding.span.start, finding.rule.id));
    findings
}

/// Checks text and renders the findings in every format: for the fuzz target, which looks for panics alone.
#[doc(hidden)]
pub fn check_text(text: &str) -> usize {
    let (files, problems) = input::from_text("fuzz", text.to_owned());
    let findings = find(&files, &[]);
    let report = Report {
        files: &files,
        findings: &findings,
        problems: &problems,
        fixed: &[],
    };
    for format in Format::ALL {
        output::render(&report, format, true);
    }
    let changed = fix::changed(&files, &findings);
    findings.len() + changed.len()
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        // Whatever reads it has seen enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
