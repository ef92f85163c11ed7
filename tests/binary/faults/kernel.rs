//! The kernel does not answer over netlink, or badly, or late.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::*;

/// How the kernel's answers are, for as long as this is wanted: see tests/apps/netlink.c.
struct Fault {
    folder: TempDir,
    limit: Vec<String>,
}

impl Fault {
    /// Lasts until it is ended.
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let library = path("netlink.so");
        let source = super::folder("tests/apps/netlink.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-pthread", "-o", &library])
            .arg(source);
        assert!(cc.status().unwrap().success());
        let limit = vec![
            "env".to_owned(),
            format!("LD_PRELOAD={library}"),
            format!("NETLINK_FAULT={name}"),
            format!("NETLINK_FAULT_WHILE={}", path("fault")),
        ];
        let fault = Self { folder, limit };
        fault.begin();
        fault
    }

    fn begin(&self) {
        fs::write(self.folder.path().join("fault"), "").unwrap();
    }

    fn end(&self) {
        fs::remove_file(self.folder.path().join("fault")).unwrap();
    }
}

/// Whether this machine lets a command run so.
fn works(limit: &[&str]) -> bool {
    let mut command = Command::new(limit[0]);
    let tried = command.args(&limit[1..]).arg("true").output();
    tried.is_ok_and(|tried| tried.status.success())
}

/// The status says by what evidence the drain goes.
fn goes_by_time(sidecar: &Sidecar) {
    let status = sidecar.status();
    assert_eq!(
        (&status["routesBy"], &status["arrivals"], &status["cut"]),
        (&"time".into(), &Value::Null, &Value::Null),
        "{status}"
    );
}

/// Without the kernel's table, a drain whose source is a gauge goes by time.
fn a_drain_goes_by_time(limit: &[&str]) {
    let (shop, hook) = Shop::draining(limit, &["--grace-period=120s"]);
    let (verdict, sidecar) = shop.finishes(hook);
    assert_eq!(verdict["arrivals"], Value::Null, "{verdict}");
    goes_by_time(&sidecar);
    wait_for("the warning", || {
        (sidecar
            .said("does not show this container its traffic")
            .len()
            == 1)
            .then_some(())
    });
    ends(sidecar);
}

/// Connections can be counted all the same, by another table; which of them are busy is unknown, for this reason.
fn connections_can_be_counted(limit: &[&str], reason: &str) {
    let (_app, base) = self::shop(0);
    let address: SocketAddr = base["http://".len()..].parse().unwrap();
    for (scheme, result, grace) in [("tcp", "ok", 120), ("tcp-busy", reason, 7)] {
        let source = format!("--inflight={scheme}://:{}", address.port());
        let grace = format!("--grace-period={grace}s");
        let flags = [
            source.as_str(),
            "--min-wait=0s",
            "--quiet-period=200ms",
            &grace,
            "--reserve=3s",
        ];
        let mut client = Client::connect(address);
        client.ask("/hello").unwrap();
        let sidecar = Sidecar::start_under(limit, &flags, &[]);
        wait_for("the first read", || {
            (sidecar.status()["sources"][0]["result"] == result).then_some(())
        });
        let hook = sidecar.hook("/prestop/self");
        if scheme == "tcp" {
            wait_for("the connection to be counted", || {
                (sidecar.status()["sources"][0]["inflight"] == 1).then_some(())
            });
            drop(client);
            assert_eq!(super::verdict(hook)["outcome"], "drained");
        } else {
            is_unknown_at_its_deadline(hook, 4.0);
        }
        ends(sidecar);
    }
}

fn is_unknown_at_its_deadline(hook: JoinHandle<Option<Answer>>, budget: f64) {
    let verdict = super::verdict(hook);
    assert_eq!(
        (&verdict["outcome"], &verdict["inflight"]),
        (&"deadline".into(), &().into()),
        "{verdict}"
    );
    kept(&verdict, budget);
}

#[test]
fn where_netlink_is_refused_time_decides_and_connections_can_still_be_counted() {
    let limit = without("netlink");
    a_drain_goes_by_time(&words(&limit));
    connections_can_be_counted(&words(&limit), "not-permitted");
}

#[test]
fn where_answers_end_too_early_time_decides_and_connections_can_still_be_counted() {
    let fault = Fault::new("short");
    a_drain_goes_by_time(&words(&fault.limit));
    connections_can_be_counted(&words(&fault.limit), "broken");
}

#[test]
fn where_the_kernel_tells_no_bytes_of_connections_none_is_taken_for_idle() {
    let fault = Fault::new("bare");
    connections_can_be_counted(&words(&fault.limit), "broken");
}

#[test]
fn a_first_answer_that_ends_too_early_is_asked_for_again() {
    let fault = Fault::new("short");
    let flags = ["--grace-period=120s", "--log-level=debug"];
    // The fault may last two seconds: longer than it takes to see one bad read, on most machines.
    let (shop, hook) = Shop::draining(&words(&fault.limit), &flags);
    wait_for("a bad read", || {
        (!shop.sidecar.said("could not be read").is_empty()).then_some(())
    });
    fault.end();
    wait_for("the traffic to be watched", || {
        (shop.sidecar.status()["routesBy"] == "connections").then_some(())
    });
    let (verdict, sidecar) = shop.finishes(hook);
    assert_eq!(verdict["arrivals"], 0, "{verdict}");
    ends(sidecar);
}

#[test]
fn answers_that_end_too_early_in_the_middle_of_a_drain_lose_no_arrival() {
    let fault = Fault::new("short");
    fault.end();
    let flags = [
        "--grace-period=120s",
        "--max-quiet=30s",
        "--log-level=debug",
    ];
    let (shop, hook) = Shop::draining(&words(&fault.limit), &flags);
    wait_for("the first look", || {
        shop.sidecar.status()["arrivals"].as_u64()
    });
    fault.begin();
    for _ in 0..5 {
        let answer = ask("GET", &format!("{}/hello", shop.base), &[]).unwrap();
        assert_eq!(answer.status, 200);
    }
    shop.gate.open("a");
    wait_for("several bad reads", || {
        (shop.sidecar.said("the traffic could not be read").len() > 3).then_some(())
    });
    assert!(!hook.is_finished(), "routes may lead here");
    fault.end();
    let (verdict, sidecar) = shop.ends_with(hook);
    assert_eq!(verdict["arrivals"], 5, "{verdict}");
    ends(sidecar);
}

#[test]
fn notices_that_are_cut_short_end_the_watch_and_time_decides() {
    let fault = Fault::new("notices");
    fault.end();
    let (shop, hook) = Shop::draining(&words(&fault.limit), &["--grace-period=120s"]);
    wait_for("the first look", || {
        shop.sidecar.status()["arrivals"].as_u64()
    });
    fault.begin();
    ask("GET", &format!("{}/hello", shop.base), &[]).unwrap();
    let sidecar = &shop.sidecar;
    let said = || sidecar.said("the kernel's notices have ended").len();
    wait_for("the warning", || (said() > 0).then_some(()));
    goes_by_time(sidecar);
    let (verdict, sidecar) = shop.finishes(hook);
    assert_eq!(verdict["arrivals"], Value::Null, "{verdict}");
    assert_eq!(sidecar.said("the kernel's notices have ended").len(), 1);
    goes_by_time(&sidecar);
    ends(sidecar);
}

#[test]
fn a_first_read_of_the_table_that_is_late_is_read_again_and_the_drain_waits_for_it() {
    let fault = Fault::new("late");
    let flags = [
        "--grace-period=120s",
        "--max-quiet=60s",
        "--log-level=debug",
    ];
    let (shop, hook) = Shop::draining(&words(&fault.limit), &flags);
    shop.gate.open("a");
    wait_for("a bad read", || {
        (!shop.sidecar.said("could not be read").is_empty()).then_some(())
    });
    // The work is done, and both times that a drain would go by are over.
    thread::sleep(Duration::from_secs(1));
    assert!(!hook.is_finished(), "routes may lead here");
    fault.end();
    let (verdict, sidecar) = shop.ends_with(hook);
    assert_eq!(verdict["arrivals"], 0, "{verdict}");
    assert_eq!(sidecar.status()["routesBy"], "connections");
    ends(sidecar);
}

#[test]
fn a_table_that_is_late_for_a_whole_drain_leaves_it_to_time_and_keeps_no_deadline_waiting() {
    let fault = Fault::new("late");
    let limit = words(&fault.limit);
    // The ports are read from the same table.
    for ports in ["--app-port=1", "--app-port=auto"] {
        let flags = ["--grace-period=120s", "--max-quiet=1s", ports];
        let (shop, hook) = Shop::draining(&limit, &flags);
        let (verdict, sidecar) = shop.finishes(hook);
        assert_eq!(verdict["arrivals"], Value::Null, "{verdict}");
        kept(&verdict, 20.0);
        goes_by_time(&sidecar);
        assert_eq!(sidecar.said("could not be read in time").len(), 1);
        ends(sidecar);
    }

    let (_app, base) = self::shop(0);
    let source = format!("--inflight=tcp-busy://:{}", port_of(&base));
    let flags = [source.as_str(), "--grace-period=7s", "--reserve=3s"];
    let sidecar = Sidecar::start_under(&limit, &flags, &[]);
    wait_for("the first read", || {
        (sidecar.status()["sources"][0]["result"] == "timeout").then_some(())
    });
    is_unknown_at_its_deadline(sidecar.hook("/prestop/self"), 4.0);
    ends(sidecar);
}

#[test]
fn more_connections_than_the_kernel_can_tell_of_while_the_sidecar_is_frozen_change_no_verdict() {
    let flags = ["--grace-period=120s", "--log-level=debug"];
    let (shop, hook) = Shop::draining(&words(&without("buffers")), &flags);
    wait_for("the first look", || {
        shop.sidecar.status()["arrivals"].as_u64()
    });
    // So many notices take up the default buffer several times over.
    let default = fs::read_to_string("/proc/sys/net/core/rmem_default").unwrap();
    let connections = default.trim().parse::<u64>().unwrap() / 512;
    shop.sidecar.process.signal("STOP");
    let (base, each) = (&shop.base, connections.div_ceil(4));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || {
                for _ in 0..each {
                    let answer = ask("GET", &format!("{base}/hello"), &[]).unwrap();
                    assert_eq!(answer.status, 200);
                }
            });
        }
    });
    shop.sidecar.process.signal("CONT");
    wait_for("what was lost to be known", || {
        let said = shop.sidecar.said("than the kernel could tell of");
        (!said.is_empty()).then_some(())
    });
    let (verdict, sidecar) = shop.finishes(hook);
    let arrivals = verdict["arrivals"].as_u64().unwrap();
    assert!((1..=4 * each + 1).contains(&arrivals), "{verdict}");
    ends(sidecar);
}

#[test]
fn before_5_19_a_connection_that_is_kept_and_idle_keeps_a_drain_for_no_longer_than_max_quiet() {
    // What the kernel says of itself: one reply makes no connection interactive, so that none is looked for.
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (release, threshold) = (of("osrelease", "5.15.0\n"), of("threshold", "3\n"));
    let mounts = format!(
        "mount --bind {release} /proc/sys/kernel/osrelease || exit; \
         to=/proc/sys/net/ipv4/tcp_pingpong_thresh; [ ! -e $to ] || mount --bind {threshold} $to || exit; \
         exec \"$@\""
    );
    let limit = ["unshare", "--mount", "sh", "-c", &mounts, "sh"];
    if !works(&limit) {
        return println!("skipped: nothing may be mounted here; run the test as root");
    }
    let (_app, base) = self::shop(0);
    let address: SocketAddr = base["http://".len()..].parse().unwrap();
    let source = format!("--inflight=tcp-busy://:{}", address.port());
    let flags = [
        source.as_str(),
        "--min-wait=0s",
        "--quiet-period=200ms",
        "--max-quiet=3s",
        "--grace-period=120s",
    ];
    let sidecar = Sidecar::start_under(&limit, &flags, &[]);
    sidecar.wait_for_sources();
    let mut kept: Vec<Client> = (0..20).map(|_| Client::connect(address)).collect();
    for client in &mut kept {
        client.ask("/hello").unwrap();
    }
    let verdict = super::verdict(sidecar.hook("/prestop/self"));
    assert_eq!(verdict["outcome"], "drained", "{verdict}");
    super::kept(&verdict, 3.0);
    ends(sidecar);
}

#[test]
fn in_a_user_namespace_the_kernel_shows_the_traffic_all_the_same() {
    let limit = ["unshare", "--user", "--map-root-user"];
    if !works(&limit) {
        return println!("skipped: no user namespace may be made here");
    }
    let (shop, hook) = Shop::draining(&limit, &["--grace-period=120s"]);
    let (verdict, sidecar) = shop.finishes(hook);
    assert_eq!(verdict["arrivals"], 0, "{verdict}");
    assert_eq!(sidecar.status()["routesBy"], "connections");
    ends(sidecar);
}
