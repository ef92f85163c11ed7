"""A hundred restarts in a row."""

import concurrent.futures
import json
import os
import threading
import time

import shop
from cluster import wait_for
from load import Load
from scenarios import scenario

RESTARTS = int(os.environ.get("E2E_RESTARTS", "100"))

# What an allocator may keep for itself, once it has seen a few drains.
SLACK_KIB = 512
FEW = 3


@scenario(f"{RESTARTS} restarts in a row: nothing is lost, each pod has its verdict and its Events, and nothing leaks")
def hundred(cluster, result):
    with cluster.namespace("hundred", result) as ns:
        spec = shop.stopped_by(ns.images, "gracekeeper, metric", rude=True)
        old_hand = shop.workload("Deployment", spec | {"shareProcessNamespace": True}, 1, name="old-hand")
        work = shop.workload("Deployment", spec)
        both = shop.service("both")
        for part in (work, old_hand):
            part["spec"]["template"]["metadata"]["labels"]["behind"] = "both"
        both["spec"]["selector"] = {"behind": "both"}
        shop.opened(ns, both, work, old_hand)
        veteran, = ns.pods.there("old-hand")
        load = Load(ns, "--longest=5s", service="both")
        over = threading.Event()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            drains = pool.submit(drained_by_hand, ns, veteran, over)
            try:
                for _ in range(RESTARTS):
                    ns.kubectl("rollout", "restart", "deployment/shop")
                    ns.settled()
            finally:
                over.set()
        resident = drains.result()
        young = {pod.name for pod in ns.pods.there() if not pod.deleted}
        ns.pods.all_gone([pod for pod in ns.pods.of() if pod.name not in young])
        time.sleep(3)
        result.outcomes.append(load.stop())
        result.pods = [pod for pod in ns.pods.of() if pod.gone]
        assert result.failed == 0, str(result.outcomes[0])
        assert len(result.pods) == 3 * RESTARTS, f"{len(result.pods)} pods have gone"
        assert result.verdicts() == f"{3 * RESTARTS} drained", result.verdicts()
        gone = {pod.name for pod in result.pods}
        for reason in ("DrainStarted", "Drained"):
            wait_for(f"each pod's Event {reason}", lambda: gone <= named(ns.events(reason)), 20)
        result.events = ns.events()
        assert "RequestsCut" not in {event["reason"] for event in result.events}
        assert restarts(veteran) == 0, "the old hand was restarted"
        assert len(resident) >= RESTARTS / 4, f"the old hand was drained only {len(resident)} times"
        before, after = resident[FEW - 1], resident[-1]
        result.note = f"RSS of a sidecar: {before} KiB after {FEW} drains, {after} KiB after {len(resident)}"
        assert after <= before + SLACK_KIB, result.note


def drained_by_hand(ns, pod, over):
    """Drains of a pod that serves again after each, and what its sidecar has resident then."""
    resident = []
    while not over.is_set() or len(resident) <= FEW:
        status, body = ask(ns, pod, "POST", "/drain")
        assert status == 202, body
        wait_for("the verdict", lambda: state(ns, pod)["phase"] == "drained", 60, every=1)
        verdict = state(ns, pod)["verdict"]
        assert verdict["outcome"] == "drained", verdict
        status, body = ask(ns, pod, "DELETE", "/drain")
        assert status == 200, body
        wait_for("the pod to be ready again", lambda: state(ns, pod)["ready"] and pod.ready, 20, every=1)
        resident.append(memory(ns, pod))
    return resident


def ask(ns, pod, method, path, port=9903):
    return ns.ask(pod.name, method, f"http://127.0.0.1:{port}{path}", f"X-Gracekeeper-Token: {shop.TOKEN}")


def state(ns, pod):
    return json.loads(ask(ns, pod, "GET", "/status")[1])


def memory(ns, pod):
    return int(ask(ns, pod, "GET", "/memory", shop.PORT)[1])


def named(events):
    return {event["regarding"]["name"] for event in events}


def restarts(pod):
    return sum(status["restartCount"] for status in pod.containers())
