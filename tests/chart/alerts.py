#!/usr/bin/env python3
"""alerts.py BINARY: a real Prometheus scrapes real sidecars in every kind of trouble. Each alert must fire for the one that
is in it, and for no other; every panel of the dashboard must show something."""

import contextlib
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FILES = ROOT / "charts/gracekeeper/files"
PROMETHEUS = ROOT / "target/test-env/prometheus/usr/bin"
WANTED = {
    ("GracekeeperDrainNearDeadline", "busy"),
    ("GracekeeperDrainDeadline", "busy"),
    ("GracekeeperRequestsCut", "busy"),
    ("GracekeeperDrainBlind", "blind"),
    ("GracekeeperSourceUnreadable", "unreadable"),
}
PATIENCE = 120

running = contextlib.ExitStack()


def start(words, ready):
    """A process, and what it said once it was ready."""
    process = subprocess.Popen([str(w) for w in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    running.callback(process.wait)
    running.callback(process.send_signal, signal.SIGKILL)
    said = ""
    for line in process.stdout:
        said += line
        found = re.search(ready, line)
        if found:
            # What it says from now on must not fill the pipe.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return found[1]
    sys.exit(f"{words[0]} did not start: {said}")


def sidecar(binary, *flags):
    return start([binary, "run", "--listen=127.0.0.1:0", "--kube=off", "--min-wait=0s", "--termination-log=/dev/null", *flags],
                 r"address=(127\.0\.0\.1:\d+)")


def app():
    """An app that was asked and never answers: its port, and how to drop the clients that wait."""
    listener = running.enter_context(socket.create_server(("127.0.0.1", 0)))
    port = listener.getsockname()[1]
    client = running.enter_context(socket.create_connection(("127.0.0.1", port)))
    served, _ = listener.accept()
    running.enter_context(served)
    client.sendall(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")

    def drop():
        # Closed with the request unread, so it is a reset, as where a process dies.
        served.close()
    return port, drop


def ask(where, path, method="GET"):
    with urllib.request.urlopen(urllib.request.Request(f"http://{where}{path}", method=method), timeout=PATIENCE) as answer:
        return json.load(answer)


def rules(folder):
    """The chart's alerts, with a second instead of minutes to wait."""
    text = (FILES / "alerts.yaml").read_text()
    groups = yaml.safe_load(text)
    shortened = 0
    for rule in groups["groups"][0]["rules"]:
        if "for" in rule:
            rule["for"], shortened = "1s", shortened + 1
    assert shortened == 1, "the alert on sources waits, and no other"
    names = {rule["alert"] for rule in groups["groups"][0]["rules"]}
    assert names == {name for name, _ in WANTED}, f"each alert is tried: {names}"
    path = folder / "alerts.yaml"
    path.write_text(yaml.safe_dump(groups))
    return path


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def prometheus(folder, sidecars):
    config = {
        "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "250ms"},
        "rule_files": [str(rules(folder))],
        "scrape_configs": [{"job_name": job, "static_configs": [{"targets": [where], "labels": {"namespace": "shop"}}]}
                           for job, where in sidecars.items()],
    }
    (folder / "prometheus.yaml").write_text(json.dumps(config))
    port = free_port()
    start([PROMETHEUS / "prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data",
           f"--web.listen-address=127.0.0.1:{port}"], r"(Server is ready to receive web requests)")
    return f"127.0.0.1:{port}"


def until(what, holds):
    """The first answer that holds; waits for the condition, not for a time."""
    end = time.monotonic() + PATIENCE
    while True:
        answer, good = holds()
        if good:
            return answer
        if time.monotonic() > end:
            sys.exit(f"FAILS {what}: {answer}")
        time.sleep(0.1)


def query(where, expression):
    try:
        answer = ask(where, "/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
    except urllib.error.HTTPError as e:
        sys.exit(f"FAILS {expression}: {e.read().decode()}")
    return answer["data"]["result"]


def dashboard(where):
    board = json.loads((FILES / "dashboard.json").read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in {"$namespace": "shop", "$__rate_interval": "1m", "$__range": "10m"}.items():
                expression = expression.replace(name, value)
            assert "$" not in expression, expression

            def shows():
                result = query(where, expression)
                return result, any(float(r["value"][1]) == float(r["value"][1]) for r in result)
            until(f"the panel {panel['title']!r}: {expression}", shows)
            print(f"ok    the panel {panel['title']!r} shows {len(shows()[0])} series")


def main():
    binary = sys.argv[1]
    if not (PROMETHEUS / "promtool").exists():
        print("skipped: no Prometheus; tests/setup unpacks Debian's")
        return
    subprocess.run([PROMETHEUS / "promtool", "check", "rules", FILES / "alerts.yaml"], check=True)
    nobody = f"text+http://127.0.0.1:{free_port()}/"
    (busy_port, drop), (long_port, _), (quiet_port, _) = app(), app(), app()
    sidecars = {
        # Its drain ends at the deadline, and then the app drops the clients that wait.
        "busy": sidecar(binary, f"--app-port={busy_port}", "--grace-period=20s", "--reserve=5s"),
        # Drains, and has all the time it needs.
        "long": sidecar(binary, f"--app-port={long_port}", "--grace-period=1h"),
        "blind": sidecar(binary, f"--inflight={nobody}", "--grace-period=1h"),
        "unreadable": sidecar(binary, f"--inflight={nobody}"),
        "quiet": sidecar(binary, f"--app-port={quiet_port}"),
    }
    for job in ("long", "blind"):
        ask(sidecars[job], "/drain", "POST")
    folder = pathlib.Path(running.enter_context(tempfile.TemporaryDirectory()))
    where = prometheus(folder, sidecars)
    # A counter that is not 0 when it is first seen has not increased.
    until("every sidecar is scraped", lambda: (
        seen := {r["metric"]["job"] for r in query(where, "gracekeeper_requests_cut_total")}, seen == set(sidecars)))

    fired = set()

    def alerts():
        for alert in ask(where, "/api/v1/alerts")["data"]["alerts"]:
            if alert["state"] == "firing":
                fired.add((alert["labels"]["alertname"], alert["labels"]["job"]))
        return fired, WANTED <= fired

    verdict = {}
    hook = threading.Thread(target=lambda: verdict.update(ask(sidecars["busy"], "/prestop/app")), daemon=True)
    hook.start()
    while hook.is_alive():
        alerts()
        hook.join(0.1)
    if verdict.get("outcome") != "deadline":
        sys.exit(f"FAILS a drain with a request that is never answered: {verdict}")
    drop()
    until("each alert fires", alerts)
    if fired != WANTED:
        sys.exit(f"FAILS alerts fired that should not: {sorted(fired - WANTED)}")
    for alert, job in sorted(fired):
        print(f"ok    {alert} fires for {job} alone")
    dashboard(where)


with running:
    main()
