//! The settings of injection: their names and patterns, which the chart's policy has too, and their values by origin.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, OnceLock};

use regex::Regex;
use serde::Deserialize;

/// What the chart's policy is rendered from.
const TABLE: &str = include_str!("../../charts/gracekeeper/files/injection.json");

/// What the annotations of pods begin with.
pub const PREFIX: &str = "gracekeeper.dev/";

/// The names of all settings, and how each is written.
static SETTINGS: LazyLock<Table> = LazyLock::new(Table::read);

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its name: that of a flag, or one of injection's own.
    pub name: &'static str,
    /// Who may set it.
    pub place: Place,
    pattern: Arc<Pattern>,
    /// What to write instead of a wrong value.
    pub remedy: String,
}

/// How a value is written. Compiled when a value is compared: the table is read for the command line of every command, and
/// the sidecar, which compares none, would keep the regexes of all.
#[derive(Debug)]
struct Pattern {
    text: String,
    regex: OnceLock<Option<Regex>>,
}

impl Pattern {
    /// None where it cannot be compiled, which a test rules out.
    fn regex(&self) -> Option<&Regex> {
        self.regex
            .get_or_init(|| Regex::new(&self.text).ok())
            .as_ref()
    }
}

/// Who may set a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A pod's annotation; it becomes a flag of the sidecar or the hook.
    Flag,
    /// A pod's annotation; injection itself acts on it.
    Pod,
    /// The settings alone: a pod must not choose the image that runs beside it.
    Settings,
}

#[derive(Debug)]
struct Table {
    settings: Vec<Setting>,
    not_flags_of_the_hook: Vec<String>,
    other_sidecars: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    kinds: BTreeMap<String, Kind>,
    #[serde(borrow)]
    flags: Vec<Entry<'a>>,
    #[serde(borrow)]
    pod: Vec<Entry<'a>>,
    #[serde(borrow)]
    settings: Vec<Entry<'a>>,
    not_flags_of_the_hook: Vec<String>,
    other_sidecars: Vec<String>,
}

#[derive(Deserialize)]
struct Kind {
    pattern: String,
    write: String,
}

#[derive(Deserialize)]
struct Entry<'a> {
    name: &'a str,
    kind: &'a str,
}

impl Table {
    /// A test reads it too, so that a mistake in the file is found before the program is built.
    fn read() -> Self {
        let empty = Self {
            settings: Vec::new(),
            not_flags_of_the_hook: Vec::new(),
            other_sidecars: Vec::new(),
        };
        let Ok(file) = serde_json::from_str::<File<'static>>(TABLE) else {
            return empty;
        };
        let mut settings = Vec::new();
        let lists = [
            (Place::Flag, file.flags),
            (Place::Pod, file.pod),
            (Place::Settings, file.settings),
        ];
        // A pattern stands for several settings.
        let patterns: BTreeMap<_, _> = (file.kinds.iter())
            .map(|(name, kind)| {
                let pattern = Pattern {
                    text: kind.pattern.clone(),
                    regex: OnceLock::new(),
                };
                (name.as_str(), Arc::new(pattern))
            })
            .collect();
        for (place, entries) in lists {
            for entry in entries {
                let (Some(kind), Some(pattern)) =
                    (file.kinds.get(entry.kind), patterns.get(entry.kind))
                else {
                    return empty;
                };
                settings.push(Setting {
                    name: entry.name,
                    place,
                    pattern: pattern.clone(),
                    remedy: kind.write.clone(),
                });
            }
        }
        Self {
            settings,
            not_flags_of_the_hook: file.not_flags_of_the_hook,
            other_sidecars: file.other_sidecars,
        }
    }
}

impl Setting {
    /// All of them: flags first, in the order in which a container gets them.
    pub fn all() -> &'static [Setting] {
        &SETTINGS.settings
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<&'static Setting> {
        Self::all().iter().find(|setting| setting.name == name)
    }

    /// Whether a value may be one, as far as its form tells.
    pub fn takes(&self, value: &str) -> bool {
        self.pattern.regex().is_some_and(|it| it.is_match(value))
    }

    /// Whether a pod's annotation may set it.
    pub fn is_of_pods(&self) -> bool {
        self.place != Place::Settings
    }
}

/// Whether mode `hook` has no use for a setting.
pub fn is_not_of_the_hook(name: &str) -> bool {
    SETTINGS.not_flags_of_the_hook.iter().any(|it| it == name)
}

/// Whether a container of this name is a known sidecar, which is not the app.
pub fn is_other_sidecar(name: &str) -> bool {
    SETTINGS.other_sidecars.iter().any(|it| it == name)
}

/// Values of settings: the ones that were given, over the built-in ones.
#[derive(Debug, Clone, Default)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    /// What is used where nothing is given. They are the chart's defaults.
    pub fn built_in() -> Self {
        let mut settings = Self::default();
        let image = concat!("localhost/gracekeeper:", env!("CARGO_PKG_VERSION"));
        for (name, value) in [
            ("image", image),
            ("pull-policy", "IfNotPresent"),
            ("mode", "sidecar"),
            ("seccomp-profile", "RuntimeDefault"),
            ("requests-cpu", "5m"),
            ("requests-memory", "8Mi"),
            ("limits-cpu", "100m"),
            ("limits-memory", "32Mi"),
        ] {
            settings.set(name, value);
        }
        settings
    }

    /// Sets one, whatever it was before. An empty value unsets it.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// Its value; empty where it is unset.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Several names with commas or line ends between them.
    pub fn list(&self, name: &str) -> Vec<String> {
        let words = self.get(name).split([',', '\n']).map(str::trim);
        words
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_whole() {
        let file: File<'_> = serde_json::from_str(TABLE).unwrap();
        let entries = file.flags.len() + file.pod.len() + file.settings.len();
        assert_eq!(Setting::all().len(), entries);
        assert!(entries > 30);
        for setting in Setting::all() {
            assert!(setting.pattern.regex().is_some(), "{}", setting.name);
        }
        for name in &SETTINGS.not_flags_of_the_hook {
            assert!(Setting::named(name).is_some(), "{name}");
        }
    }

    #[test]
    fn the_built_in_values_have_the_form_that_they_must_have() {
        for (name, value) in Settings::built_in().0 {
            assert!(
                Setting::named(&name).unwrap().takes(&value),
                "{name}={value}"
            );
        }
    }

    #[test]
    fn what_cannot_be_right_is_not_taken() {
        for (name, right, wrong) in [
            (
                "min-wait",
                &["5s", "1m30s", "250ms"][..],
                &["5", "", "soon", "-1s", "5s "][..],
            ),
            (
                "app-port",
                &["8000", "8000, 8001", "80\n81\n", "auto"],
                &["0", "65536", "http", ""],
            ),
            (
                "port",
                &["1024", "65535", "9903"],
                &["80", "1023", "65536", "x"],
            ),
            (
                "readiness",
                &["now", "never", "after=10s"],
                &["later", "after=", "after=5"],
            ),
            (
                "notify",
                &["http://a/b", "unix:///s:/p\nhttps://b:1"],
                &["a/b", "ftp://x", ""],
            ),
            (
                "inflight",
                &["fastapi://127.0.0.1:8000", "tcp://:1\ntcp://:2"],
                &["127.0.0.1", ""],
            ),
            ("drain-file", &["/run/x"], &["run/x", ""]),
            ("max-inflight", &["0", "1.5"], &["-1", "many"]),
        ] {
            let setting = Setting::named(name).unwrap();
            for value in right {
                assert!(setting.takes(value), "{name}={value:?}");
            }
            for value in wrong {
                assert!(!setting.takes(value), "{name}={value:?}");
            }
        }
    }
}
