//! `inject`: adds the sidecar, or the hook alone, to manifests, as the chart's policy does in a cluster.
//!
//! It is a filter, and so a post-renderer of Helm; of a `ResourceList` it makes one again, and so it is a KRM function.

mod kept;
mod plan;
mod removal;
mod settings;
mod text;
mod warnings;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Arg, ArgMatches};

use crate::config::ConfigErrors;
use crate::podspec::{Node, Object, Pod, Stream};
pub use plan::Namespace;
use settings::{Setting, Settings};

/// Standard input.
const STDIN: &str = "-";

/// Flags of `inject`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Manifests, or folders with files that end in .yaml, .yml or .json; - is standard input
    #[arg(value_name = "FILE", default_value = STDIN)]
    pub files: Vec<PathBuf>,

    /// Take out again what was injected
    #[arg(long)]
    pub uninject: bool,

    /// Write the files themselves, and nothing to standard output
    #[arg(long)]
    pub in_place: bool,

    /// A ConfigMap with settings, such as a namespace's own; flags win over it
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,

    /// The namespace of objects that name none
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub namespace: String,

    /// One flag for each setting.
    #[command(flatten)]
    pub given: Given,
}

/// The settings that flags gave.
#[derive(Debug, Default)]
pub struct Given(BTreeMap<String, String>);

/// Each setting is a flag.
impl clap::Args for Given {
    fn augment_args(command: clap::Command) -> clap::Command {
        let command = command.next_help_heading("Settings");
        Setting::all().iter().fold(command, |command, setting| {
            let help = format!(
                "{}{}",
                setting.remedy[..1].to_uppercase(),
                &setting.remedy[1..]
            );
            let arg = Arg::new(setting.name).long(setting.name);
            command.arg(arg.value_name("VALUE").help(help).hide_env_values(true))
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Self::default();
        given.update_from_arg_matches(matches)?;
        Ok(given)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in Setting::all() {
            if let Some(value) = matches.get_one::<String>(setting.name) {
                self.0.insert(setting.name.to_owned(), value.clone());
            }
        }
        Ok(())
    }
}

/// What to do, checked.
#[derive(Debug)]
pub struct Injection {
    files: Vec<PathBuf>,
    uninject: bool,
    in_place: bool,
    settings: Settings,
    namespace: String,
}

impl Args {
    /// Checks the flags, and reads the settings.
    pub fn validate(self, errors: &mut ConfigErrors) -> Injection {
        let mut settings = Settings::built_in();
        if let Some(path) = &self.settings {
            let read = std::fs::read_to_string(path).map_err(|e| e.to_string());
            let read = read.and_then(|text| of_config_map(&Stream::parse(text)).ok_or_else(|| {
                "it has no ConfigMap with data; write the settings under data, such as min-wait: 10s".to_owned()
            }));
            let data = errors.check("settings", &path.to_string_lossy(), read);
            take("settings", &data.unwrap_or_default(), &mut settings, errors);
        }
        for (name, value) in &self.given.0 {
            match Setting::named(name) {
                Some(setting) if !setting.takes(value) => errors.add(name, value, &setting.remedy),
                _ => settings.set(name, value),
            }
        }
        if self.in_place && self.files.iter().any(|path| path.as_os_str() == STDIN) {
            errors
                .say("--in-place needs files; name them, or leave it out and read standard output");
        }
        Injection {
            files: self.files,
            uninject: self.uninject,
            in_place: self.in_place,
            settings,
            namespace: self.namespace,
        }
    }
}

/// The data of the first ConfigMap.
fn of_config_map(stream: &Stream) -> Option<BTreeMap<String, String>> {
    let objects = stream
        .documents
        .iter()
        .flat_map(|document| Object::all(&document.root));
    objects
        .filter(|object| object.kind == "ConfigMap")
        .find_map(|object| data_of(object.node))
}

fn data_of(config_map: &Node) -> Option<BTreeMap<String, String>> {
    let entries = config_map.get("data")?.entries();
    Some(
        entries
            .filter_map(|entry| {
                let value = entry.value.text().unwrap_or_default();
                Some((entry.key.text()?.to_owned(), value.to_owned()))
            })
            .collect(),
    )
}

/// Takes what a ConfigMap says; `origin` is the flag that named it.
fn take(
    origin: &str,
    data: &BTreeMap<String, String>,
    settings: &mut Settings,
    errors: &mut ConfigErrors,
) {
    for (name, value) in data {
        match Setting::named(name) {
            Some(setting) if setting.takes(value) => settings.set(name, value),
            Some(setting) => errors.add(origin, &format!("{name}: {value}"), &setting.remedy),
            None => {
                let names: Vec<_> = Setting::all().iter().map(|it| it.name).collect();
                errors.add(
                    origin,
                    name,
                    format!("there is no such setting; there are {}", names.join(", ")),
                );
            }
        }
    }
}

/// Text in, text out.
#[derive(Debug, Default)]
pub struct Output {
    /// The manifests.
    pub text: String,
    /// Warnings, each with the object's name.
    pub warnings: Vec<String>,
    /// What could not be injected, each with its place.
    pub errors: Vec<String>,
}

/// Injects into all that was named. Returns what belongs on standard output, and warnings.
///
/// # Errors
/// When a file cannot be read or written, or a manifest cannot be understood.
pub fn run(injection: &Injection) -> anyhow::Result<Output> {
    let mut files = Vec::new();
    for path in &injection.files {
        collect(path, &mut files)?;
    }
    let namespaces: Namespaces = files
        .iter()
        .flat_map(|(_, text)| Namespaces::of(text).0)
        .collect();
    let mut all = Output::default();
    for (path, text) in &files {
        let Output {
            text: changed,
            warnings,
            errors,
        } = injection.file(&path.to_string_lossy(), text, &namespaces);
        all.warnings.extend(warnings);
        all.errors.extend(errors);
        match injection.in_place {
            true if changed == *text => {}
            true => std::fs::write(path, changed).with_context(|| path.display().to_string())?,
            false => append(&mut all.text, &changed),
        }
    }
    if !all.errors.is_empty() {
        bail!("{}", all.errors.join("\n"));
    }
    Ok(all)
}

/// A file's text, or those of a folder in order of their names.
fn collect(path: &Path, into: &mut Vec<(PathBuf, String)>) -> anyhow::Result<()> {
    if path.as_os_str() == STDIN {
        let mut text = String::new();
        io::stdin()
            .read_to_string(&mut text)
            .context("standard input")?;
        into.push((path.to_owned(), text));
    } else if path.is_dir() {
        let entries = std::fs::read_dir(path).with_context(|| path.display().to_string())?;
        let mut paths = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        for path in paths {
            let is_manifest = (path.extension())
                .is_some_and(|it| ["yaml", "yml", "json"].iter().any(|end| it == *end));
            if is_manifest || path.is_dir() {
                collect(&path, into)?;
            }
        }
    } else {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        into.push((path.to_owned(), text));
    }
    Ok(())
}

/// Another file after what is there.
fn append(all: &mut String, text: &str) {
    if !all.is_empty() {
        if !all.ends_with('\n') {
            all.push('\n');
        }
        if !text.starts_with("---") {
            all.push_str("---\n");
        }
    }
    all.push_str(text);
}

/// What the manifests themselves say of their namespaces.
#[derive(Debug, Default)]
struct Namespaces(BTreeMap<String, Namespace>);

impl FromIterator<(String, Namespace)> for Namespaces {
    fn from_iter<T: IntoIterator<Item = (String, Namespace)>>(iter: T) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl Namespaces {
    fn of(text: &str) -> Self {
        if !text.contains("Namespace") {
            return Self::default();
        }
        let stream = Stream::parse(text.to_owned());
        let objects = stream
            .documents
            .iter()
            .flat_map(|document| Object::all(&document.root));
        (objects.filter(|object| object.kind == "Namespace"))
            .filter_map(|object| {
                let name = object.name()?.to_owned();
                let label = |key| {
                    object
                        .node
                        .at(&["metadata", "labels", key])
                        .and_then(Node::text)
                };
                let linkerd = object.annotation("linkerd.io/inject").and_then(Node::text);
                let namespace = Namespace {
                    name: name.clone(),
                    istio: label("istio.io/rev").is_some()
                        || label("istio-injection") == Some("enabled"),
                    linkerd: linkerd.is_some_and(|value| ["enabled", "ingress"].contains(&value)),
                };
                Some((name, namespace))
            })
            .collect()
    }

    fn named(&self, name: &str) -> Namespace {
        let unknown = || Namespace {
            name: name.to_owned(),
            ..Namespace::default()
        };
        self.0.get(name).cloned().unwrap_or_else(unknown)
    }
}

impl Injection {
    /// One file's text with its pods injected.
    fn file(&self, name: &str, text: &str, namespaces: &Namespaces) -> Output {
        let mut output = Output::default();
        let mut line = 0;
        for document in text::documents(text) {
            let place = |at: &str| format!("{name}:{at}");
            self.document(document, namespaces, &mut output, &|in_document| {
                place(&(line + in_document).to_string())
            });
            line += document.matches('\n').count();
        }
        output
    }

    fn document(
        &self,
        text: &str,
        namespaces: &Namespaces,
        output: &mut Output,
        place: &dyn Fn(usize) -> String,
    ) {
        // Most documents have no pods.
        if !text.contains("containers") {
            output.text += text;
            return;
        }
        let stream = Stream::parse(text.to_owned());
        for error in &stream.errors {
            let line = stream.place(error.at).line;
            output
                .errors
                .push(format!("{}: {}", place(line), error.message));
        }
        let settings = self.settings_for(&stream, output);
        let objects = stream
            .documents
            .iter()
            .flat_map(|document| Object::all(&document.root));
        let pods: Vec<Pod<'_>> = objects.flat_map(Pod::all).collect();
        let has_aliases = stream.documents.iter().any(|document| document.has_aliases);
        let mut changed = text.to_owned();
        for (number, pod) in pods.iter().enumerate() {
            let title = pod.object.title();
            let next = match self.uninject {
                true => Some(removal::removed(&changed, number)),
                false => {
                    let name = pod.object.namespace().unwrap_or(&self.namespace);
                    let plan = plan::plan(pod, &namespaces.named(name), &settings);
                    let warnings = plan.warnings.iter();
                    output
                        .warnings
                        .extend(warnings.map(|warning| format!("{title}: {warning}")));
                    let mut changes = plan.changes.iter();
                    changes.try_fold(changed.clone(), |text, change| {
                        text::changed(&text, number, change)
                    })
                }
            };
            match next {
                Some(next) if next == changed => {}
                // An edit of what is written once and used twice would change both.
                Some(_) if has_aliases => output.errors.push(format!(
                    "{}: {title} is in a document with YAML aliases, where one change would be several; write them out",
                    place(stream.place(pod.spec.span.start).line)
                )),
                Some(next) => changed = next,
                None => output.errors.push(format!(
                    "{}: {title} has no place for what is injected: a mapping or a list is something else",
                    place(stream.place(pod.spec.span.start).line)
                )),
            }
        }
        // Nothing is lost on the way in, and nothing comes on the way out.
        let sound = match self.uninject {
            _ if changed == text => true,
            false => kept::keeps(&changed, &stream),
            true => kept::keeps(text, &Stream::parse(changed.clone())),
        };
        if !sound {
            output.errors.push(format!(
                "{}: it is written in a way in which nothing can be changed in it; write mappings and lists in blocks, one entry a line",
                place(1)
            ));
        }
        output.text += &changed;
    }

    /// The settings, and over them those of a KRM function's configuration.
    fn settings_for(&self, stream: &Stream, output: &mut Output) -> Settings {
        let mut settings = self.settings.clone();
        let roots = stream.documents.iter().map(|document| &document.root);
        for root in roots.filter(|root| root.text_at("kind") == Some("ResourceList")) {
            let Some(data) = root.get("functionConfig").and_then(data_of) else {
                continue;
            };
            let mut errors = ConfigErrors::default();
            take("functionConfig", &data, &mut settings, &mut errors);
            if let Err(told) = errors.finish(Some(())) {
                output.errors.push(told);
            }
        }
        settings
    }
}

/// Injects into a text, or takes out again what was injected, with these settings: for the fuzz target.
///
/// # Errors
/// When a manifest cannot be understood, or has no place for what is injected.
#[doc(hidden)]
pub fn inject_text(text: &str, given: &[(&str, &str)], uninject: bool) -> Result<String, String> {
    let mut settings = Settings::built_in();
    for (name, value) in given {
        settings.set(name, value);
    }
    let injection = Injection {
        files: Vec::new(),
        uninject,
        in_place: false,
        settings,
        namespace: "default".to_owned(),
    };
    let output = injection.file("fuzz", text, &Namespaces::of(text));
    match output.errors.is_empty() {
        true => Ok(output.text),
        false => Err(output.errors.join("\n")),
    }
}

/// The warnings as they are printed, a line each.
pub fn lines(warnings: &[String]) -> String {
    warnings.iter().fold(String::new(), |mut all, warning| {
        let _ = writeln!(all, "warning: {warning}");
        all
    })
}
