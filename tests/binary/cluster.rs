//! Kubernetes as advice: what the sidecar asks of an API server, and that none of what that does wrong changes a drain.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::pages::certificate;
use super::support::*;

/// An API server and a pod's service account for it.
struct Api {
    process: Process,
    folder: TempDir,
    port: String,
}

impl Api {
    /// Nothing where there is no openssl.
    fn start(pod: &Value) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let pem = certificate(&folder, "IP:127.0.0.1")?;
        fs::write(folder.path().join("pod.json"), pod.to_string()).unwrap();
        let account = folder.path().join("account");
        fs::create_dir(&account).unwrap();
        fs::copy(&pem, account.join("ca.crt")).unwrap();
        fs::write(account.join("namespace"), "shops").unwrap();
        let mut api = Self {
            process: Self::listen(folder.path(), "0"),
            folder,
            port: String::new(),
        };
        api.port = api.process.line("the API server's address", |line| {
            Some(line.rsplit_once(':')?.1.to_owned()).filter(|_| line.contains("https://"))
        });
        api.takes("first");
        api.has("first");
        Some(api)
    }

    fn listen(folder: &Path, port: &str) -> Process {
        let mut command = Command::new("python3");
        command
            .arg("api_server.py")
            .args([folder.join("shop.pem").as_path(), folder])
            .arg(port)
            .current_dir(crate::support::folder("tests/apps"));
        Process::start(&mut command)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// From now on it does this.
    fn does(&self, mode: &str) {
        self.write("mode", mode);
    }

    /// The token that it takes.
    fn takes(&self, token: &str) {
        self.write("token", token);
    }

    /// The token that the pod has.
    fn has(&self, token: &str) {
        self.write("account/token", token);
    }

    fn requests(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.path().join("requests.jsonl"));
        (text.unwrap_or_default().lines())
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// The Events that were written, by reason.
    fn events(&self) -> Vec<(String, String)> {
        (self.requests().iter())
            .filter(|request| request["method"] == "POST")
            .map(|request| {
                let text = |name: &str| request["body"][name].as_str().unwrap().to_owned();
                (text("reason"), text("note"))
            })
            .collect()
    }

    fn wait_for_events(&self, reasons: &[&str]) {
        wait_for(&format!("Events {reasons:?}"), || {
            let seen: Vec<String> = self
                .events()
                .into_iter()
                .map(|(reason, _)| reason)
                .collect();
            (seen == reasons).then_some(())
        });
    }

    /// The sidecar of this pod.
    fn sidecar(&self, flags: &[&str]) -> Sidecar {
        let account = self.folder.path().join("account");
        let account = format!("--service-account={}", account.display());
        let environment = [
            ("KUBERNETES_SERVICE_HOST", "127.0.0.1"),
            ("KUBERNETES_SERVICE_PORT", self.port.as_str()),
            ("POD_NAME", "shop-1"),
            ("POD_NAMESPACE", "shops"),
            ("POD_UID", "u-1"),
        ];
        let flags = [&[account.as_str()], flags].concat();
        Sidecar::start_with(&flags, &environment)
    }
}

/// A pod that lives.
fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "shop-1", "namespace": "shops", "uid": "u-1"},
        "spec": {
            "terminationGracePeriodSeconds": 30,
            "containers": [{"name": "app", "image": "shop", "livenessProbe": {"httpGet": {"port": 8000}}}],
        },
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// The same, evicted with this grace period, by a clock that is years off.
fn evicted(grace: u32) -> Value {
    let mut pod = pod();
    pod["metadata"]["deletionTimestamp"] = json!("2001-01-01T00:00:00Z");
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    pod["status"]["conditions"] = json!([
        {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    ]);
    pod
}

const NO_OPENSSL: &str = "skipped: Debian's package openssl is not installed";

#[test]
fn nothing_is_asked_while_serving_and_one_get_and_two_events_when_a_pod_goes() {
    let Some(api) = Api::start(&evicted(12)) else {
        return println!("{NO_OPENSSL}");
    };
    let (_app, base) = shop(0);
    let sidecar = api.sidecar(&[&shop_source(&base), "--min-wait=1s"]);
    sidecar.wait_for_sources();
    for path in ["/readyz", "/status", "/metrics", "/livez"] {
        sidecar.get(path);
    }
    assert_eq!(api.requests(), [] as [Value; 0]);
    let gate = Gate::new();
    let work = gate.enter(&base, "work");
    let hooks = [sidecar.hook("/prestop/app"), sidecar.hook("/prestop/self")];
    // 12 s were granted, and not the 30 s that the flag has.
    wait_for("the real deadline", || {
        let left = sidecar.status()["deadlineInSeconds"].as_f64().unwrap();
        (left < 8.0).then_some(())
    });
    gate.open("work");
    assert_eq!(work.join().unwrap().unwrap().status, 200);
    for hook in hooks {
        let verdict = hook.join().unwrap().unwrap().json();
        assert_eq!(verdict["outcome"], "drained", "{verdict}");
        assert_eq!(verdict["deadlineSeconds"], 7, "{verdict}");
        assert_eq!(verdict["reason"], "EvictionByEvictionAPI", "{verdict}");
    }
    api.wait_for_events(&["DrainStarted", "Drained"]);
    let requests = api.requests();
    let gets = requests.iter().filter(|request| request["method"] == "GET");
    let paths: Vec<&Value> = gets.map(|request| &request["path"]).collect();
    assert_eq!(paths, ["/api/v1/namespaces/shops/pods/shop-1"]);
    for request in &requests {
        assert_eq!(request["token"], "first");
        assert!(
            request["agent"]
                .as_str()
                .unwrap()
                .starts_with("gracekeeper/")
        );
    }
    let drained = &requests.last().unwrap();
    assert_eq!(
        drained["path"],
        "/apis/events.k8s.io/v1/namespaces/shops/events"
    );
    let event = &drained["body"];
    assert_eq!(event["regarding"]["uid"], "u-1", "{event}");
    assert_eq!(event["regarding"]["kind"], "Pod", "{event}");
    assert_eq!(event["type"], "Normal", "{event}");
    let note = event["note"].as_str().unwrap();
    assert!(note.starts_with("drained after"), "{note}");
    assert!(note.contains("EvictionByEvictionAPI"), "{note}");
}

#[test]
fn a_busy_api_server_is_asked_again_and_the_real_deadline_holds_from_then_on() {
    let Some(api) = Api::start(&evicted(20)) else {
        return println!("{NO_OPENSSL}");
    };
    api.does("busy");
    let (_app, base) = shop(0);
    let sidecar = api.sidecar(&[&shop_source(&base), "--min-wait=1s"]);
    sidecar.wait_for_sources();
    let gate = Gate::new();
    let work = gate.enter(&base, "work");
    let hooks = [sidecar.hook("/prestop/app"), sidecar.hook("/prestop/self")];
    wait_for("the first answer", || {
        (sidecar.said("knows nothing of the pod").len() == 1).then_some(())
    });
    api.does("ok");
    // 20 s were granted, and not the 30 s that the flag has.
    wait_for("the pod's object", || {
        (sidecar.said("the pod, as Kubernetes knows it").len() == 1).then_some(())
    });
    gate.open("work");
    assert_eq!(work.join().unwrap().unwrap().status, 200);
    for hook in hooks {
        let verdict = hook.join().unwrap().unwrap().json();
        assert_eq!(verdict["deadlineSeconds"], 15, "{verdict}");
        assert_eq!(verdict["reason"], "EvictionByEvictionAPI", "{verdict}");
    }
    let gets = api.requests().into_iter().filter(|r| r["method"] == "GET");
    assert!(gets.count() >= 2);
}

#[test]
fn an_api_server_that_fails_in_whatever_way_changes_no_drain_and_is_told_of_once() {
    let Some(mut api) = Api::start(&pod()) else {
        return println!("{NO_OPENSSL}");
    };
    let (_app, base) = shop(0);
    let drains = |api: &Api, what: &str| {
        let sidecar = api.sidecar(&[&shop_source(&base), "--min-wait=0s", "--quiet-period=900ms"]);
        sidecar.wait_for_sources();
        let hooks = [sidecar.hook("/prestop/app"), sidecar.hook("/prestop/self")];
        for hook in hooks {
            let verdict = hook.join().unwrap().unwrap().json();
            assert_eq!(verdict["outcome"], "drained", "{what}: {verdict}");
            assert_eq!(verdict["deadlineSeconds"], 25, "{what}: {verdict}");
        }
        wait_for(&format!("word of the pod: {what}"), || {
            (sidecar.said("knows nothing of the pod").len() == 1).then_some(())
        });
        let mut process = sidecar;
        // An Event or two more, each of which takes its second where the API server does not answer; then it ends.
        process.process.signal("TERM");
        process.process.signal("INT");
        assert!(process.process.ended().success(), "{what}");
        let told = process.said("knows nothing of an Event").len();
        assert!(told <= 1, "{what}: told {told} times");
    };
    for mode in [
        "forbidden",
        "missing",
        "broken",
        "busy",
        "reset",
        "garbage",
        "hang",
        "drip",
    ] {
        api.does(mode);
        drains(&api, mode);
    }
    api.does("lie");
    drains(&api, "another pod of this name");
    api.does("ok");
    api.takes("second");
    drains(&api, "a token that is not taken");
    api.takes("first");
    let account = api.folder.path().join("account");
    let other = tempfile::tempdir().unwrap();
    let stranger = certificate(&other, "IP:127.0.0.1").unwrap();
    fs::rename(account.join("ca.crt"), account.join("ca.old")).unwrap();
    drains(&api, "no roots");
    fs::copy(stranger, account.join("ca.crt")).unwrap();
    drains(&api, "a certificate that has changed");
    fs::rename(account.join("ca.old"), account.join("ca.crt")).unwrap();
    api.process.kill();
    drains(&api, "nobody there");
}

#[test]
fn a_sidecar_restarted_in_a_drain_learns_that_its_pod_is_going() {
    let Some(api) = Api::start(&evicted(30)) else {
        return println!("{NO_OPENSSL}");
    };
    let (_app, base) = shop(0);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("draining");
    fs::write(&file, "draining\n").unwrap();
    let drain_file = format!("--drain-file={}", file.display());
    let sidecar = api.sidecar(&[&shop_source(&base), &drain_file, "--min-wait=0s"]);
    wait_for("the end of the drain", || {
        let status = sidecar.status();
        (status["going"] == true && status["phase"] == "drained").then_some(())
    });
    assert_eq!(sidecar.get("/readyz").status, 503);
    assert_eq!(sidecar.status()["verdict"]["trigger"], "sidecar restart");
    assert!(file.exists(), "the app is still told");
    let gets = api.requests().into_iter().filter(|r| r["method"] == "GET");
    assert_eq!(gets.count(), 1);
}

#[test]
fn a_drain_by_hand_asks_for_the_probes_and_keeps_its_deadline() {
    let Some(api) = Api::start(&evicted(12)) else {
        return println!("{NO_OPENSSL}");
    };
    let (_app, base) = shop(0);
    let sidecar = api.sidecar(&[&shop_source(&base), "--min-wait=0s"]);
    sidecar.wait_for_sources();
    let gate = Gate::new();
    let work = gate.enter(&base, "work");
    assert_eq!(
        ask("POST", &sidecar.url("/drain"), &[]).unwrap().status,
        202
    );
    let gets = || api.requests().into_iter().filter(|r| r["method"] == "GET");
    wait_for("the question", || (gets().count() == 1).then_some(()));
    gate.open("work");
    assert_eq!(work.join().unwrap().unwrap().status, 200);
    let verdict = wait_for("the verdict", || {
        let verdict = sidecar.status()["verdict"].clone();
        (!verdict.is_null()).then_some(verdict)
    });
    assert_eq!(verdict["deadlineSeconds"], 25, "{verdict}");
    assert_eq!(verdict["going"], false, "{verdict}");
    assert_eq!(gets().count(), 1);
}

#[test]
fn a_token_that_is_rotated_on_disk_is_the_one_that_is_used() {
    let Some(api) = Api::start(&pod()) else {
        return println!("{NO_OPENSSL}");
    };
    let (_app, base) = shop(0);
    let sidecar = api.sidecar(&[&shop_source(&base), "--min-wait=0s"]);
    sidecar.wait_for_sources();
    for (round, token) in ["first", "second"].into_iter().enumerate() {
        api.takes(token);
        api.has(&format!("{token}\n"));
        assert_eq!(
            ask("POST", &sidecar.url("/drain?wait=true"), &[])
                .unwrap()
                .status,
            200
        );
        assert_eq!(
            ask("DELETE", &sidecar.url("/drain"), &[]).unwrap().status,
            200
        );
        let expected = ["DrainStarted", "Drained", "Reopened"].repeat(round + 1);
        api.wait_for_events(&expected);
    }
    assert!(sidecar.said("knows nothing").is_empty());
}

#[test]
fn a_restart_is_told_with_what_it_cost() {
    let Some(api) = Api::start(&pod()) else {
        return println!("{NO_OPENSSL}");
    };
    let (mut app, base) = shop(0);
    let port = base.rsplit(':').next().unwrap().to_owned();
    let app_port = format!("--app-port={port}");
    let flags = [app_port.as_str(), "--min-wait=0s", "--timeout=1s"];
    let sidecar = api.sidecar(&flags);
    sidecar.wait_for_sources();
    let gate = Gate::new();
    let lost = gate.enter(&base, "lost");
    let verdict = sidecar.hook("/prestop/app").join().unwrap().unwrap().json();
    assert_eq!(
        (&verdict["outcome"], &verdict["going"]),
        (&"deadline".into(), &false.into())
    );
    app.kill();
    assert!(lost.join().unwrap().is_none(), "nobody answered it");
    wait_for("the sidecar to see that the app is gone", || {
        (sidecar.status()["sources"][0]["result"] == "refused").then_some(())
    });
    let (_again, _) = shop(port.parse().unwrap());
    api.wait_for_events(&["DrainStarted", "DrainDeadlineExceeded", "RequestsCut"]);
    let (_, note) = api.events().pop().unwrap();
    assert!(note.starts_with("A request was cut off"), "{note}");
    assert!(note.ends_with("the pod serves again"), "{note}");
    wait_for("serving", || {
        (sidecar.status()["phase"] == "serving").then_some(())
    });
}

#[test]
fn a_source_that_cannot_work_is_an_event_at_the_start_and_never_again() {
    let Some(api) = Api::start(&pod()) else {
        return println!("{NO_OPENSSL}");
    };
    let (_app, base) = shop(0);
    let wrong = [
        format!("--inflight=prometheus+{base}/metrics#shop_costumers"),
        format!("--inflight=json+{base}/stats#/nobody"),
    ];
    let sidecar = api.sidecar(&[&wrong[0], &wrong[1]]);
    api.wait_for_events(&["SourceUnreadable"]);
    let (_, note) = &api.events()[0];
    assert!(
        note.contains("shop_costumers") && note.contains("shop_customers"),
        "{note}"
    );
    assert_eq!(
        sidecar.get("/readyz").status,
        200,
        "it makes no pod unready"
    );
    sidecar.hook("/prestop/app").join().unwrap().unwrap();
    api.wait_for_events(&["SourceUnreadable", "DrainStarted", "DrainDeadlineExceeded"]);
}

/// The log comes by another way than answers do, and may come later.
fn says_once(sidecar: &Sidecar, message: &str) {
    wait_for(message, || {
        (!sidecar.said(message).is_empty()).then_some(())
    });
    assert_eq!(sidecar.said(message).len(), 1, "{message}");
}

#[test]
fn min_wait_starts_when_the_pod_has_left_its_services() {
    let Some(api) = Api::start(&pod()) else {
        return println!("{NO_OPENSSL}");
    };
    let (_app, base) = shop(0);
    let source = shop_source(&base);
    let flags = [
        source.as_str(),
        "--service=shop",
        "--min-wait=500ms",
        "--quiet-period=0s",
    ];
    let sidecar = api.sidecar(&flags);
    sidecar.wait_for_sources();
    let hook = sidecar.hook("/prestop/app");
    wait_for("the watch", || {
        let watches = api
            .requests()
            .into_iter()
            .filter(|r| !r["query"]["watch"].is_null());
        (watches.count() == 1).then_some(())
    });
    std::thread::sleep(Duration::from_secs(2));
    assert!(!hook.is_finished(), "it is still in the EndpointSlices");
    api.write("left", "");
    let verdict = hook.join().unwrap().unwrap().json();
    assert_eq!(verdict["outcome"], "drained", "{verdict}");
    says_once(&sidecar, "has left its Services");
    let selectors: Vec<Value> = (api.requests().into_iter())
        .filter(|request| {
            request["path"]
                .as_str()
                .unwrap()
                .ends_with("endpointslices")
        })
        .map(|request| request["query"]["labelSelector"].clone())
        .collect();
    assert_eq!(
        selectors,
        vec![json!("kubernetes.io/service-name in (shop)"); 2]
    );
}

#[test]
fn where_nobody_says_when_the_pod_has_left_its_services_min_wait_has_begun() {
    let Some(api) = Api::start(&pod()) else {
        return println!("{NO_OPENSSL}");
    };
    let (_app, base) = shop(0);
    let source = shop_source(&base);
    for mode in ["forbidden", "hang", "garbage"] {
        api.does(mode);
        let flags = [
            source.as_str(),
            "--service=shop",
            "--min-wait=0s",
            "--quiet-period=0s",
        ];
        let sidecar = api.sidecar(&flags);
        sidecar.wait_for_sources();
        let verdict = sidecar.hook("/prestop/app").join().unwrap().unwrap().json();
        assert_eq!(verdict["outcome"], "drained", "{mode}: {verdict}");
        let took = verdict["tookSeconds"].as_f64().unwrap();
        assert!(
            took < 9.0,
            "{mode}: a second or so, and not all it has: {verdict}"
        );
        says_once(&sidecar, "does not say when the pod leaves");
    }
}
