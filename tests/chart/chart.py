#!/usr/bin/env python3
"""chart.py [--update]: checks the chart with Helm, without a cluster; and against one, where KUBECONFIG names it.

--update writes the snapshots anew. What was rendered is left in target/chart/objects.json for tests/chart/types.rs."""

import difflib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HERE = ROOT / "tests/chart"
CHART = ROOT / "charts/gracekeeper"
APP = ROOT / "deploy/examples/app"
EXAMPLES = sorted((ROOT / "deploy/examples").glob("*.yaml"))
BIN = ROOT / "target/test-env/bin"
BINARY = ROOT / "target/debug/gracekeeper"
TOKEN = "0123456789abcdef"
PATIENCE = 120
MONITORING = [f"--set=metrics.{part}.enabled=true" for part in ("podMonitor", "prometheusRule", "dashboard")]

POLICY = "--api-versions=admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"
INJECTION = ["--set=injection.enabled=true", "--set=injection.serviceAccounts={shop/default}", POLICY]

# What is wrong, and what Helm has to say to it. First what the schema refuses, then what only a template can.
WRONG = [
    ("grace=30", "additional properties 'grace' not allowed"),
    ("minWait=5", "at '/minWait': got number, want string"),
    ("minWait=5sec", "at '/minWait': '5sec' does not match pattern"),
    ("quietPeriod=-1s", "at '/quietPeriod': '-1s' does not match pattern"),
    ("terminationGracePeriodSeconds=30s", "at '/terminationGracePeriodSeconds': got string, want integer"),
    ("terminationGracePeriodSeconds=0", "at '/terminationGracePeriodSeconds': minimum: got 0, want 1"),
    ("port=99999", "at '/port': maximum: got 99,999, want 65,535"),
    ("appPorts[0]=http", "at '/appPorts/0': got string, want integer"),
    ("inflight[0]=127.0.0.1:8000", "at '/inflight/0': '127.0.0.1:8000' does not match pattern"),
    ("requests[0]=http_requests_total", "at '/requests/0': 'http_requests_total' does not match pattern"),
    ("appShutdown=polite", "at '/appShutdown': value must be one of 'abrupt', 'graceful'"),
    ("whenStuck=never", "at '/whenStuck': value must be one of '', 'wait', 'end'"),
    ("maxInflight=-1", "at '/maxInflight': minimum: got -1, want 0"),
    ("readiness=later", "at '/readiness': 'later' does not match pattern"),
    ("whenBlind=window", "at '/whenBlind': 'window' does not match pattern"),
    ("appReady=ready", "at '/appReady': 'ready' does not match pattern"),
    ("notify[0]=drain", "at '/notify/0': 'drain' does not match pattern"),
    ("drainFile=draining", "at '/drainFile': 'draining' does not match pattern"),
    ("kube=maybe", "at '/kube': value must be one of 'auto', 'off'"),
    ("services[0]=Shop", "at '/services/0': 'Shop' does not match pattern"),
    ("log.level=loud", "at '/log/level': value must be one of 'error', 'warn', 'info', 'debug', 'trace'"),
    ("token.value=short", "at '/token/value': 'short' does not match pattern"),
    ("token.enabled=never", "at '/token/enabled': got string, want boolean"),
    ("image.repository=gracekeeper:1", "at '/image/repository': 'gracekeeper:1' does not match pattern"),
    ("image.digest=latest", "at '/image/digest': 'latest' does not match pattern"),
    ("image.pullPolicy=Sometimes", "at '/image/pullPolicy': value must be one of"),
    ("resources.request.cpu=1", "at '/resources': additional properties 'request' not allowed"),
    ("rbac.serviceAccounts=default", "at '/rbac/serviceAccounts': got string, want array"),
    ("check.policy.on=true", "at '/check/policy': additional properties 'on' not allowed"),
    ("metrics.podMonitor.on=true", "at '/metrics/podMonitor': additional properties 'on' not allowed"),
    ("terminationGracePeriodSeconds=10", "minWait 5s and reserve 5s leave no time for requests in terminationGracePeriodSeconds 10;"),
    ("minWait=1m30s", "minWait 1m30s and reserve 5s leave no time for requests in terminationGracePeriodSeconds 30;"),
    ("timeout=5s", "timeout 5s is not longer than minWait 5s"),
    ("kube=off,services[0]=shop", "services shop: their EndpointSlices are in the Kubernetes API, but kube is off; write kube: auto"),
    ("drainFile=/run/app/draining", "drainFile /run/app/draining: the sidecar's root is read-only; name in volumeMounts"),
    ("injection.enabled=true", "has no MutatingAdmissionPolicy of admissionregistration.k8s.io/v1, which came with Kubernetes 1.36;"),
    ("injection.mode=both", "at '/injection/mode': value must be one of 'sidecar', 'hook'"),
    ("injection.securityContext.runAsUser=0", "at '/injection/securityContext/runAsUser': minimum: got 0, want 1"),
    ("injection.serviceAccounts[0]=default", "at '/injection/serviceAccounts/0': 'default' does not match pattern"),
    ("appPorts=null", "appPorts and inflight are both empty, so there is nothing to watch;"),
]

failures = []


def check(what, holds, why=""):
    print(("ok    " if holds else "FAILS ") + what)
    if not holds:
        failures.append(what)
        print(why)


def run(*words, **more):
    return subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=PATIENCE, **more)


def helm(*words, **more):
    return run(BIN / "helm", *words, **more)


def render(*words):
    done = helm("template", *words)
    if done.returncode != 0:
        sys.exit(f"helm template {' '.join(map(str, words))}: {done.stderr}")
    return done.stdout


def objects(text):
    return [o for o in yaml.safe_load_all(text) if o]


def pods(them):
    """The specs of all pods, with the names of what they are in."""
    for o in them:
        spec = o["spec"] if o["kind"] == "Pod" else o.get("spec", {}).get("template", {}).get("spec")
        if spec and "containers" in spec:
            yield o["metadata"]["name"], spec


def ours(spec):
    return [c for c in spec.get("initContainers", []) + spec["containers"] if c["name"] == "gracekeeper"]


def lint():
    done = helm("lint", "--strict", CHART)
    check("helm lint --strict: the chart", done.returncode == 0, done.stdout + done.stderr)
    for values in EXAMPLES:
        done = helm("lint", "--strict", APP, "-f", values)
        check(f"helm lint --strict: {values.name}", done.returncode == 0, done.stdout + done.stderr)


def wrong():
    for setting, message in WRONG:
        done = helm("template", "r", CHART, "--set", setting)
        check(f"refused: {setting}", done.returncode != 0 and message in done.stderr, done.stderr)
    for setting, message in {
        "minwait=5s": "injection.defaults.minwait is no setting; those that are: inflight,",
        "min-wait=5": 'injection.defaults.min-wait "5": write 5s, 1m30s or 250ms',
        "token=mine": "injection.defaults.token is no setting;",
    }.items():
        done = helm("template", "r", CHART, *INJECTION, "--set", f"injection.defaults.{setting}")
        check(f"refused: injection.defaults.{setting}", done.returncode != 0 and message in done.stderr, done.stderr)
    done = helm("template", "r", APP, "--set", "gracekeeper.minWait=5")
    check("refused in an app's chart too", "at '/minWait': got number, want string" in done.stderr, done.stderr)
    done = helm("template", "r", APP, "--kube-version", "1.28.0")
    check("native sidecars are refused before 1.29", "native sidecars need Kubernetes 1.29, and this is v1.28.0; include "
          "gracekeeper.sidecar.ordinary" in done.stderr, done.stderr)


def snapshots(update):
    for name, words in {
        "defaults": ["shop", CHART],
        "check-policy": ["shop", CHART, "-s", "templates/check.yaml", "--set=check.policy.enabled=true",
                         "--set-json=check.policy.namespaceSelector={\"matchLabels\":{\"team\":\"shop\"}}"],
        "injection": ["shop", CHART, *INJECTION, f"--set=token.value={TOKEN}"],
        "app": ["shop", APP, "--no-hooks", f"--set=gracekeeper.token.value={TOKEN}"],
    }.items():
        now, path = render(*words), HERE / "snapshots" / f"{name}.yaml"
        if update:
            path.write_text(now)
        before = path.read_text()
        difference = "\n".join(difflib.unified_diff(before.splitlines(), now.splitlines(), "snapshot", "now", lineterm=""))
        check(f"snapshot {name}", not difference, difference + "\nif this is meant: tests/chart/chart.py --update")


def manifests():
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, ROOT / "deploy/render", folder], check=True)
        for path in sorted(pathlib.Path(folder).rglob("*.yaml")):
            name = path.relative_to(folder)
            there = ROOT / "deploy" / name
            check(f"deploy/{name} is what the chart renders",
                  there.exists() and there.read_text() == path.read_text(), "run make manifests")


def token():
    for name, chart in {"the chart": CHART, "an app's chart": APP}.items():
        check(f"without a cluster {name} renders the same each time", render("r", chart) == render("r", chart))
        check(f"and has no Secret: {name}", all(o["kind"] != "Secret" for o in objects(render("r", chart))))
    text = render("r", APP, "--no-hooks", f"--set=gracekeeper.token.value={TOKEN}")
    [spec] = [spec for _, spec in pods(objects(text))]
    [sidecar], [app] = ours(spec), spec["containers"]
    header = [{"name": "X-Gracekeeper-Token", "value": TOKEN}]
    check("one token in the sidecar, its hook and the app's",
          {"name": "GRACEKEEPER_TOKEN", "value": TOKEN} in sidecar["env"]
          and all(c["lifecycle"]["preStop"]["httpGet"]["httpHeaders"] == header for c in (sidecar, app)), text)


def variants(folder):
    """A chart that includes what the example does not: the ordinary sidecar, another workload's values, the node's network."""
    chart = folder / "variants"
    (chart / "templates").mkdir(parents=True)
    (chart / "charts").mkdir()
    (chart / "charts/gracekeeper").symlink_to(CHART)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: variants\nversion: 0.1.0\n"
                                      "dependencies: [{ name: gracekeeper, version: 0.1.0 }]\n")
    (chart / "values.yaml").write_text(
        "gracekeeper: { hostNetwork: true, port: 9904, exitWithApp: true, services: [shop], timeout: 20s,"
        " inflight: ['text+http://127.0.0.1:8000/$(HOME)'], metrics: { annotations: true } }\n")
    (chart / "templates/pods.yaml").write_text("""
{{- $worker := dict "context" . "values" (dict "appPorts" (list 9000) "terminationGracePeriodSeconds" 120 "hostNetwork" false
  "appShutdown" "graceful" "whenStuck" "end" "requests" (list "text+http://127.0.0.1:9000/total")) }}
apiVersion: v1
kind: Pod
metadata:
  name: ordinary
  annotations:
    {{- include "gracekeeper.podAnnotations" . | nindent 4 }}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: {{ include "gracekeeper.terminationGracePeriodSeconds" . }}
  containers:
    {{- include "gracekeeper.sidecar.ordinary" . | nindent 4 }}
    - name: app
      image: shop
      lifecycle:
        {{- include "gracekeeper.preStop" . | nindent 8 }}
---
apiVersion: v1
kind: Pod
metadata: { name: worker }
spec:
  terminationGracePeriodSeconds: {{ include "gracekeeper.terminationGracePeriodSeconds" $worker }}
  initContainers:
    {{- include "gracekeeper.sidecar" $worker | nindent 4 }}
  containers:
    - name: app
      image: worker
      lifecycle:
        {{- include "gracekeeper.preStop" $worker | nindent 8 }}
""")
    return render("r", chart, "--no-hooks")


def variant_pods(them):
    by_name = dict(pods(them))
    ordinary, worker = by_name["ordinary"], by_name["worker"]
    [sidecar], [native] = ours(ordinary), ours(worker)
    hook = ordinary["containers"][1]["lifecycle"]["preStop"]["httpGet"]
    check("the node's network: the hook calls 127.0.0.1 and a port of its own", (hook["host"], hook["port"]) == ("127.0.0.1", 9904))
    check("an ordinary sidecar ends with its app where asked to",
          "restartPolicy" not in sidecar and "--exit-with-app" in sidecar["args"] and "--listen=127.0.0.1:9904" in sidecar["args"]
          and sidecar["readinessProbe"]["httpGet"]["host"] == "127.0.0.1")
    check("the kubelet expands nothing in a source", "--inflight=text+http://127.0.0.1:8000/$$(HOME)" in sidecar["args"])
    check("a native one does not need to", native["restartPolicy"] == "Always" and "--exit-with-app" not in native["args"])
    check("another workload has its own values, and the rest of ours",
          worker["terminationGracePeriodSeconds"] == 120 and "--grace-period=120s" in native["args"]
          and "--app-port=9000" in native["args"] and "--timeout=20s" in native["args"])
    check("an app that finishes its work needs no reserve",
          {"--app-shutdown=graceful", "--when-stuck=end", "--requests=text+http://127.0.0.1:9000/total"} <= set(native["args"])
          and not any(word.startswith("--reserve") for word in native["args"]), native["args"])
    check("and one that does not has it", "--reserve=5s" in sidecar["args"] and "--app-shutdown=abrupt" not in sidecar["args"])
    [pod] = [o for o in them if o["metadata"]["name"] == "ordinary"]
    check("annotations for those who scrape by them", pod["metadata"]["annotations"]["prometheus.io/port"] == "9904")
    [role] = [o for o in them if o["kind"] == "Role"]
    check("endpoint slices may be read where Services are named", role["rules"][2]["resources"] == ["endpointslices"])


def every_pod(them):
    want = {"runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}
    sidecars = [(name, spec, c) for name, spec in pods(them) for c in ours(spec)]
    for name, spec, c in sidecars:
        check(f"locked down and small: {name}", c["securityContext"] == want and c["resources"] == {
            "requests": {"cpu": "5m", "memory": "8Mi"}, "limits": {"memory": "32Mi"}}, c)
    return [c for _, _, c in sidecars]


def starts(container, folder):
    """Whether the binary serves as this container; folder is where its volume would be."""
    env = {e["name"]: e["value"] for e in container["env"] if "value" in e} | {"GRACEKEEPER_LISTEN": "127.0.0.1:0"}
    words = [w.replace("$$(", "$(") for w in container["args"] if not w.startswith("--listen=")]
    words = [f"--drain-file={folder}/draining" if w.startswith("--drain-file=") else w for w in words]
    process = subprocess.Popen([BINARY, *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    giving_up = threading.Timer(60, process.kill)
    giving_up.start()
    said = ""
    for line in process.stdout:
        said += line
        if "serving" in line:
            break
    giving_up.cancel()
    process.kill()
    process.wait()
    return "serving" in said, said


def documented():
    """Every value is in the README's table, and nothing else."""
    def leaves(tree, path=""):
        for key, value in tree.items():
            if isinstance(value, dict) and value and key not in ("labels", "requests", "limits"):
                yield from leaves(value, f"{path}{key}.")
            else:
                yield path + key
    there = set(re.findall(r"^\| `([a-z][A-Za-z.]+)` \|", (CHART / "README.md").read_text(), re.M))
    values = set(leaves(yaml.safe_load((CHART / "values.yaml").read_text())))
    check("the README's table has every value", there == values, f"{there ^ values}")


def kustomize():
    done = run(BIN / "kubectl", "kustomize", ROOT / "deploy/examples/kustomize")
    check("kubectl kustomize", done.returncode == 0, done.stderr)
    them = objects(done.stdout)
    [(_, spec)] = pods(them)
    [sidecar] = ours(spec)
    env = {e["name"]: e.get("value") for e in sidecar["env"]}
    check("kustomize: the app's port and grace period", (env["GRACEKEEPER_APP_PORT"], env["GRACEKEEPER_GRACE_PERIOD"]) == ("8000", "60s"))
    check("kustomize: the app's hook", spec["containers"][0]["lifecycle"]["preStop"]["httpGet"]["path"] == "/prestop/app")
    check("kustomize: the monitoring", run(BIN / "kubectl", "kustomize", ROOT / "deploy/monitoring").returncode == 0)
    return them


def cluster(them):
    """The API server's own opinion, and a release's life in a namespace that admits what is restricted alone."""
    kubectl = lambda *words, **more: run(BIN / "kubectl", *words, **more)
    name = f"gracekeeper-chart-{os.getpid()}"
    subprocess.run([BIN / "kubectl", "create", "namespace", name], check=True, stdout=subprocess.DEVNULL)
    try:
        subprocess.run([BIN / "kubectl", "label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted"],
                       check=True, stdout=subprocess.DEVNULL)
        account = ("get", "serviceaccount", "default", "-n", name)
        until = time.monotonic() + 60
        while kubectl(*account).returncode != 0 and time.monotonic() < until:
            time.sleep(0.2)
        asked = []
        for o in them:
            if o["kind"] in ("PodMonitor", "PrometheusRule") or (o["kind"] == "Pod" and o["spec"].get("hostNetwork")):
                continue
            o = json.loads(json.dumps(o))
            o["metadata"]["namespace"] = name
            asked.append(o)
        # An example's pod is admitted as a pod; what the app itself may do is its image's business.
        for workload, spec in list(pods(asked)):
            spec = {k: v for k, v in spec.items() if k != "serviceAccountName"} | {"restartPolicy": spec.get("restartPolicy", "Always")}
            for c in spec["containers"]:
                c["securityContext"] = ours(spec)[0]["securityContext"]
            asked.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{workload}-pod", "namespace": name}, "spec": spec})
        done = [(o, kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", input=json.dumps(o))) for o in asked
                if not (o["kind"] == "Pod" and "serviceAccountName" in o["spec"])]
        bad = [f"{o['kind']} {o['metadata']['name']}: {d.stderr}" for o, d in done if d.returncode != 0]
        check(f"the API server takes all {len(done)} objects, the pods as restricted ones", not bad, "\n".join(bad))
        life(kubectl, name)
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


def life(kubectl, name):
    """Installed, upgraded, taken away. No pod needs to run for that."""
    def revision(*words):
        done = helm(*words, "shop", APP, "-n", name, "--set=replicas=0")
        check(f"helm {words[0]}", done.returncode == 0, done.stderr)
        got = kubectl("get", "deployment,secret", "-n", name, "-o", "json")
        them = {o["kind"]: o for o in json.loads(got.stdout)["items"] if o["metadata"]["name"] in ("shop", "shop-gracekeeper")}
        return them["Deployment"]["metadata"]["generation"], them["Deployment"]["spec"]["template"], them["Secret"]["data"]
    first = revision("install")
    check("one token, made once", len(first[2]["token"]) > 40)
    check("an upgrade keeps it and restarts nothing", revision("upgrade", "--set=gracekeeper.rbac.serviceAccounts={default}") == first)
    done = helm("uninstall", "shop", "-n", name, "--wait")
    left = kubectl("get", "all,secrets,serviceaccounts,roles,rolebindings,configmaps", "-n", name, "-o", "name").stdout.split()
    left = [o for o in left if o != "serviceaccount/default" and not o.endswith(".crt")]
    check("helm uninstall leaves nothing", done.returncode == 0 and not left, f"{done.stderr} {left}")


def main():
    helm("dependency", "build", APP, check=True)
    lint()
    wrong()
    token()
    manifests()
    snapshots("--update" in sys.argv)
    documented()
    them = objects(render("all", CHART, f"--set=token.value={TOKEN}", *MONITORING))
    check("the monitoring is there", {"PodMonitor", "PrometheusRule", "ConfigMap"} <= {o["kind"] for o in them})
    for values in EXAMPLES:
        them += objects(render(values.stem, APP, "--no-hooks", "-f", values, f"--set=gracekeeper.token.value={TOKEN}"))
    with tempfile.TemporaryDirectory() as folder:
        others = objects(variants(pathlib.Path(folder)))
    variant_pods(others)
    them += others + kustomize()
    with tempfile.TemporaryDirectory() as folder:
        for container in every_pod(them):
            serves, said = starts(container, folder)
            check(f"the binary serves with {' '.join(container['args'][1:4])} ...", serves, said)
    injection = objects(render("injection", CHART, "--no-hooks", *INJECTION, f"--set=token.value={TOKEN}"))
    check("injection: one policy, one that warns, and their bindings", [o["kind"] for o in injection].count(
        "MutatingAdmissionPolicyBinding") == 4 and "ValidatingAdmissionPolicy" in {o["kind"] for o in injection})
    (ROOT / "target/chart").mkdir(parents=True, exist_ok=True)
    (ROOT / "target/chart/objects.json").write_text(json.dumps(them + injection, indent=1))
    if "KUBECONFIG" in os.environ:
        cluster(them)
    else:
        print("skipped: the API server's opinion, since KUBECONFIG names no cluster")
    if failures:
        sys.exit(f"{len(failures)} of the chart's checks fail: " + "; ".join(failures))


main()
