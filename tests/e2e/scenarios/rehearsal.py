"""`gracekeeper rehearse --cluster`: a restart under load from a pod beside it, and what is left of it."""

import json
import os
import signal
import subprocess

import shop
from cluster import Skipped, wait_for
from scenarios import scenario

# What kubectl rollout restart sets.
RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"


def rehearse(ns, workload, *flags):
    """The command, as a process."""
    address = ns.get("service", "shop")["spec"]["clusterIP"]
    address = f"[{address}]" if ":" in address else address
    words = [os.path.abspath(ns.cluster.binaries["tools"]), "rehearse", "--cluster", f"--namespace={ns.name}", workload,
             f"--url=http://{address}/work?ms=500", f"--image={ns.images['tools']}", "--json", *flags]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process):
    """Its exit status, what it printed, and what it said."""
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def load_pods(ns):
    return ns.kubectl("get", "pods", "--selector=app.kubernetes.io/name=gracekeeper-rehearse", "--output=name").split()


def without_restart(ns):
    """The Deployment's spec, and whether it was restarted."""
    spec = ns.get("deployment", "shop")["spec"]
    annotations = spec["template"]["metadata"].pop("annotations", {}) or {}
    restarted = annotations.pop(RESTARTED_AT, None)
    return spec | {"annotations": annotations}, restarted


@scenario("rehearse --cluster: a restart under load, verdicts by pod, nothing changed but the restart, nothing left behind")
def rehearsal(cluster, result):
    if not cluster.binaries["tools"]:
        raise Skipped("no binary with the tools was given")
    with cluster.namespace("rehearsal", result) as ns:
        spec = shop.stopped_by(ns.images, "gracekeeper", told=True, rude=True)
        shop.opened(ns, shop.workload("Deployment", spec))
        before, restarted = without_restart(ns)
        assert restarted is None

        status, _, said = ended(rehearse(ns, "deploy/shop"))
        assert status == 1 and "write --yes to go on" in said, said
        status, _, said = ended(rehearse(ns, "deploy/shop", "--yes", "--mode=hook"))
        assert status == 1 and "not what --mode says" in said, said
        assert without_restart(ns) == (before, None), "it was restarted without leave"

        old = ns.pods.there()
        status, out, said = ended(rehearse(ns, "deploy/shop", "--yes", "--mode=sidecar"))
        assert status == 0, said
        told = json.loads(out)
        run, = told["runs"]
        assert run["way"] == "gracekeeper" and run["requests"] > 100, run
        assert run["failed"] == 0, f"{told['verdict']}: {run['causes']}, {run['pods']}"
        assert {pod["name"] for pod in run["pods"]} == {pod.name for pod in old}
        ns.pods.all_gone(old)
        for pod in run["pods"]:
            assert pod["outcome"] == "drained", pod
            seen, = (one for one in old if one.name == pod["name"])
            assert abs(pod["goneSeconds"] - seen.took) < 3, (pod, seen.took)
        after, restarted = without_restart(ns)
        assert after == before and restarted, "something else of the Deployment was changed"
        assert not load_pods(ns), "the pod that sends is left"

        # SIGINT in the middle: the pod goes, and the restart goes on.
        process = rehearse(ns, "deploy/shop", "--yes")
        wait_for("the pod that sends", lambda: load_pods(ns))
        wait_for("the restart", lambda: without_restart(ns)[1] not in (None, restarted), 60)
        process.send_signal(signal.SIGINT)
        status, out, said = ended(process)
        assert status == 1 and not out and "the restart goes on by itself" in said, said
        assert not load_pods(ns), "the pod that sends is left"
        ns.settled()
        result.pods = [pod for pod in ns.pods.of() if pod.gone]
        result.note = told["verdict"]


@scenario("rehearse --cluster of an app that dies on SIGTERM, without a hook: it says what was lost, and why")
def loss(cluster, result):
    if not cluster.binaries["tools"]:
        raise Skipped("no binary with the tools was given")
    with cluster.namespace("loss", result) as ns:
        spec = shop.stopped_by(ns.images, "no hook", rude=True)
        shop.opened(ns, shop.workload("StatefulSet", spec, serviceName="shop"))
        status, out, said = ended(rehearse(ns, "sts/shop", "--yes", "--fail-on=lost=0"))
        assert status == 1, said
        told = json.loads(out)
        run, = told["runs"]
        assert run["way"] == "none" and run["failed"] > 0, run
        assert sum(run["causes"].values()) == sum(run["moments"].values()) == run["failed"], run
        assert len(run["pods"]) == 3 and all(pod["verdict"] is None for pod in run["pods"]), run["pods"]
        assert any("no preStop hook" in advice for advice in told["advice"]), told["advice"]
        assert not load_pods(ns), "the pod that sends is left"
        result.pods = [pod for pod in ns.pods.of() if pod.gone]
        result.note = told["verdict"]
