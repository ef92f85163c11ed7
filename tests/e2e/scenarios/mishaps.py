"""What goes wrong while a pod serves or goes."""

import time

import shop
from cluster import command, kubectl, needs, wait_for
from load import Load
from scenarios import scenario
from scenarios.endings import open_shop


def restarts(pod, container):
    return next(status["restartCount"] for status in pod.containers() if status["name"] == container)


def back(pod, container):
    """Whether the pod is ready with that container in its second life: by one status, for the last may be of before."""
    return restarts(pod, container) == 1 and pod.ready


def can_fall_ill(spec):
    """Its liveness probe fails once the app is told to be sick."""
    app = spec["containers"][0]
    app["livenessProbe"] = {"httpGet": {"path": "/livez", "port": shop.PORT}, "periodSeconds": 1, "failureThreshold": 3}
    # It goes on to be sent requests while it is ill: its own readiness says nothing of that.
    app["readinessProbe"] = {"tcpSocket": {"port": shop.PORT}, "periodSeconds": 1}


@scenario("the app fails its liveness probe: it is drained and restarted, and the sidecar reopens by itself")
def liveness(cluster, result):
    with cluster.namespace("liveness", result) as ns:
        spec = shop.stopped_by(ns.images, "gracekeeper, metric", rude=True)
        can_fall_ill(spec)
        shop.opened(ns, shop.workload("Deployment", spec))
        load = Load(ns)
        pod = ns.pods.there()[0]
        ns.ask(pod.name, "POST", f"http://127.0.0.1:{shop.PORT}/sick")
        wait_for("the app to be restarted and the pod ready again", lambda: back(pod, "shop"))
        time.sleep(3)
        result.outcomes.append(load.stop())
        result.pods, result.events = ns.pods.of(), ns.events()
        assert result.failed == 0, str(result.outcomes[0])
        assert restarts(pod, "gracekeeper") == 0
        assert not pod.deleted
        wait_for("the Event Reopened", lambda: ns.events("Reopened"), 20)


@scenario("readiness takes most of its second: its probe is on the way when the app dies, and is no request cut off")
def slow_probes(cluster, result):
    with cluster.namespace("slow-probes", result) as ns:
        spec = shop.stopped_by(ns.images, "gracekeeper, metric", rude=True)
        spec["containers"][0]["readinessProbe"]["httpGet"]["path"] = "/livez?ms=700"
        shop.opened(ns, shop.workload("Deployment", spec, 6))
        pods = ns.pods.there()
        # At other moments of a second each.
        for pod in pods:
            ns.kubectl("delete", "pod", pod.name, "--wait=false")
            time.sleep(0.3)
        ns.pods.all_gone(pods)
        result.pods, result.events = pods, ns.events()
        assert result.verdicts() == f"{len(pods)} drained", result.verdicts()
        assert result.cut == 0, f"{result.cut} requests cut off, as told"


@scenario("the sidecar is killed while it serves, as the OOM killer does it: it comes back, and nothing is lost")
def killed_serving(cluster, result):
    with cluster.namespace("killed", result) as ns:
        spec = shop.stopped_by(ns.images, "gracekeeper, metric", rude=True) | {"shareProcessNamespace": True}
        shop.opened(ns, shop.workload("Deployment", spec))
        load = Load(ns)
        pod = ns.pods.there()[0]
        ns.kubectl("exec", pod.name, "--container=shop", "--", "/shop", "kill", "gracekeeper run")
        wait_for("the sidecar to be restarted and the pod ready again", lambda: back(pod, "gracekeeper"))
        # And it still does its work.
        ns.kubectl("delete", "pod", pod.name, "--wait=false")
        ns.pods.all_gone([pod])
        result.outcomes.append(load.stop())
        result.pods, result.events = [pod], ns.events()
        assert result.failed == 0, str(result.outcomes[0])
        assert result.verdicts() == "1 drained", result.verdicts()


@scenario("the sidecar is killed in the middle of a drain: an exec hook goes on by itself, and nothing is lost")
def killed_draining(cluster, result):
    with cluster.namespace("killed-draining", result) as ns:
        spec = shop.with_exec_hook(ns.images, rude=True) | {"shareProcessNamespace": True}
        shop.opened(ns, shop.workload("Deployment", spec))
        load = Load(ns)
        pod = ns.pods.there()[0]
        ns.kubectl("delete", "pod", pod.name, "--wait=false")
        wait_for("the drain", lambda: [event for event in ns.events("DrainStarted")
                                       if event["regarding"]["name"] == pod.name], 20)
        ns.kubectl("exec", pod.name, "--container=shop", "--", "/shop", "kill", "gracekeeper run")
        ns.pods.all_gone([pod])
        result.outcomes.append(load.stop())
        result.pods, result.events = [pod], ns.events()
        assert result.failed == 0, str(result.outcomes[0])


@scenario("the sidecar is killed in the drain for a restart of the app: it comes back and goes on with that drain")
def killed_restarting(cluster, result):
    with cluster.namespace("killed-restarting", result) as ns:
        spec = shop.with_exec_hook(ns.images, rude=True) | {"shareProcessNamespace": True}
        can_fall_ill(spec)
        shop.opened(ns, shop.workload("Deployment", spec))
        load = Load(ns)
        pod = ns.pods.there()[0]
        ns.ask(pod.name, "POST", f"http://127.0.0.1:{shop.PORT}/sick")
        wait_for("the drain", lambda: [event for event in ns.events("DrainStarted")
                                       if event["regarding"]["name"] == pod.name], 20)
        ns.kubectl("exec", pod.name, "--container=shop", "--", "/shop", "kill", "gracekeeper run")
        wait_for("both to be restarted and the pod ready again",
                 lambda: back(pod, "gracekeeper") and restarts(pod, "shop") == 1)
        said = ns.kubectl("logs", pod.name, "--container=gracekeeper")
        time.sleep(3)
        result.outcomes.append(load.stop())
        result.pods, result.events = ns.pods.of(), ns.events()
        assert "sidecar restart" in said, said
        assert result.failed == 0, str(result.outcomes[0])
        assert not pod.deleted


@scenario("the API server is away during a drain: the drain is the same", alone=True)
def no_api_server(cluster, result):
    stop, start = ("E2E_API_STOP", "stop the API server"), ("E2E_API_START", "start the API server again")
    # Told apart from a cluster without the commands before anything happens.
    needs(*stop)
    needs(*start)
    with cluster.namespace("no-api", result) as ns:
        open_shop(ns)
        load = Load(ns)
        pod = ns.pods.there()[0]
        ns.kubectl("delete", "pod", pod.name, "--wait=false")
        time.sleep(1)
        with cluster.changed(lambda: command(*stop), lambda: command(*start)):
            wait_for("the API server to be away",
                     lambda: not kubectl("get", "--raw=/readyz", "--request-timeout=2s", check=False), 20)
            time.sleep(10)
        ns.pods.all_gone([pod])
        result.outcomes.append(load.stop())
        # That it drained is not among the Events: there was no API server to write it to.
        result.pods, result.events = [pod], ns.events()
        assert result.failed == 0, str(result.outcomes[0])
        assert result.verdicts() == "1 drained", result.verdicts()
