//! Flags that the environment sets.

use std::collections::BTreeMap;

use clap::CommandFactory as _;

use super::Cli;
use crate::http;

/// Every flag is also an environment variable: `GRACEKEEPER_` and the flag in capitals.
const PREFIX: &str = "GRACEKEEPER_";

/// The words, and the flags that only the environment sets; and which variable set each of these.
pub fn with_environment(
    words: &[String],
    environment: &BTreeMap<String, String>,
) -> (Vec<String>, BTreeMap<String, String>) {
    let mut words = words.to_vec();
    let mut origins = BTreeMap::new();
    let command = Cli::command();
    let subcommand = words.get(1).and_then(|name| command.find_subcommand(name));
    for flag in subcommand
        .into_iter()
        .flat_map(clap::Command::get_arguments)
    {
        let Some(name) = flag.get_long() else {
            continue;
        };
        let variable = variable(name);
        // What follows -- is the command of another program.
        let is_given = (words.iter())
            .take_while(|word| *word != "--")
            .any(|word| word.strip_prefix("--").and_then(|w| w.split('=').next()) == Some(name));
        let Some(value) = environment.get(&variable).filter(|_| !is_given) else {
            continue;
        };
        let repeatable = matches!(flag.get_action(), clap::ArgAction::Append);
        let values: Vec<&str> = match repeatable {
            true => value
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .collect(),
            false => vec![value],
        };
        words.splice(
            2..2,
            values.into_iter().map(|value| format!("--{name}={value}")),
        );
        origins.insert(name.to_owned(), variable);
    }
    (words, origins)
}

fn variable(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_uppercase().replace('-', "_"))
}

/// A warning for each variable that looks like ours and sets nothing. Those that Kubernetes sets for a Service named
/// gracekeeper are left out.
pub fn unknown_variables(environment: &BTreeMap<String, String>) -> Vec<String> {
    let command = Cli::command();
    let known = |variable: &str| {
        variable == http::TOKEN_VARIABLE
            || (command
                .get_subcommands()
                .flat_map(clap::Command::get_arguments))
            .filter_map(clap::Arg::get_long)
            .any(|flag| self::variable(flag) == variable)
    };
    let of_a_service = |name: &str| {
        name.contains("_SERVICE_") || name.contains("_PORT") || name.ends_with("_SERVICE")
    };
    (environment.keys())
        .filter(|name| name.starts_with(PREFIX) && !known(name) && !of_a_service(name))
        .map(|name| format!("the environment variable {name} sets nothing; gracekeeper run --help lists the flags"))
        .collect()
}
