//! `gracekeeper rehearse`: what it finds about apps, what it says about bad input, and that it leaves nothing behind.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::support::*;

const URL: &str = "--url=http://127.0.0.1:{port}/work?seconds=0.3";

/// The command, with a temporary folder of its own.
fn command(words: &[&str], temporary: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gracekeeper"));
    command
        .arg("rehearse")
        .args(words)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("TMPDIR", temporary)
        .stdin(Stdio::null());
    command
}

fn rehearse(words: &[&str]) -> Output {
    let temporary = tempfile::tempdir().unwrap();
    let output = command(words, temporary.path()).output().unwrap();
    let left: Vec<_> = std::fs::read_dir(temporary.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether a process whose command line has this text runs.
fn runs(text: &str) -> bool {
    let folders = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = folders.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines: Vec<String> = lines
        .map(|line| String::from_utf8_lossy(&line).into_owned())
        .collect();
    lines
        .iter()
        .any(|line| line.contains(text) && !line.contains("rehearse"))
}

#[test]
fn an_app_that_dies_at_sigterm_loses_requests_without_a_hook_and_none_with_gracekeeper() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let report = format!("--report={}", page.display());
    let output = rehearse(&[
        URL,
        "--compare=none,gracekeeper",
        "--routes=1s",
        "--json",
        "--fail-on=lost=0",
        &report,
        "--notify=http://127.0.0.1:{port}/drain",
        "--",
        "python3",
        "tests/apps/shop.py",
        "--goodbye",
        "{port}",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (none, keeper) = (&result["runs"][0], &result["runs"][1]);
    assert_eq!(
        (&none["way"], &keeper["way"]),
        (&"none".into(), &"gracekeeper".into())
    );
    assert!(none["failed"].as_u64().unwrap() > 10, "{none}");
    assert!(none["causes"]["refused"].as_u64().unwrap() > 0, "{none}");
    assert_eq!(keeper["failed"], 0, "{keeper}");
    let seconds = |name: &str| none[name].as_f64().unwrap();
    assert!(
        seconds("goneSeconds") - seconds("appEndedSeconds") > 0.7,
        "a pod goes some time after its app: {none}"
    );
    assert_eq!(
        none["hookAnsweredSeconds"],
        Value::Null,
        "what was not seen is null"
    );
    assert_eq!(keeper["verdict"]["outcome"], "drained");
    assert!(
        result["verdict"]
            .as_str()
            .unwrap()
            .starts_with("gracekeeper: 0 of ")
    );
    let advice = result["advice"].to_string();
    assert!(advice.contains("at SIGTERM the app exits"), "{advice}");
    assert!(advice.contains("shop_customers"), "{advice}");
    let page = std::fs::read_to_string(page).unwrap();
    assert_eq!(page.matches("<svg").count(), 2);
    assert!(
        !page.contains("http://www") && !page.contains("src="),
        "it loads nothing"
    );
}

#[test]
fn a_restarted_app_serves_again() {
    let words = [
        URL,
        "--compare=none,gracekeeper",
        "--routes=500ms",
        "--min-wait=1s",
        "--grace-period=10s",
        "--restart",
        "--json",
        "--",
        "python3",
        "tests/apps/shop.py",
        "{port}",
    ];
    let output = rehearse(&words);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["restart"], true);
    let verdict = &result["runs"][1]["verdict"];
    assert_eq!(
        verdict["going"], false,
        "only the app's hook is called: {verdict}"
    );
}

#[test]
fn an_app_that_ignores_sigterm_is_killed_when_the_grace_period_is_over() {
    let script = "trap '' TERM; python3 tests/apps/shop.py $0 & wait; wait";
    let output = rehearse(&[
        URL,
        "--compare=none",
        "--routes=1s",
        "--grace-period=6s",
        "--json",
        "--",
        "sh",
        "-c",
        script,
        "{port}",
    ]);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["runs"][0]["killed"], true, "{result}");
    assert!(
        result["advice"][0]
            .as_str()
            .unwrap()
            .contains("ignores SIGTERM"),
        "{result}"
    );
}

#[test]
fn children_that_an_app_leaves_behind_end_with_it() {
    let script = "python3 tests/apps/shop.py $0 & setsid sleep 98761 & trap 'exit 0' TERM; wait";
    let words = [
        URL,
        "--compare=none",
        "--routes=1s",
        "--json",
        "--",
        "sh",
        "-c",
        script,
        "{port}",
    ];
    let output = rehearse(&words);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        result["advice"]
            .to_string()
            .contains("its first process ended and left"),
        "{result}"
    );
    assert!(!runs("sleep\098761"));
}

/// A port that is free now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A command that is rehearsed with a fixed port, without a hook.
fn rehearse_fixed(port: u16, mark: &str, app: &[&str]) -> Value {
    let temporary = tempfile::tempdir().unwrap();
    let url = format!("--url=http://127.0.0.1:{port}/work?seconds=0.1");
    let words = [&url, "--compare=none", "--routes=1s", "--json", "--"];
    let output = command(&[&words, app].concat(), temporary.path())
        .env("MARK", mark)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    wait_for("the end of all that it started", || {
        (!has_environment(&format!("MARK={mark}"))).then_some(())
    });
    serde_json::from_slice(&output.stdout).unwrap()
}

/// When the last request ended that the instance which took over had answered, in seconds from the deletion.
fn last_requests_in_flight(run: &Value) -> f64 {
    let series = &run["inFlight"];
    let counts = series["counts"].as_array().unwrap();
    let last = counts.iter().rposition(|count| count.as_u64() > Some(0));
    let step = series["stepSeconds"].as_f64().unwrap();
    series["fromSeconds"].as_f64().unwrap() + step * last.unwrap_or_default() as f64
}

#[test]
fn a_second_instance_with_the_same_port_takes_over_where_a_network_of_its_own_may_be_made() {
    let port = free_port();
    let app = ["python3", "tests/apps/shop.py", &port.to_string()].map(str::to_owned);
    let app: Vec<&str> = app.iter().map(String::as_str).collect();
    let result = rehearse_fixed(port, &format!("beside-{port}"), &app);
    let may = |words: &[&str]| {
        let up = ["--", "ip", "link", "set", "lo", "up"];
        let done = Command::new("unshare").args([words, &up].concat()).output();
        done.is_ok_and(|done| done.status.success())
    };
    let means: [&[&str]; 2] = [
        &["--net"],
        &["--net", "--user", "--map-current-user", "--keep-caps"],
    ];
    let may_be_made = means.into_iter().any(may);
    assert_eq!(result["alone"], !may_be_made, "{result}");
    if may_be_made {
        // New connections come for a second, then they are the other's.
        let last = last_requests_in_flight(&result["runs"][0]);
        assert!(last > 1.5, "no request after {last} s: {result}");
    } else {
        let why = result["aloneBecause"].as_str().unwrap();
        assert!(why.starts_with("no network of its own"), "{why}");
    }
}

#[test]
fn an_app_that_runs_once_is_rehearsed_alone_and_the_report_says_why() {
    let port = free_port();
    let folder = tempfile::tempdir().unwrap();
    let lock = folder.path().join("lock");
    let script = format!(
        "mkdir {} || exit 3; exec python3 tests/apps/shop.py {port}",
        lock.display()
    );
    let result = rehearse_fixed(port, &format!("once-{port}"), &["sh", "-c", &script]);
    assert_eq!(result["alone"], true);
    assert!(result.to_string().contains("--app-port="), "{result}");
    let why = result["aloneBecause"].as_str().unwrap();
    assert!(!why.is_empty(), "{result}");
}

#[test]
fn an_app_that_cannot_be_rehearsed_is_explained_with_status_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("--url=http://{}/", taken.local_addr().unwrap());
    let other = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
    let shop = ["python3", "tests/apps/shop.py"];
    for (url, command, message) in [
        (
            URL,
            &["/nowhere/app"][..],
            "the command \"/nowhere/app\" cannot be started",
        ),
        (
            URL,
            &["sh", "-c", "echo no database; exit 3"],
            "ended with exit status 3 before it listened on",
        ),
        (
            URL,
            &["sh", "-c", "echo no database; exit 3"],
            "no database",
        ),
        (URL, &["sleep", "98762"], "does not listen on 127.0.0.1:"),
        (
            URL,
            &[shop[0], shop[1], &other],
            "write {port} where the command takes its port",
        ),
        (
            &taken,
            &[shop[0], shop[1], "{port}"],
            "something listens on 127.0.0.1:",
        ),
        (
            "--url=http://127.0.0.1:{port}/nowhere",
            &[shop[0], shop[1], "{port}"],
            "answers 404 Not Found; write a URL that the app serves",
        ),
        (
            "--url=http://127.0.0.1:{port}/work?seconds=x",
            &[shop[0], shop[1], "{port}"],
            "has no answer: closed unanswered",
        ),
    ] {
        let mut words = vec![url, "--start-timeout=5s", "--"];
        words.extend(command);
        let output = rehearse(&words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        assert!(
            said(&output).contains(message),
            "{message:?} in {}",
            said(&output)
        );
        assert!(output.stdout.is_empty());
    }
    assert!(!runs("sleep\098762"));
}

#[test]
fn a_wrong_command_line_is_refused_with_every_mistake() {
    let output = rehearse(&[
        "--url=ftp://x/",
        "--compare=none,kill",
        "--rate=0",
        "--min-wait=soon",
        "--fail-on=few",
    ]);
    assert_eq!(output.status.code(), Some(64));
    let told = said(&output);
    has_all(
        &told,
        &[
            "--url \"ftp://x/\"",
            "--compare \"kill\"",
            "--rate \"0\"",
            "--min-wait \"soon\"",
            "--fail-on \"few\"",
            "there is no command",
        ],
    );
    let told = said(&rehearse(&["--", "app"]));
    assert!(told.contains("there is no URL"), "{told}");
}

#[test]
fn more_lost_than_allowed_is_status_1() {
    let words = [
        URL,
        "--compare=none",
        "--routes=1s",
        "--fail-on=lost=0",
        "--",
        "python3",
        "tests/apps/shop.py",
        "{port}",
    ];
    assert_eq!(rehearse(&words).status.code(), Some(1));
}

#[test]
fn an_interrupt_leaves_no_process_and_no_file() {
    for steps in 0..3 {
        let temporary = tempfile::tempdir().unwrap();
        let mark = format!("name=interrupted-{steps}");
        let url = format!("--url=http://127.0.0.1:{{port}}/work?seconds=0.1&{mark}");
        let seen = temporary.path().join("app");
        std::fs::create_dir(&seen).unwrap();
        // The app's own arguments are how its processes are known here.
        let script = format!("exec python3 tests/apps/shop.py $0 # {mark}");
        let words = [
            url.as_str(),
            "--compare=sleep=20,gracekeeper",
            "--",
            "sh",
            "-c",
            &script,
            "{port}",
        ];
        let mut child = Process::start(command(&words, temporary.path()).env("MARK", &mark));
        let line = [
            "starting the app",
            "the pod is deleted",
            "the pod is deleted",
        ][steps];
        child.line(line, |text| text.contains(line).then_some(()));
        if steps == 0 {
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        child.signal(if steps == 1 { "TERM" } else { "INT" });
        assert_eq!(child.ended().code(), Some(1));
        std::fs::remove_dir(&seen).unwrap();
        let left: Vec<_> = std::fs::read_dir(temporary.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        // What was killed takes a moment to end.
        wait_for("the app's end", || {
            (!has_environment(&format!("MARK={mark}"))).then_some(())
        });
    }
}

/// Whether a process with this in its environment runs.
fn has_environment(variable: &str) -> bool {
    let folders = std::fs::read_dir("/proc").unwrap().flatten();
    let environments = folders.filter_map(|entry| std::fs::read(entry.path().join("environ")).ok());
    environments.into_iter().any(|text| {
        text.split(|byte| *byte == 0)
            .any(|one| one == variable.as_bytes())
    })
}

#[test]
fn a_grpc_server_that_dies_at_sigterm_is_told_apart_from_one_that_ends_its_calls() {
    let python = folder("target/test-env/venv/bin/python");
    let python = python.to_string_lossy();
    let rehearsed = |more: &[&str]| {
        let mut words = vec![
            "--url=grpc://127.0.0.1:{port}/shop.Shop/Slow",
            "--compare=none,gracekeeper:graceful",
            "--routes=1s",
            "--json",
            "--",
            &python,
            "tests/apps/grpc_app.py",
            "{port}",
        ];
        words.extend(more);
        let output = rehearse(&words);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let rude = rehearsed(&[]);
    let advice = rude["advice"].to_string();
    assert!(advice.contains("at SIGTERM the app exits"), "{advice}");
    assert!(advice.contains("gRPC: on SIGTERM call"), "{advice}");
    let polite = rehearsed(&["--polite"]);
    let (none, handover) = (&polite["runs"][0], &polite["runs"][1]);
    assert!(none["causes"]["refused"].as_u64().unwrap() > 0, "{none}");
    assert_eq!(handover["failed"], 0, "{handover}");
    let advice = polite["advice"].to_string();
    assert!(
        advice.contains("at SIGTERM the app finishes what it has"),
        "{advice}"
    );
    assert!(
        advice.contains("it takes no new connections"),
        "so it needs a hook: {advice}"
    );
    let yaml = polite["yaml"].as_str().unwrap();
    assert!(
        yaml.contains("--app-shutdown=graceful"),
        "the way that won is in the YAML: {yaml}"
    );
}

#[test]
fn a_grpc_method_that_no_server_has_is_said() {
    let python = folder("target/test-env/venv/bin/python");
    let output = rehearse(&[
        "--url=grpc://127.0.0.1:{port}/shop.Shop/Nowhere",
        "--",
        &python.to_string_lossy(),
        "tests/apps/grpc_app.py",
        "{port}",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let told = said(&output);
    assert!(
        told.contains("answers gRPC status 12 (unimplemented); write a URL that the app serves"),
        "{told}"
    );
}

#[test]
fn a_wrong_command_line_for_a_cluster_is_refused_with_every_mistake() {
    let output = rehearse(&[
        "--cluster",
        "ds/web",
        "--url=http://127.0.0.1:{port}/work",
        "--mode=both",
        "--image-pull-policy=Sometimes",
        "--rollout-timeout=soon",
        "--compare=none",
        "--min-wait=3s",
        "--fail-on=few",
        "--",
        "app",
    ]);
    assert_eq!(output.status.code(), Some(64));
    let told = said(&output);
    has_all(
        &told,
        &[
            "ds is not restarted here; write deploy/NAME or sts/NAME",
            "no port is chosen in a cluster",
            "--mode \"both\"",
            "--image-pull-policy \"Sometimes\"",
            "--rollout-timeout \"soon\"",
            "--compare is for a rehearsal on this machine",
            "--min-wait is for a rehearsal on this machine",
            "--fail-on \"few\"",
            "leave out -- and the command",
            "there is no image",
        ],
    );
    let told = said(&rehearse(&["--cluster", "--url=http://localhost/work"]));
    has_all(
        &told,
        &[
            "there is nothing to restart; write deploy/NAME or sts/NAME",
            "in a pod that is the pod itself",
        ],
    );
    let output = rehearse(&[
        "deploy/web",
        "-n",
        "shop",
        "--yes",
        "--image=x",
        URL,
        "--",
        "app",
    ]);
    assert_eq!(output.status.code(), Some(64));
    let told = said(&output);
    has_all(
        &told,
        &[
            "\"deploy/web\" is read as a workload in a cluster; write --cluster",
            "--namespace is for a rehearsal in a cluster",
            "--yes is for a rehearsal in a cluster",
            "--image is for a rehearsal in a cluster",
        ],
    );
}

#[test]
fn a_cluster_that_is_not_there_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("config");
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{}}}}]\ncurrent-context: c\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let words = [
        "--cluster",
        "deploy/web",
        "--url=http://web/",
        "--image=x",
        "--yes",
    ];
    for (kubeconfig, part) in [
        (
            folder.path().join("nowhere"),
            "there is no cluster; set KUBECONFIG",
        ),
        (kubeconfig, "the API server at http://127.0.0.1:"),
    ] {
        let temporary = tempfile::tempdir().unwrap();
        let output = command(&words, temporary.path())
            .env("KUBECONFIG", kubeconfig)
            .env("HOME", folder.path())
            .env_remove("KUBERNETES_SERVICE_HOST")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(part), "{part} in {}", said(&output));
    }
}

#[test]
fn the_clients_of_a_pod_print_what_became_of_each_request() {
    let mut app = Process::start(
        Command::new("python3")
            .args(["tests/apps/shop.py", "0"])
            .current_dir(env!("CARGO_MANIFEST_DIR")),
    );
    let address = app.line("the app", |line| {
        line.strip_prefix("listening on ").map(str::to_owned)
    });
    let url = format!("--url={}/work?seconds=0.1", address.trim());
    let mut clients = Process::start(Command::new(env!("CARGO_BIN_EXE_gracekeeper")).args([
        "rehearse-clients",
        "--rate=20",
        &url,
    ]));
    let parsed = |line: &str| serde_json::from_str::<Value>(line).ok();
    clients.line("the beginning", |line| {
        parsed(line).filter(|it| it.get("sending").is_some())
    });
    clients.line("answers", |line| {
        let batch = parsed(line)?.get("batch")?.clone();
        let ended = batch["ended"].as_array()?.first()?.clone();
        ended[4].is_null().then_some(())
    });
    app.signal("KILL");
    clients.line("a loss", |line| {
        let batch = parsed(line)?.get("batch")?.clone();
        let ended = batch["ended"].as_array()?.clone();
        ended.iter().any(|it| it[4] == "refused").then_some(())
    });
    clients.signal("TERM");
    assert_eq!(clients.ended().code(), Some(0));
    wait_for("the end in its output", || {
        let lines = clients.lines();
        let last = parsed(lines.last()?)?;
        last.get("end").is_some().then_some(())
    });
}

#[test]
fn the_help_of_rehearse_is_the_recorded_one() {
    is_recorded(&rehearse(&["-h"]).stdout, "help-rehearse.txt");
}
