"""A hundred restarts in a row."""

import os
import time

import shop
from cluster import wait_for
from load import Load
from scenarios import scenario

RESTARTS = int(os.environ.get("E2E_RESTARTS", "100"))

# What an allocator may keep for itself.
SLACK_KIB = 1024


@scenario(f"{RESTARTS} restarts in a row: nothing is lost, each pod has its verdict and its Events, and nothing leaks")
def hundred(cluster, result):
    with cluster.namespace("hundred") as ns:
        spec = shop.stopped_by(ns.images, "gracekeeper, metric", rude=True)
        old_hand = spec | {"shareProcessNamespace": True}
        shop.opened(ns, shop.workload("Deployment", spec), shop.workload("Deployment", old_hand, 1, name="old-hand"))
        veteran, = ns.pods.there("old-hand")
        load = Load(ns, "--longest=5s")
        drained_by_hand(ns, veteran)
        before = memory(ns, veteran)
        for _ in range(RESTARTS):
            ns.kubectl("rollout", "restart", "deployment/shop")
            ns.settled()
            drained_by_hand(ns, veteran)
        after = memory(ns, veteran)
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
        assert restarts(veteran) == 0, "the old hand's sidecar was restarted"
        assert after <= before + SLACK_KIB, f"the sidecar has {before} KiB resident at first and {after} KiB at last"
        result.note = f"RSS of a sidecar drained {RESTARTS} times: {before} KiB, then {after} KiB"


def drained_by_hand(ns, pod):
    """A drain of a pod that lives, and its undoing."""
    for method in ("POST", "DELETE"):
        answer = ns.kubectl("exec", pod.name, "--container=shop", "--", "/shop", "ask", method,
                            "http://127.0.0.1:9903/drain", f"--header=X-Gracekeeper-Token: {shop.TOKEN}")
        assert answer[:3] in ("200", "202"), answer


def memory(ns, pod):
    answer = ns.kubectl("exec", pod.name, "--container=shop", "--", "/shop", "ask", "GET",
                        f"http://127.0.0.1:{shop.PORT}/memory")
    return int(answer.removeprefix("200 "))


def named(events):
    return {event["regarding"]["name"] for event in events}


def restarts(pod):
    return sum(status["restartCount"] for status in pod.containers())
