//! `--on-mistake`: what a wrong flag or variable does. With `defaults` it is left out, until the rest can be used.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Command, Failure, Invocation, attempt};
use crate::config::{ConfigErrors, Files, Mistake, duration};

/// The flag, and its variable.
const FLAG: &str = "on-mistake";
const VARIABLE: &str = "GRACEKEEPER_ON_MISTAKE";
const DEFAULTS: &str = "defaults";

/// How often something is left out before all is: more than there are flags.
const MOST: usize = 64;

/// The flag for mistakes.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Mistakes")]
pub struct Args {
    /// What a wrong flag or a port that is taken does: fail (exit status 64 or 1), or defaults: the default is used, the
    /// sidecar stays, and the log, the status, a metric and an Event say so
    #[arg(long, value_name = "POLICY", default_value = "fail")]
    on_mistake: String,
}

impl Args {
    /// Whether the sidecar has to stay whatever is wrong.
    pub fn validate(&self, errors: &mut ConfigErrors) -> bool {
        let parsed = match self.on_mistake.as_str() {
            "fail" => Ok(false),
            DEFAULTS => Ok(true),
            _ => Err("write fail or defaults"),
        };
        errors
            .check(FLAG, &self.on_mistake, parsed)
            .unwrap_or_default()
    }
}

/// Whether the words or the environment ask for defaults. They cannot be parsed for it, being wrong.
pub fn take_defaults(words: &[String], environment: &BTreeMap<String, String>) -> bool {
    value_of(FLAG, words, environment).as_deref() == Some(DEFAULTS)
        && words
            .get(1)
            .is_some_and(|word| word == "run" || word == "hook")
}

/// The flag's name in what the parser says of it, such as `--min-wait <DURATION>`.
pub fn name_of(flag: &str) -> &str {
    let name = flag.split_whitespace().next().unwrap_or_default();
    name.trim_start_matches('-')
}

/// Parses again and again, each time without what was wrong.
///
/// # Errors
/// Where not even the defaults can be used.
pub fn with_defaults(
    files: Files,
    words: &[String],
    environment: &BTreeMap<String, String>,
    mut found: Vec<Mistake>,
) -> Result<Invocation, Failure> {
    let mut left = Left {
        words: words.to_vec(),
        environment: environment.clone(),
    };
    let mut told: Vec<String> = Vec::new();
    for round in 0..=MOST {
        let mut progress = false;
        for mistake in &found {
            if !told.contains(&mistake.message) {
                told.push(mistake.message.clone());
            }
            progress |= left.leave_out(mistake);
        }
        if !progress || round == MOST - 1 {
            left.leave_out_all();
        }
        match attempt(files, &left.words, &left.environment) {
            Ok(invocation) => return Ok(with_mistakes(invocation, told)),
            Err(Failure::Mistakes(next)) => found = next,
            Err(help) => return Err(help),
        }
    }
    Err(Failure::Mistakes(found))
}

fn with_mistakes(mut invocation: Invocation, mistakes: Vec<String>) -> Invocation {
    if let Command::Run(settings) | Command::Hook(settings) = &mut invocation.command {
        settings.mistakes = mistakes;
    }
    invocation
}

/// The value of a flag, which wins, or of its variable.
fn value_of(
    flag: &str,
    words: &[String],
    environment: &BTreeMap<String, String>,
) -> Option<String> {
    let long = format!("--{flag}");
    let given = words.iter().enumerate().find_map(|(at, word)| {
        let rest = word.strip_prefix(&long)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value.to_owned()),
            None if rest.is_empty() => words.get(at + 1).cloned(),
            None => None,
        }
    });
    given.or_else(|| environment.get(&variable(flag)).cloned())
}

fn variable(flag: &str) -> String {
    format!("GRACEKEEPER_{}", flag.to_uppercase().replace('-', "_"))
}

/// What has not been left out.
struct Left {
    words: Vec<String>,
    environment: BTreeMap<String, String>,
}

impl Left {
    /// Leaves out what is wrong; whether anything is different now.
    fn leave_out(&mut self, mistake: &Mistake) -> bool {
        let Some(origin) = mistake.origin.as_deref() else {
            return false;
        };
        let value = mistake.value.as_deref();
        // RUST_LOG and the token are in no flag.
        let mut changed = self.environment.remove(origin).is_some();
        changed |= self.leave_out_words(origin, value) || self.leave_out_words(origin, None);
        changed |= self.leave_out_variable(origin, value);
        match origin {
            // The default may be too much as well.
            "reserve" => self.halve_reserve(),
            "app-port" if !changed => self.add("--app-port=auto"),
            // The default of one is too little for the other.
            "max-quiet" if !changed => {
                self.leave_out_words("quiet-period", None)
                    || self.leave_out_variable("quiet-period", None)
            }
            _ => changed,
        }
    }

    /// Leaves out a flag's words, or those with that value alone.
    fn leave_out_words(&mut self, flag: &str, value: Option<&str>) -> bool {
        let long = format!("--{flag}");
        let before = self.words.len();
        let mut at = 0;
        while let Some(word) = self.words.get(at) {
            let inline = word
                .strip_prefix(&long)
                .and_then(|rest| rest.strip_prefix('='));
            let next = self
                .words
                .get(at + 1)
                .filter(|next| *word == long && !next.starts_with("--"));
            let is_it = inline.is_some() || *word == long;
            let given = inline.or(next.map(String::as_str));
            if is_it && (value.is_none() || given == value) {
                let end = at + 1 + usize::from(next.is_some());
                self.words.drain(at..end);
            } else {
                at += 1;
            }
        }
        self.words.len() < before
    }

    /// Leaves out the lines with that value, or where there is none, the variable.
    fn leave_out_variable(&mut self, flag: &str, value: Option<&str>) -> bool {
        let name = variable(flag);
        if name == VARIABLE {
            return false;
        }
        let Some(text) = self.environment.remove(&name) else {
            return false;
        };
        let others: Vec<_> = text
            .lines()
            .filter(|line| Some(line.trim()) != value)
            .collect();
        if value.is_some() && !others.is_empty() && others.len() < text.lines().count() {
            self.environment.insert(name, others.join("\n"));
        }
        true
    }

    /// Half of the grace period is kept back at most.
    fn halve_reserve(&mut self) -> bool {
        let grace = value_of("grace-period", &self.words, &self.environment);
        let grace = grace
            .and_then(|text| duration(&text).ok())
            .unwrap_or(Duration::from_secs(30));
        self.leave_out_words("reserve", None);
        self.environment.remove(&variable("reserve"));
        self.add(&format!("--reserve={}ms", grace.as_millis() / 2))
    }

    /// All but which command it is, where it listens, and its token.
    fn leave_out_all(&mut self) {
        self.words.truncate(2);
        let kept = [VARIABLE, "GRACEKEEPER_TOKEN", "GRACEKEEPER_LISTEN"];
        self.environment
            .retain(|name, _| !name.starts_with("GRACEKEEPER_") || kept.contains(&name.as_str()));
        self.add(&format!("--{FLAG}={DEFAULTS}"));
        self.add("--app-port=auto");
    }

    fn add(&mut self, word: &str) -> bool {
        let is_new = !self.words.iter().any(|it| it == word);
        if is_new {
            self.words.push(word.to_owned());
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, NoInvocation};
    use crate::run;

    fn settings(words: &[&str], environment: &[(&str, &str)]) -> run::Settings {
        let words: Vec<String> = (["gracekeeper", "run", "--on-mistake=defaults"]
            .iter()
            .chain(words))
        .map(|&word| word.to_owned())
        .collect();
        let environment = (environment.iter())
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        match cli::parse(&words, &environment).unwrap().command {
            Command::Run(settings) => *settings,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_wrong_is_left_out_and_the_rest_is_used() {
        let run = settings(
            &[
                "--app-port=8000",
                "--app-port=http",
                "--min-wait=soon",
                "--max-quiet=20s",
                "--colour",
                "blue",
            ],
            &[
                ("GRACEKEEPER_TIMEOUT", "x"),
                ("GRACEKEEPER_NOTIFY", "here\nhttp://127.0.0.1:1/drain"),
            ],
        );
        assert_eq!(run.inflight.ports, [8000].into());
        assert_eq!(run.drain.min_wait, Duration::from_secs(5));
        assert_eq!(run.drain.max_quiet, Duration::from_secs(20));
        assert_eq!(run.drain.timeout, None);
        assert_eq!(run.notices.notify.len(), 1);
        assert_eq!(run.mistakes.len(), 5, "{:?}", run.mistakes);
        assert!(
            run.mistakes
                .iter()
                .any(|it| it.contains("GRACEKEEPER_TIMEOUT"))
        );
    }

    #[test]
    fn every_mistake_that_a_flag_can_have_leaves_a_sidecar_that_starts() {
        for words in [
            &[][..],
            &["--app-port="],
            &["--inflight=gopher://x"],
            &["--inflight=prometheus+http://me:hunter2@x:1/m"],
            &["--grace-period=5s", "--app-port=1"],
            &["--grace-period=0s", "--app-port=1"],
            &["--reserve=1h", "--app-port=1"],
            &["--quiet-period=1m", "--app-port=1"],
            &["--max-quiet=0s", "--app-port=1"],
            &["--listen=9903", "--app-port=1"],
            &["--token-file=/nowhere", "--app-port=1"],
            &["--drain-file=/nowhere/x", "--app-port=1"],
            &["--service=Shop", "--kube=maybe", "--app-port=1"],
            &["--service=shop", "--kube=off", "--app-port=1"],
            &["--log-format=xml", "--log-level=loud", "--app-port=1"],
            &["--exit-with-app=perhaps", "--app-port=1"],
            &["--app-port=1", "--min-wait"],
            &["--app-port=1", "--min-wait=1s", "--min-wait=2s"],
            &["--app-port=1", "stray"],
            &["--app-port=1", "-x"],
            &["--poll-interval=99999999999999999999s", "--app-port=1"],
        ] {
            assert!(!settings(words, &[]).mistakes.is_empty(), "{words:?}");
        }
        for variable in [
            ("GRACEKEEPER_TOKEN", " "),
            ("RUST_LOG", "a=b=c"),
            ("GRACEKEEPER_APP_PORT", ""),
        ] {
            assert!(
                !settings(&[], &[variable]).mistakes.is_empty(),
                "{variable:?}"
            );
        }
    }

    #[test]
    fn of_a_short_grace_period_half_is_kept_back() {
        let run = settings(&["--app-port=1"], &[("GRACEKEEPER_GRACE_PERIOD", "5s")]);
        assert_eq!(run.drain.reserve, Duration::from_millis(2500));
        assert_eq!(run.drain.grace_period, Duration::from_secs(5));
    }

    #[test]
    fn a_wrong_policy_for_mistakes_is_a_mistake() {
        let words =
            ["gracekeeper", "run", "--app-port=1", "--on-mistake=ignore"].map(str::to_owned);
        let Err(NoInvocation::Usage(text)) = cli::parse(&words, &BTreeMap::new()) else {
            panic!("it was taken");
        };
        assert!(text.contains("write fail or defaults"), "{text}");
    }
}
