"""Other pods than a Deployment's of one container with a native sidecar."""

import time

import shop
from cluster import helm, wait_for
from load import Load
from scenarios import scenario


def restarted_under_load(ns, result, what, *loads):
    """Restarts all its pods one after another; nothing may be lost."""
    result.pods = ns.restarted(what)
    time.sleep(3)
    result.outcomes += [load.stop() for load in loads]
    result.events = ns.events()
    for outcome in result.outcomes:
        assert outcome.failed == 0, str(outcome)
    assert result.cut == 0, f"{result.cut} requests cut off, as told"


@scenario("a StatefulSet is restarted, one pod after another")
def stateful_set(cluster, result):
    with cluster.namespace("statefulset", result) as ns:
        spec = shop.stopped_by(ns.images, "gracekeeper, metric", rude=True)
        shop.opened(ns, shop.workload("StatefulSet", spec, serviceName="shop"))
        restarted_under_load(ns, result, "statefulset/shop", Load(ns, "--longest=4s"))


@scenario("two apps in a pod: each is held until its own work and the other's is done")
def several_containers(cluster, result):
    with cluster.namespace("several", result) as ns:
        parts = shop.keeper(ns.images, appPorts=[8000, 8001])
        first = shop.app(ns.images, rude=True) | {"lifecycle": parts["hook"]}
        second = shop.app(ns.images, rude=True, port=8001, name="till") | {"lifecycle": parts["hook"]}
        till = shop.service(name="till", port=8001)
        till["spec"]["selector"] = {"app": "shop"}
        spec = shop.pod([first, second], [parts["sidecar"]])
        shop.opened(ns, till, shop.workload("Deployment", spec))
        loads = Load(ns, "--rate=40"), Load(ns, "--rate=40", "--seed=2", service="till", name="load-till")
        restarted_under_load(ns, result, "deployment/shop", *loads)


@scenario("the sidecar is an ordinary container beside the app")
def ordinary(cluster, result):
    with cluster.namespace("ordinary", result) as ns:
        parts = shop.keeper(ns.images, appPorts=[shop.PORT], inflight=[shop.METRIC])
        app = shop.app(ns.images, rude=True) | {"lifecycle": parts["hook"]}
        shop.opened(ns, shop.workload("Deployment", shop.pod([app, parts["ordinary"]])))
        restarted_under_load(ns, result, "deployment/shop", Load(ns))


@scenario("an app's own chart depends on gracekeeper's: installed, upgraded under load, uninstalled")
def app_chart(cluster, result):
    with cluster.namespace("app-chart", result) as ns:
        chart = shop.ROOT / "deploy/examples/app"
        helm("dependency", "build", chart)
        values = shop.chart_values(ns.images)
        ns.helm("install", "shop", chart, "--wait", values=values)
        load = Load(ns)
        old = ns.pods.there()
        # Another environment, and so another pod template; the token that the release made stays.
        token = ns.get("secret", "shop-gracekeeper")["data"]
        values["env"] = [*values["env"], {"name": "EDITION", "value": "second"}]
        ns.helm("upgrade", "shop", chart, "--wait", values=values)
        ns.pods.all_gone(old)
        time.sleep(3)
        result.outcomes.append(load.stop())
        result.pods, result.events = old, ns.events()
        assert result.failed == 0, str(result.outcomes[0])
        assert result.verdicts() == f"{len(old)} drained", result.verdicts()
        assert ns.get("secret", "shop-gracekeeper")["data"] == token, "the upgrade made another token"
        wait_for("every pod's Events", lambda: len(ns.events("Drained")) == len(old), 20)
        ns.kubectl("delete", "pod", "load")
        young = ns.pods.there()
        ns.helm("uninstall", "shop")
        ns.pods.all_gone(young)
        left = ns.kubectl("get", "all,secret,role,rolebinding,serviceaccount", "--selector=app.kubernetes.io/managed-by=Helm",
                          "--output=name")
        assert not left, f"uninstalled, and there is still {left}"


@scenario("gracekeeper hook as an exec hook, from a volume that it was installed into")
def exec_hook(cluster, result):
    with cluster.namespace("exec-hook", result) as ns:
        spec = shop.with_exec_hook(ns.images, rude=True)
        shop.opened(ns, shop.workload("Deployment", spec))
        restarted_under_load(ns, result, "deployment/shop", Load(ns))


@scenario("gracekeeper hook without any sidecar: it drains by itself")
def hook_alone(cluster, result):
    with cluster.namespace("hook-alone", result) as ns:
        spec = shop.with_exec_hook(ns.images, rude=True)
        # Of the init containers the one that installs the binary is left.
        spec["initContainers"] = spec["initContainers"][:1]
        ns.apply(shop.service(), shop.workload("Deployment", spec))
        ns.settled()
        load = Load(ns)
        result.pods = ns.restarted()
        time.sleep(3)
        result.outcomes.append(load.stop())
        assert result.failed == 0, str(result.outcomes[0])


@scenario("streams: none is broken off")
def streams(cluster, result):
    with cluster.namespace("streams", result) as ns:
        spec = shop.stopped_by(ns.images, "gracekeeper, metric", rude=True)
        shop.opened(ns, shop.workload("Deployment", spec))
        restarted_under_load(ns, result, "deployment/shop", Load(ns, "--what=stream", "--rate=40"))


@scenario("WebSockets: each wish is granted")
def websockets(cluster, result):
    with cluster.namespace("websockets", result) as ns:
        spec = shop.stopped_by(ns.images, "gracekeeper, metric", rude=True, told=True)
        shop.opened(ns, shop.workload("Deployment", spec))
        restarted_under_load(ns, result, "deployment/shop", Load(ns, "--what=websocket", "--rate=40"))


@scenario("a Job with an ordinary sidecar completes: the sidecar ends with the app")
def job(cluster, result):
    with cluster.namespace("job", result) as ns:
        parts = shop.keeper(ns.images, appPorts=[shop.PORT], exitWithApp=True)
        app = shop.app(ns.images) | {"lifecycle": parts["hook"]}
        app["args"] = [*app["args"], "--for=8s"]
        spec = shop.pod([app, parts["ordinary"]], restartPolicy="Never")
        shop.opened(ns, {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "shop"},
            "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": {"app": "shop"}}, "spec": spec}},
        })
        ns.kubectl("wait", "job/shop", "--for=condition=Complete", "--timeout=60s")
        result.pods, result.events = ns.pods.of(), ns.events()
        pod, = result.pods
        wait_for("the pod's end", lambda: pod.object["status"]["phase"] == "Succeeded", 20)
        codes = {status["name"]: status["state"]["terminated"]["exitCode"] for status in pod.containers()}
        assert codes == {"shop": 0, "gracekeeper": 0}, codes
