//! Our own sidecar in a pod spec, with its flags, and the hooks that lead to it.

use std::collections::BTreeMap;
use std::time::Duration;

use regex::Regex;
use std::sync::LazyLock;

use crate::config::duration;
use crate::podspec::{Action, Container, Handler, Node};

/// The port where none is given.
const DEFAULT_PORT: i64 = 9903;

/// Our sidecar.
#[derive(Debug)]
pub struct Sidecar<'a> {
    /// Its container.
    pub container: Container<'a>,
    /// Its flags.
    pub flags: Flags<'a>,
}

/// Flags of `run` or `hook`, as words and environment.
#[derive(Debug)]
pub struct Flags<'a> {
    /// The words after `run` or `hook`, variables put in, each with where it is written. A word is left out where it
    /// names a variable whose value is not written here.
    words: Vec<(String, &'a Node)>,
    /// The environment variables whose values are written here.
    environment: BTreeMap<String, (String, &'a Node)>,
    /// Whether there are more variables: from a Secret, a field, or a whole ConfigMap.
    pub has_unknown: bool,
}

/// What a hook does for a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookKind {
    /// Calls our sidecar for the app.
    App,
    /// Calls our sidecar for itself.
    Own,
    /// Runs our binary.
    Client,
    /// Waits for that many seconds, whatever else it does.
    Sleep(i64),
    /// Something else.
    Other,
}

/// Where the secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// Nowhere.
    None,
    /// Written here.
    Literal(String),
    /// In a file or a Secret.
    Elsewhere,
}

impl<'a> Sidecar<'a> {
    /// The container, where it is our sidecar.
    pub fn of(container: Container<'a>) -> Option<Self> {
        let command = container.command();
        let words: Vec<&Node> = nodes(container.node, "command")
            .chain(nodes(container.node, "args"))
            .collect();
        let run = words.iter().position(|word| word.text() == Some("run"))?;
        let is_ours = container.name() == "gracekeeper"
            || image_name(container.image()) == "gracekeeper"
            || command.first().is_some_and(|word| is_binary(word));
        (is_ours && run <= 1).then(|| Self {
            container,
            flags: Flags::new(&container, &words[run + 1..]),
        })
    }

    /// The port it listens on.
    pub fn port(&self) -> i64 {
        let listen = self.flags.value("listen");
        listen
            .and_then(|listen| listen.rsplit(':').next()?.parse().ok())
            .unwrap_or(DEFAULT_PORT)
    }

    /// The secret.
    pub fn token(&self) -> Token {
        let file = self.flags.value("token-file").is_some();
        match self.container.env("GRACEKEEPER_TOKEN") {
            Some(entry) if entry.get("valueFrom").is_some() => Token::Elsewhere,
            Some(entry) => Token::Literal(entry.text_at("value").unwrap_or_default().to_owned()),
            None if file || self.container.node.get("envFrom").is_some() => Token::Elsewhere,
            None => Token::None,
        }
    }
}

impl<'a> Flags<'a> {
    /// The flags that these words and the container's environment are.
    pub fn new(container: &Container<'a>, words: &[&'a Node]) -> Self {
        let mut environment = BTreeMap::new();
        let mut has_unknown = container.node.get("envFrom").is_some();
        for entry in container.envs() {
            let Some(name) = entry.text_at("name") else {
                continue;
            };
            match entry.get("valueFrom") {
                Some(_) => has_unknown |= name.starts_with("GRACEKEEPER_"),
                None => {
                    let value = entry.text_at("value").unwrap_or_default().to_owned();
                    environment.insert(name.to_owned(), (value, entry));
                }
            }
        }
        let mut known = Vec::new();
        for &node in words {
            match expand(node.text().unwrap_or_default(), &environment) {
                Some(word) => known.push((word, node)),
                None => has_unknown = true,
            }
        }
        Self {
            words: known,
            environment,
            has_unknown,
        }
    }

    /// The value of a flag, from the words or the environment.
    pub fn value(&self, flag: &str) -> Option<&str> {
        self.all(flag).last().map(|&(value, _)| value)
    }

    /// All values of a flag, and where each is written.
    pub fn all(&self, flag: &str) -> Vec<(&str, &'a Node)> {
        let long = format!("--{flag}");
        let mut values = Vec::new();
        for (index, (word, node)) in self.words.iter().enumerate() {
            match word.strip_prefix(&long) {
                Some("") => {
                    let next = self.words.get(index + 1);
                    values.extend(next.map(|(value, node)| (value.as_str(), *node)));
                }
                Some(rest) => values.extend(rest.strip_prefix('=').map(|value| (value, *node))),
                None => {}
            }
        }
        let variable = format!("GRACEKEEPER_{}", flag.to_uppercase().replace('-', "_"));
        if values.is_empty()
            && let Some((value, node)) = self.environment.get(&variable)
        {
            values.extend((value.lines()).map(|line| (line.trim(), *node)));
        }
        values
    }

    /// A duration in seconds, or the default where none is written or it is wrong.
    pub fn seconds(&self, flag: &str, default: u64) -> f64 {
        self.value(flag)
            .and_then(|value| duration(value).ok())
            .unwrap_or(Duration::from_secs(default))
            .as_secs_f64()
    }

    /// The least wait, in seconds.
    pub fn min_wait(&self) -> f64 {
        self.seconds("min-wait", 5)
    }

    /// What is kept back for the app's own stop, in seconds.
    pub fn reserve(&self) -> f64 {
        self.seconds("reserve", 5)
    }

    /// The words, and where each is written.
    pub fn words(&self) -> &[(String, &'a Node)] {
        &self.words
    }

    /// The variables of the environment that are ours.
    pub fn environment(&self) -> impl Iterator<Item = (&String, &(String, &'a Node))> {
        self.environment
            .iter()
            .filter(|(name, _)| name.starts_with("GRACEKEEPER_"))
    }
}

/// What a preStop hook does for a drain.
pub fn hook_kind(hook: &Handler<'_>) -> HookKind {
    match hook.action() {
        Action::HttpGet {
            path: "/prestop" | "/prestop/" | "/prestop/app",
            ..
        } => HookKind::App,
        Action::HttpGet {
            path: "/prestop/self",
            ..
        } => HookKind::Own,
        Action::Sleep(seconds) => HookKind::Sleep(seconds),
        Action::Exec(words) if is_client(&words) => HookKind::Client,
        Action::Exec(words) => sleep_of(&words).map_or(HookKind::Other, HookKind::Sleep),
        _ => HookKind::Other,
    }
}

/// Whether the words are `.../gracekeeper hook ...`.
pub fn is_client(words: &[&str]) -> bool {
    words.first().is_some_and(|word| is_binary(word)) && words.get(1) == Some(&"hook")
}

/// The items of a list at a key.
pub fn nodes<'a>(node: &'a Node, key: &str) -> impl Iterator<Item = &'a Node> {
    node.get(key).into_iter().flat_map(Node::items)
}

/// How long a command sleeps, in seconds; none where it does not, or not for a number.
fn sleep_of(words: &[&str]) -> Option<i64> {
    static SLEEP: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"(?:^|[\s;&|/(])sleep\s+(\d{1,6})(?:\.\d+)?([smh]?)(?:$|[\s;&|)])").ok()
    });
    let script = words.join(" ");
    // In a loop the number says nothing.
    if ["while ", "until ", "for "]
        .iter()
        .any(|word| script.contains(word))
    {
        return None;
    }
    let found: Vec<i64> = SLEEP
        .as_ref()?
        .captures_iter(&script)
        .filter_map(|found| {
            let number: i64 = found.get(1)?.as_str().parse().ok()?;
            let unit = match found.get(2).map(|unit| unit.as_str()) {
                Some("m") => 60,
                Some("h") => 3600,
                _ => 1,
            };
            Some(number * unit)
        })
        .collect();
    (!found.is_empty()).then(|| found.iter().sum())
}

fn is_binary(word: &str) -> bool {
    word.rsplit('/').next() == Some("gracekeeper")
}

/// The last part of an image's name, without tag and digest.
pub fn image_name(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or_default();
    let last = name.rsplit('/').next().unwrap_or_default();
    last.split(':').next().unwrap_or_default()
}

/// A word with `$(NAME)` replaced, as the kubelet does it (k8s.io/kubernetes/third_party/forked/golang/expansion). None
/// where a variable's value is not known.
fn expand(word: &str, environment: &BTreeMap<String, (String, &Node)>) -> Option<String> {
    let mut result = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('$') {
        result += &rest[..at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = rest
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'))
        {
            result += &environment.get(name)?.0;
            rest = after;
        } else {
            result.push('$');
        }
    }
    Some(result + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeps_are_added_up() {
        for (words, seconds) in [
            (vec!["sleep", "5"], Some(5)),
            (
                vec!["/bin/sh", "-c", "sleep 15; nginx -s quit; sleep 1m"],
                Some(75),
            ),
            (vec!["/bin/sleep", "10"], Some(10)),
            (vec!["sh", "-c", "while ! x; do sleep 5; done"], None),
            (vec!["sh", "-c", "sleep $WAIT"], None),
            (vec!["sh", "-c", "asleep 5"], None),
        ] {
            assert_eq!(sleep_of(&words), seconds, "{words:?}");
        }
    }

    #[test]
    fn an_image_is_known_by_its_last_name() {
        for image in [
            "gracekeeper",
            "localhost:5000/x/gracekeeper:0.1.0",
            "r/gracekeeper@sha256:00",
        ] {
            assert_eq!(image_name(image), "gracekeeper");
        }
    }

    #[test]
    fn variables_are_put_in_as_the_kubelet_does() {
        let stream = crate::podspec::Stream::parse("x".to_owned());
        let node = &*stream.documents[0].root;
        let environment = BTreeMap::from([("A".to_owned(), ("1".to_owned(), node))]);
        let put_in = |word| expand(word, &environment);
        assert_eq!(put_in("a$(A)b").as_deref(), Some("a1b"));
        assert_eq!(put_in("a$$(A)$x").as_deref(), Some("a$(A)$x"));
        assert_eq!(put_in("$(B)"), None);
    }
}
