"""The ways in which a pod can be told to go, other than by a rolling restart."""

import json
import time

import shop
from cluster import RUN_LABEL, kubectl, wait_for
from load import Load
from scenarios import scenario


def open_shop(ns, replicas=3):
    """A rude app with gracekeeper, and its Service. Its pods can be told from those of others in the cluster."""
    spec = shop.stopped_by(ns.images, "gracekeeper, metric", rude=True)
    work = shop.workload("Deployment", spec, replicas)
    work["spec"]["template"]["metadata"]["labels"][RUN_LABEL] = ns.cluster.run
    shop.opened(ns, work)


@scenario("the node is drained: whatever it has in flight is answered", alone=True)
def node_drain(cluster, result):
    with cluster.namespace("node-drain", result) as ns:
        open_shop(ns)
        load = Load(ns, "--rate=40")
        pods = ns.pods.there()
        node = pods[0].object["spec"]["nodeName"]
        # With one node there is nowhere else to go: no new request comes, and those in flight are answered.
        load.close()
        drain = ["drain", node, f"--pod-selector={RUN_LABEL}={cluster.run}", "--ignore-daemonsets", "--timeout=120s"]
        with cluster.changed(lambda: kubectl(*drain, start_new_session=True),
                             lambda: kubectl("uncordon", node, start_new_session=True)):
            there = [pod for pod in pods if pod.object["spec"]["nodeName"] == node]
            ns.pods.all_gone(there)
        result.outcomes.append(load.outcome())
        result.pods, result.events = there, ns.events()
        assert result.failed == 0, str(result.outcomes[0])
        assert result.verdicts() == f"{len(there)} drained", result.verdicts()
        for pod in there:
            assert "because of: EvictionByEvictionAPI" in pod.last_words("gracekeeper"), pod.last_words("gracekeeper")


@scenario("a pod is evicted under load: nothing is lost, and the verdict has the reason")
def eviction(cluster, result):
    with cluster.namespace("eviction", result) as ns:
        open_shop(ns)
        load = Load(ns)
        pod = ns.pods.there()[0]
        ns.kubectl("create", "--raw", f"/api/v1/namespaces/{ns.name}/pods/{pod.name}/eviction", "--filename=-",
                   stdin=json.dumps({"apiVersion": "policy/v1", "kind": "Eviction",
                                     "metadata": {"name": pod.name, "namespace": ns.name}}))
        ns.pods.all_gone([pod])
        result.outcomes.append(load.stop())
        result.pods, result.events = [pod], ns.events()
        assert result.failed == 0, str(result.outcomes[0])
        assert "because of: EvictionByEvictionAPI" in pod.last_words("gracekeeper"), pod.last_words("gracekeeper")


@scenario("kubectl delete --grace-period=8 with longer work: the deadline is kept, and each request cut off is told of")
def deadline(cluster, result):
    with cluster.namespace("deadline", result) as ns:
        open_shop(ns)
        load = Load(ns)
        # Until there is work that takes longer than is granted.
        time.sleep(10)
        pod = ns.pods.there()[0]
        ns.kubectl("delete", "pod", pod.name, "--grace-period=8", "--wait=false")
        ns.pods.all_gone([pod])
        time.sleep(2)
        result.outcomes.append(load.stop())
        result.pods, result.events = [pod], ns.events()
        said = pod.last_words("gracekeeper")
        assert said.startswith("deadline after "), said
        assert pod.took < 12, f"gone after {pod.took:.1f} s"
        assert result.cut > 0, f"{said}; clients: {result.outcomes[0]}"
        result.told_exactly(ns)
        reasons = {event["reason"] for event in result.events if event["regarding"]["name"] == pod.name}
        assert reasons == {"DrainStarted", "DrainDeadlineExceeded", "RequestsCut"}, reasons


@scenario("scaled to zero: whatever is in flight is answered")
def scale_to_zero(cluster, result):
    with cluster.namespace("zero", result) as ns:
        open_shop(ns)
        load = Load(ns)
        load.close()
        result.pods = ns.scaled_to_zero()
        result.outcomes.append(load.outcome())
        result.events = ns.events()
        assert result.failed == 0, str(result.outcomes[0])


@scenario("idle pods go as soon as routes have had their time")
def idle(cluster, result):
    with cluster.namespace("idle", result) as ns:
        open_shop(ns)
        result.pods, result.events = ns.scaled_to_zero(), ns.events()
        assert result.verdicts() == "3 drained", result.verdicts()
        assert result.gone_after()[-1] < 15, result.gone_after()
        wait_for("every pod's Events", lambda: len(ns.events("Drained")) == 3, 20)
