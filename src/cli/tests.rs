use super::*;
use std::time::Duration;

const SOURCE: &str = "--inflight=prometheus+http://127.0.0.1:8000/metrics#m";

fn parse(words: &[&str], environment: &[(&str, &str)]) -> Result<Invocation, NoInvocation> {
    let words: Vec<String> = ["gracekeeper", "run"]
        .iter()
        .chain(words)
        .map(|&word| word.to_owned())
        .collect();
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    super::parse(&words, &environment)
}

fn settings(words: &[&str], environment: &[(&str, &str)]) -> run::Settings {
    match parse(words, environment).unwrap().command {
        Command::Run(settings) => *settings,
        other => panic!("{other:?}"),
    }
}

fn errors(words: &[&str], environment: &[(&str, &str)]) -> String {
    match parse(words, environment).unwrap_err() {
        NoInvocation::Usage(text) => text,
        NoInvocation::Help(text) => panic!("help: {text}"),
    }
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let run = settings(&[SOURCE], &[]);
    assert_eq!(run.http.listen.to_string(), "[::]:9903");
    assert_eq!(
        run.drain,
        drain::Policy {
            max_inflight: 0.0,
            min_wait: Duration::from_secs(5),
            quiet_period: Duration::from_secs(1),
            max_quiet: Duration::from_secs(10),
            grace_period: Duration::from_secs(30),
            reserve: Duration::from_secs(5),
            app_shutdown: drain::AppShutdown::Abrupt,
            when_stuck: None,
            timeout: None,
            readiness: drain::Readiness::Now,
            when_blind: drain::WhenBlind::Wait,
            poll_interval: Duration::from_millis(100),
            exit_with_app: false,
        }
    );
    assert_eq!(run.inflight.read_timeout, Duration::from_secs(1));
    assert_eq!(
        run.notices.termination_log.to_str(),
        Some("/dev/termination-log")
    );
}

#[test]
fn the_budget_is_the_tightest_bound() {
    let budget = |words: &[&str]| settings(&[&[SOURCE], words].concat(), &[]).drain.budget();
    assert_eq!(
        budget(&["--grace-period=60s", "--reserve=10s"]),
        Duration::from_secs(50)
    );
    assert_eq!(budget(&["--timeout=8s"]), Duration::from_secs(8));
    assert_eq!(budget(&["--timeout=80s"]), Duration::from_secs(25));
}

#[test]
fn policies_are_read() {
    let run = settings(
        &[SOURCE, "--readiness=after=10s", "--when-blind=window=1m30s"],
        &[],
    );
    assert_eq!(
        run.drain.readiness,
        drain::Readiness::After(Duration::from_secs(10))
    );
    assert_eq!(
        run.drain.when_blind,
        drain::WhenBlind::Window(Duration::from_secs(90))
    );
}

#[test]
fn the_environment_sets_what_no_flag_does() {
    let environment = [
        ("GRACEKEEPER_MIN_WAIT", "7s"),
        ("GRACEKEEPER_TIMEOUT", "9s"),
        (
            "GRACEKEEPER_INFLIGHT",
            "prometheus+http://a:1/m#x{a=\"b, c\"}\n\n prometheus+http://b:1/m#y\n",
        ),
        ("GRACEKEEPER_TOKEN", "secret"),
    ];
    let run = settings(&["--timeout", "8s"], &environment);
    assert_eq!(
        (run.drain.min_wait, run.drain.budget()),
        (Duration::from_secs(7), Duration::from_secs(8))
    );
    let names: Vec<String> = run
        .inflight
        .sources
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        names,
        [
            "prometheus+http://a:1/m#x{a=\"b, c\"}",
            "prometheus+http://b:1/m#y"
        ]
    );
    assert!(run.http.token.is_some());
}

#[test]
fn every_mistake_is_told_at_once() {
    let message = errors(
        &[
            "--listen=9903",
            "--inflight=gopher://x",
            "--min-wait=soon",
            "--min-weit=5s",
            "--colour",
            "blue",
            "--max-inflight=-1",
            "--readiness=later",
            "--when-blind=window=x",
            "--notify=here",
            "--app-ready=ftp://x",
            "--token-file=/nowhere/token",
            "--drain-file=/nowhere/file",
            "--log-format=xml",
            "--log-level=loud",
            "--poll-interval=0s",
            "--read-timeout=0s",
            "--app-port=http",
            "--max-quiet=0s",
        ],
        &[("GRACEKEEPER_RESERVE", "40s"), ("GRACEKEEPER_TIMEOUT", "")],
    );
    for part in [
        "--listen \"9903\"",
        "--inflight \"gopher://x\"",
        "--min-wait \"soon\"",
        "--min-weit is not a flag; did you mean --min-wait?",
        "--colour is not a flag",
        "--max-inflight \"-1\"",
        "--readiness \"later\"",
        "--when-blind \"window=x\"",
        "--notify \"here\"",
        "--app-ready \"ftp://x\"",
        "--token-file \"/nowhere/token\"",
        "--drain-file \"/nowhere/file\"",
        "--log-format \"xml\"",
        "--log-level \"loud\"",
        "--poll-interval \"0s\"",
        "--read-timeout \"0s\"",
        "--app-port \"http\"",
        "--max-quiet \"0s\"",
        "--reserve \"40s\" (from GRACEKEEPER_RESERVE)",
        "--timeout \"\" (from GRACEKEEPER_TIMEOUT)",
    ] {
        assert!(message.contains(part), "{part:?} in\n{message}");
    }
    assert_eq!(message.lines().count(), 20, "{message}");
}

#[test]
fn nothing_to_watch_is_a_mistake_with_a_remedy() {
    assert!(errors(&[], &[]).contains("write --app-port 8000"));
}

#[test]
fn an_app_port_alone_is_a_source() {
    let run = settings(&["--app-port=8000", "--app-port=8001"], &[]);
    let names: Vec<_> = run
        .inflight
        .sources
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["tcp-busy://:8000", "tcp-busy://:8001"]);
    assert_eq!(run.inflight.ports, [8000, 8001].into());
    let run = settings(&[SOURCE, "--app-port=8000", "--inflight=tcp://:9000"], &[]);
    assert_eq!(run.inflight.sources.len(), 2);
    assert_eq!(run.inflight.ports, [8000, 9000].into());
}

#[test]
fn a_token_file_is_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "secret\n").unwrap();
    let flag = format!("--token-file={}", file.path().display());
    assert!(settings(&[SOURCE, &flag], &[]).http.token.is_some());
}

#[test]
fn two_tokens_or_an_empty_one_are_mistakes() {
    assert!(
        errors(&[SOURCE, "--token-file=/x"], &[("GRACEKEEPER_TOKEN", "s")])
            .contains("one of the two")
    );
    assert!(errors(&[SOURCE], &[("GRACEKEEPER_TOKEN", " ")]).contains("empty"));
}

#[test]
fn a_containers_flags_are_checked_without_its_files() {
    let words: Vec<String> = [
        "gracekeeper",
        "run",
        SOURCE,
        "--token-file=/nowhere/token",
        "--drain-file=/nowhere/file",
        "--service=shop",
        "--min-wait=soon",
    ]
    .map(str::to_owned)
    .into();
    let Err(NoInvocation::Usage(message)) = super::check(&words, &BTreeMap::new()) else {
        panic!("it has a mistake");
    };
    assert!(message.starts_with("--min-wait"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(super::check(&words[..6], &BTreeMap::new()).is_ok());
}

#[test]
fn no_secret_is_shown() {
    let message = errors(&["--inflight=prometheus+http://me:hunter2@x:1/m"], &[]);
    assert!(!message.contains("hunter2"), "{message}");
    let run = settings(&[SOURCE], &[("GRACEKEEPER_TOKEN", "hunter2")]);
    assert!(!format!("{run:?}").contains("hunter2"));
}

#[test]
fn suspicious_settings_are_warned_about() {
    let asked = parse(
        &[SOURCE, "--timeout=2s"],
        &[
            ("GRACEKEEPER_MINWAIT", "1s"),
            ("GRACEKEEPER_WEBHOOK_SERVICE_HOST", "10.0.0.1"),
            ("GRACEKEEPER_PORT_9903_TCP", "tcp://10.0.0.1:9903"),
        ],
    )
    .unwrap();
    assert_eq!(asked.warnings.len(), 2, "{:?}", asked.warnings);
    assert!(asked.warnings[0].contains("GRACEKEEPER_MINWAIT"));
    assert!(asked.warnings[1].contains("2s"));
}

#[test]
fn help_is_help() {
    assert!(
        matches!(parse(&["--help"], &[]), Err(NoInvocation::Help(text)) if text.contains("--min-wait"))
    );
    for words in [&["gracekeeper"][..], &["gracekeeper", "--version"]] {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        assert!(matches!(
            super::parse(&words, &BTreeMap::new()),
            Err(NoInvocation::Help(_))
        ));
    }
}
