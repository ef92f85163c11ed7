"""Other pods than a Deployment's of one container with a native sidecar."""

import time

import shop
from cluster import wait_for
from load import Load
from scenarios import scenario


def restarted_under_load(ns, result, what, *loads):
    """Restarts all its pods one after another; nothing may be lost."""
    old = ns.pods.there()
    ns.kubectl("rollout", "restart", what)
    ns.settled(what)
    ns.pods.all_gone(old)
    time.sleep(3)
    result.outcomes += [load.stop() for load in loads]
    result.pods, result.events = old, ns.events()
    for outcome in result.outcomes:
        assert outcome.failed == 0, str(outcome)
    assert result.cut == 0, f"{result.cut} requests cut off, as told"


@scenario("a StatefulSet is restarted, one pod after another")
def stateful_set(cluster, result):
    with cluster.namespace("statefulset") as ns:
        spec = shop.stopped_by(ns.images, "gracekeeper, metric", rude=True)
        ns.apply(*shop.may_write_events(), shop.service(), shop.workload("StatefulSet", spec, serviceName="shop"))
        ns.settled("statefulset/shop")
        restarted_under_load(ns, result, "statefulset/shop", Load(ns, "--longest=4s"))


@scenario("two apps in a pod: each is held until its own work and the other's is done")
def several_containers(cluster, result):
    with cluster.namespace("several") as ns:
        first = shop.app(ns.images, rude=True) | {"lifecycle": shop.hook()}
        second = shop.app(ns.images, rude=True, port=8001, name="till") | {"lifecycle": shop.hook()}
        keeper = shop.sidecar(ns.images, "--app-port=8000", "--app-port=8001")
        till = shop.service(name="till", port=8001)
        till["spec"]["selector"] = {"app": "shop"}
        spec = shop.pod([first, second], [keeper])
        ns.apply(*shop.may_write_events(), shop.service(), till, shop.workload("Deployment", spec))
        ns.settled()
        loads = Load(ns, "--rate=40"), Load(ns, "--rate=40", "--seed=2", service="till", name="load-till")
        restarted_under_load(ns, result, "deployment/shop", *loads)


@scenario("the sidecar is an ordinary container beside the app")
def ordinary(cluster, result):
    with cluster.namespace("ordinary") as ns:
        keeper = shop.sidecar(ns.images, "--app-port=8000", f"--inflight={shop.METRIC}", native=False)
        app = shop.app(ns.images, rude=True) | {"lifecycle": shop.hook()}
        ns.apply(*shop.may_write_events(), shop.service(), shop.workload("Deployment", shop.pod([app, keeper])))
        ns.settled()
        restarted_under_load(ns, result, "deployment/shop", Load(ns))


@scenario("gracekeeper hook as an exec hook, from a volume that it was installed into")
def exec_hook(cluster, result):
    with cluster.namespace("exec-hook") as ns:
        spec = shop.with_exec_hook(ns.images, rude=True)
        ns.apply(*shop.may_write_events(), shop.service(), shop.workload("Deployment", spec))
        ns.settled()
        restarted_under_load(ns, result, "deployment/shop", Load(ns))


@scenario("gracekeeper hook without any sidecar: it drains by itself")
def hook_alone(cluster, result):
    with cluster.namespace("hook-alone") as ns:
        spec = shop.with_exec_hook(ns.images, rude=True)
        # Of the init containers the one that installs the binary is left.
        spec["initContainers"] = spec["initContainers"][:1]
        ns.apply(shop.service(), shop.workload("Deployment", spec))
        ns.settled()
        load = Load(ns)
        old = ns.pods.there()
        ns.kubectl("rollout", "restart", "deployment/shop")
        ns.settled()
        ns.pods.all_gone(old)
        time.sleep(3)
        result.outcomes.append(load.stop())
        result.pods = old
        assert result.failed == 0, str(result.outcomes[0])


@scenario("streams: none is broken off")
def streams(cluster, result):
    with cluster.namespace("streams") as ns:
        spec = shop.stopped_by(ns.images, "gracekeeper, metric", rude=True)
        ns.apply(*shop.may_write_events(), shop.service(), shop.workload("Deployment", spec))
        ns.settled()
        restarted_under_load(ns, result, "deployment/shop", Load(ns, "--what=stream", "--rate=40"))


@scenario("WebSockets: each wish is granted")
def websockets(cluster, result):
    with cluster.namespace("websockets") as ns:
        spec = shop.stopped_by(ns.images, "gracekeeper, metric", rude=True, told=True)
        ns.apply(*shop.may_write_events(), shop.service(), shop.workload("Deployment", spec))
        ns.settled()
        restarted_under_load(ns, result, "deployment/shop", Load(ns, "--what=websocket", "--rate=40"))


@scenario("a Job with an ordinary sidecar completes: the sidecar ends with the app")
def job(cluster, result):
    with cluster.namespace("job") as ns:
        app = shop.app(ns.images) | {"lifecycle": shop.hook()}
        app["args"] = [*app["args"], "--for=8s"]
        keeper = shop.sidecar(ns.images, "--app-port=8000", "--exit-with-app", native=False)
        spec = shop.pod([app, keeper], restartPolicy="Never")
        ns.apply(*shop.may_write_events(), {
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
