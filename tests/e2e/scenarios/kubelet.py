"""What the rules of `gracekeeper check` say of the kubelet and the API server, where it surprises: seen on this cluster."""

import datetime
import json
import shutil

import image
import shop
from cluster import Skipped, wait_for
from scenarios import scenario
from scenarios.injection import node_network

# How long a hook holds its container here. What has ended before half of it was not held.
HELD = 20  # seconds


def holding(**more):
    """A hook over HTTP that is answered when so much time has passed."""
    return {"preStop": {"httpGet": {"path": f"/livez?ms={HELD * 1000}", "port": shop.PORT} | more}}


def sleeping(seconds):
    """An exec hook that takes so long."""
    return {"preStop": {"exec": {"command": ["/shop", "sleep", f"{seconds}s"]}}}


def rude(ns, lifecycle=None, **more):
    """A container whose app ends the moment SIGTERM comes."""
    return shop.app(ns.images, rude=True, **more) | ({"lifecycle": lifecycle} if lifecycle else {})


def ready(ns, specs):
    """Makes a pod of each spec, and returns them by name once all are ready."""
    for name, spec in specs.items():
        ns.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "shop"}}, "spec": spec})
    ns.kubectl("wait", *(f"pod/{name}" for name in specs), "--for=condition=Ready", "--timeout=120s")
    return {pod.name: pod for pod in ns.pods.there()}


def deleted(ns, result, specs, *flags):
    """Makes a pod of each spec, deletes them all, and returns them by name once they are gone."""
    pods = ready(ns, specs)
    ns.kubectl("delete", "pod", *specs, "--wait=false", *flags)
    ns.pods.all_gone(pods.values(), 120)
    result.pods += pods.values()
    return pods


def moment(text):
    return datetime.datetime.fromisoformat(text).timestamp()


def held(pod, container="shop"):
    """Seconds from a pod's deletion to the end of a container, by the cluster's clock. The API shows whole seconds."""
    status = next(status for status in pod.containers() if status["name"] == container)
    ended = status["state"].get("terminated")
    assert ended, f"{container} of {pod.name} has not ended: {status}"
    # The timestamp is the deadline.
    asked = moment(pod.metadata_then["deletionTimestamp"]) - pod.metadata_then["deletionGracePeriodSeconds"]
    return moment(ended["finishedAt"]) - asked


def failed_hooks(ns):
    """The pods of which the kubelet said that a hook failed."""
    events = ns.get("events", "--field-selector=reason=FailedPreStopHook")["items"]
    return {event["involvedObject"]["name"] for event in events}


@scenario("kubelet: which hooks fail, and hold nothing (GK008 to GK011, GK020)")
def failing_hooks(cluster, result):
    with cluster.namespace("kubelet-hooks", result) as ns:
        node_network(ns)
        named = lambda **more: rude(ns, **more) | {"ports": [{"name": more.get("name", "shop"), "containerPort": more["port"]}]}
        other = named(port=8001, name="other")
        host = {"hostNetwork": True}
        specs = {
            "control": shop.pod([rude(ns, holding())]),
            "own-name": shop.pod([named(port=shop.PORT) | {"lifecycle": holding(port="shop")}]),
            "name-of-another": shop.pod([rude(ns, holding(port="other")), other | {"lifecycle": holding(port=8001)}]),
            "closed-port": shop.pod([rude(ns, holding(port=8009))]),
            "host-without-host": shop.pod([rude(ns, holding(port=18427), port=18427)], **host),
            "host-with-host": shop.pod([rude(ns, holding(port=18428, host="127.0.0.1"), port=18428)], **host),
            "no-program": shop.pod([rude(ns, {"preStop": {"exec": {"command": ["sh", "-c", f"sleep {HELD}"]}}})]),
            "refused": shop.pod([rude(ns, {"preStop": {"httpGet": {"path": "/no-such-page", "port": shop.PORT}}})]),
        }
        pods = deleted(ns, result, specs)
        seconds = {name: held(pod) for name, pod in pods.items()}
        holds = {name for name, time in seconds.items() if time >= HELD - 1}
        assert holds == {"control", "own-name", "host-with-host"}, seconds
        assert all(seconds[name] < HELD / 2 for name in specs if name not in holds), seconds
        # A status is never looked at, so such a hook has not failed.
        failed = {"name-of-another", "closed-port", "host-without-host", "no-program"}
        wait_for("the Events of all hooks that failed", lambda: failed_hooks(ns) == failed, 20)
        result.note = f"held for {seconds}"


@scenario("kubelet: a grace period that the hook uses up, and one of 0 (GK003, GK005)")
def short_grace(cluster, result):
    with cluster.namespace("kubelet-grace", result) as ns:
        beyond, = deleted(ns, result, {"beyond": shop.pod([rude(ns, sleeping(60))], grace=5)}).values()
        # The hook is cut short, and SIGTERM comes.
        assert 4 <= held(beyond) < 30, held(beyond)
        # The object goes at once, though the hook is not over: what is left of the pod is seen by no client of the API.
        none, = deleted(ns, result, {"none": shop.pod([rude(ns, sleeping(HELD))], grace=0)}).values()
        seen = none.gone - (none.deleted or none.gone)
        assert seen < HELD / 2, f"gone after {seen:.1f} s"
        result.note = f"cut short after {held(beyond):.0f} s; with 0 the object was gone after {seen:.1f} s"


@scenario("kubelet: an ordinary sidecar gets SIGTERM at once, a native one after the app (GK018)")
def order(cluster, result):
    with cluster.namespace("kubelet-order", result) as ns:
        beside = lambda **more: rude(ns, port=8001, name="beside") | more
        pods = deleted(ns, result, {
            "ordinary": shop.pod([rude(ns, holding()), beside()]),
            "native": shop.pod([rude(ns, holding())], [beside(restartPolicy="Always")]),
        })
        ends = {name: (held(pod, "beside"), held(pod)) for name, pod in pods.items()}
        sidecar, app = ends["ordinary"]
        assert sidecar < HELD / 2 and app >= HELD - 1, ends
        sidecar, app = ends["native"]
        assert sidecar >= app >= HELD - 1, ends
        result.note = f"sidecar and app ended after {ends}"


@scenario("kubelet: a liveness probe's own grace period cuts the hook short (GK027)")
def probe_grace(cluster, result):
    with cluster.namespace("kubelet-liveness", result) as ns:
        probe = {"httpGet": {"path": "/livez", "port": shop.PORT}, "periodSeconds": 1, "failureThreshold": 3}
        app = rude(ns, sleeping(HELD * 2))
        pods = ready(ns, {
            "own": shop.pod([app | {"livenessProbe": probe | {"terminationGracePeriodSeconds": 3}}]),
            "pods": shop.pod([app | {"livenessProbe": probe}]),
        })
        for name in pods:
            ns.ask(name, "POST", f"http://127.0.0.1:{shop.PORT}/sick")
        again = lambda name: pods[name].containers()[0]["restartCount"] == 1
        wait_for("the restart of the one with 3 s", lambda: again("own"), HELD)
        assert not again("pods"), "the hook was cut short with the pod's grace period too"
        wait_for("the restart of the other", lambda: again("pods"), HELD * 3)
        result.pods = list(pods.values())


@scenario("kubelet: a liveness probe at the sidecar's /readyz ends a drain by hand (GK026)")
def liveness_at_readiness(cluster, result):
    with cluster.namespace("kubelet-readyz", result) as ns:
        parts = shop.keeper(ns.images, appPorts=[shop.PORT], inflight=[shop.METRIC])
        probe = {"periodSeconds": 1, "failureThreshold": 3}
        asks = lambda path: parts["sidecar"] | {"livenessProbe": probe | {"httpGet": {"path": path, "port": 9903}}}
        app = rude(ns, parts["hook"])
        pods = ready(ns, {path.strip("/"): shop.pod([app], [asks(path)]) for path in ("/readyz", "/livez")})
        for name in pods:
            status, _ = ns.ask(name, "POST", "http://127.0.0.1:9903/drain", f"Authorization: Bearer {shop.TOKEN}")
            assert status == 202, status
        again = lambda name: next(one["restartCount"] for one in pods[name].containers() if one["name"] == "gracekeeper")
        wait_for("the sidecar to be killed in its drain", lambda: again("readyz") > 0, 60)
        assert again("livez") == 0, "/livez fails while the pod drains"
        result.pods = list(pods.values())


@scenario("kubelet: a shell as the first process keeps SIGTERM from the app (GK015)")
def shell(cluster, result):
    dash = shutil.which("dash")
    if not dash:
        raise Skipped("there is no dash on this machine to make an image of")
    with cluster.namespace("kubelet-shell", result) as ns:
        made = image.load_program("dash", dash, [(cluster.binaries["shop"], "shop")])
        serve = f"/shop serve --rude --port={shop.PORT}"
        runs = lambda script: rude(ns) | {"image": made, "command": ["/dash", "-c", script], "args": []}
        specs = {"plain": shop.pod([runs(serve)], grace=HELD), "exec": shop.pod([runs(f"exec {serve}")], grace=HELD)}
        pods = deleted(ns, result, specs)
        seconds = {name: held(pod) for name, pod in pods.items()}
        assert seconds["plain"] >= HELD - 1 and seconds["exec"] < HELD / 2, seconds
        result.note = f"ended after {seconds}"


@scenario("API server: two actions in a hook, pods that are not ready, evictions that no budget allows (GK013, GK031, GK032)")
def api_server(cluster, result):
    with cluster.namespace("kubelet-api", result) as ns:
        both = {"preStop": holding()["preStop"] | {"sleep": {"seconds": 5}}}
        two = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "two"}, "spec": shop.pod([rude(ns, both)])}
        try:
            ns.apply(two)
        except AssertionError as why:
            assert "may not specify more than 1 handler type" in str(why), why
        else:
            raise AssertionError("a hook with two actions was taken")

        published = shop.service() | {"metadata": {"name": "published"}}
        published["spec"]["publishNotReadyAddresses"] = True
        budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "none"},
                  "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "shop"}}}}
        ns.apply(shop.service(), published, budget)
        pods = ready(ns, {"shop": shop.pod([rude(ns)])})
        wait_for("the budget to be known",
                 lambda: ns.get("pdb", "none").get("status", {}).get("observedGeneration") == 1)
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "shop", "namespace": ns.name}}
        try:
            ns.kubectl("create", "--raw", f"/api/v1/namespaces/{ns.name}/pods/shop/eviction", "--filename=-",
                       stdin=json.dumps(eviction))
        except AssertionError as why:
            assert "disruption budget" in str(why), why
        else:
            raise AssertionError("a pod was evicted that its budget protects")

        ns.ask("shop", "POST", f"http://127.0.0.1:{shop.PORT}/sick")
        wait_for("the pod to be unready", lambda: not pods["shop"].ready)
        wait_for("the Service without it to have it no more", lambda: endpoint(ns, "shop") is False, 20)
        assert endpoint(ns, "published") is True, "a Service that publishes not-ready addresses has it as not ready"
        result.pods = list(pods.values())


def endpoint(ns, service):
    """Whether the one endpoint of a Service is ready."""
    slices = ns.get("endpointslices", f"--selector=kubernetes.io/service-name={service}")["items"]
    found = [endpoint["conditions"]["ready"] for one in slices for endpoint in one["endpoints"] or []]
    return found[0] if found else None
