"""Pods that know nothing of gracekeeper: a label adds the sidecar, or the hook alone, by the API server's own policy."""

import contextlib
import json
import subprocess
import time

import shop
from cluster import Skipped, helm, kubectl, wait_for
from load import Load
from scenarios import scenario

# Well within the budget of 30 s of grace.
LOAD = "--longest=8s"

POLICY = "mutatingadmissionpolicies.admissionregistration.k8s.io"

# What an annotation can say that the policy takes and the sidecar does not, each in a pod of its own.
MISTAKES = {
    "source": {"inflight": "gopher://127.0.0.1:8000"},
    "preset": {"inflight": "fastpai://127.0.0.1:8000"},
    "expression": {"inflight": "prometheus+http://127.0.0.1:8000/metrics#sum("},
    "notify": {"notify": "http://[::1"},
    "app-ready": {"app-ready": "unix://x"},
    "number": {"max-inflight": "1.5"},
    "zero": {"poll-interval": "0s", "read-timeout": "0s", "timeout": "0s"},
    "a-week": {"min-wait": "99999h"},
    "reserve": {"reserve": "90m"},
    "quiet": {"quiet-period": "50s"},
    "service": {"service": "shop"},
    "drain-file": {"drain-file": "/nowhere/file"},
    "no-kind": {"readiness": "after=99999h", "when-blind": "window=99999h"},
}


@contextlib.contextmanager
def injection(cluster, ns, **more):
    """The chart with its policy, which is the whole cluster's and goes again; the namespace is labelled."""
    if POLICY not in kubectl("api-resources", "--api-group=admissionregistration.k8s.io", "--output=name"):
        raise Skipped("the cluster has no MutatingAdmissionPolicy, which came with Kubernetes 1.36")
    values = shop.values(ns.images, injection={"enabled": True, "policyName": ns.name, "label": ns.name, "failurePolicy": "Fail", **more})

    def uninstall():
        with contextlib.suppress(AssertionError):
            ns.helm("uninstall", "gracekeeper")

    with cluster.changed(lambda: ns.helm("install", "gracekeeper", shop.CHART, values=values), uninstall):
        kubectl("label", "namespace", ns.name, f"gracekeeper.dev/inject={ns.name}")
        wait_for("the policy to act", lambda: "gracekeeper.dev/injected" in labels(ns), 60)
        yield values


def labels(ns):
    """Those that a pod would get now."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe", "namespace": ns.name},
           "spec": shop.pod([shop.app(ns.images)])}
    done = subprocess.run(["kubectl", "create", "--dry-run=server", "--output=json", "-f", "-"], input=json.dumps(pod),
                          capture_output=True, text=True)
    return json.loads(done.stdout)["metadata"].get("labels", {}) if done.returncode == 0 else {}


def node_network(ns):
    """Pod Security keeps pods from the node's network otherwise."""
    kubectl("label", "namespace", ns.name, "--overwrite", "pod-security.kubernetes.io/enforce=privileged")


def is_injected(pod):
    return "gracekeeper.dev/injected" in pod.object["metadata"].get("labels", {})


def plain(images, annotations=None, **more):
    """A Deployment of an app that dies at SIGTERM and knows nothing of a drain."""
    item = shop.workload("Deployment", shop.pod([shop.app(images, rude=True)], grace=30, **more))
    item["spec"]["template"]["metadata"]["annotations"] = annotations or {}
    del item["spec"]["template"]["spec"]["initContainers"]
    return item


def life(cluster, result, mode):
    """Restarted, upgraded and uninstalled under load: what has the sidecar or the hook loses nothing."""
    with cluster.namespace(f"injection-{mode}", result) as ns, injection(cluster, ns, mode=mode) as values:
        ns.apply(shop.service(), plain(ns.images))
        ns.settled()
        assert all(map(is_injected, ns.pods.there())), "the pods are plain"
        load = Load(ns, LOAD)
        result.pods = ns.restarted()
        # Another setting, and another policy: pods that run keep what they have.
        values["injection"]["defaults"] = {"min-wait": "6s"}
        ns.helm("upgrade", "gracekeeper", shop.CHART, values=values)
        result.pods += ns.restarted()
        ns.helm("uninstall", "gracekeeper")
        wait_for("the policy to be gone", lambda: "gracekeeper.dev/injected" not in labels(ns), 60)
        result.pods += ns.restarted()
        time.sleep(3)
        result.outcomes.append(load.stop())
        young = ns.pods.there()
        assert not any(map(is_injected, young)), "uninstalled, and new pods still get it"
        assert result.failed == 0, str(result.outcomes[0])
        assert all(pod.took < 29 for pod in result.pods), [pod.took for pod in result.pods]


@scenario("injection: a label adds the sidecar; restarted, upgraded, uninstalled under load")
def sidecar(cluster, result):
    life(cluster, result, "sidecar")


@scenario("injection: a label adds the hook alone; restarted, upgraded, uninstalled under load")
def hook(cluster, result):
    life(cluster, result, "hook")


def restarted(cluster, result, mode, workload, prepare=(), name="shape", **more):
    """A namespace with something of its own; the workload is restarted under load, and nothing is lost."""
    with cluster.namespace(f"injection-{name}-{mode}", result) as ns, injection(cluster, ns, mode=mode, **more):
        ns.apply(shop.service(), *prepare)
        item = workload(ns.images)
        what = f"{item['kind'].lower()}/{item['metadata']['name']}"
        ns.apply(item)
        ns.settled(what)
        load = Load(ns, LOAD)
        result.pods += ns.restarted(what)
        time.sleep(3)
        result.outcomes.append(load.stop())
        assert all(map(is_injected, result.pods)), "the pods are plain"
        assert result.failed == 0, str(result.outcomes[-1])


def portless(images):
    """The same app, which does not say on which port it listens."""
    item = plain(images)
    del item["spec"]["template"]["spec"]["containers"][0]["ports"]
    return item


@scenario("injection: an app that declares no port is found by where it listens, in both modes")
def no_port(cluster, result):
    for mode in ("sidecar", "hook"):
        restarted(cluster, result, mode, portless, name="portless")


def limited(images):
    item = plain(images)
    app, = item["spec"]["template"]["spec"]["containers"]
    app["resources"]["limits"] = {"cpu": "500m", "memory": "64Mi"}
    return item


@scenario("injection: restricted Pod Security, a quota that asks for limits and a LimitRange, in both modes")
def governed(cluster, result):
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "quota"},
             "spec": {"hard": {"limits.cpu": "8", "limits.memory": "2Gi", "requests.cpu": "4", "requests.memory": "2Gi"}}}
    limits = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "limits"},
              "spec": {"limits": [{"type": "Container", "default": {"cpu": "200m", "memory": "64Mi"},
                                   "max": {"cpu": "1", "memory": "128Mi"}, "min": {"memory": "4Mi"}}]}}
    for mode in ("sidecar", "hook"):
        with cluster.namespace(f"injection-governed-{mode}", result) as ns, injection(cluster, ns, mode=mode):
            kubectl("label", "namespace", ns.name, "pod-security.kubernetes.io/enforce=restricted")
            ns.apply(quota, limits, shop.service(), limited(ns.images))
            ns.settled()
            load = Load(ns, LOAD)
            result.pods += ns.restarted()
            time.sleep(3)
            result.outcomes.append(load.stop())
            assert all(map(is_injected, result.pods)), "the pods are plain"
    assert result.failed == 0, [str(outcome) for outcome in result.outcomes]


@scenario("injection: a grace period of 5 s is kept, in both modes")
def short_grace(cluster, result):
    for mode in ("sidecar", "hook"):
        with cluster.namespace(f"injection-grace-{mode}", result) as ns, injection(cluster, ns, mode=mode):
            item = plain(ns.images)
            item["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 5
            ns.apply(shop.service(), item)
            ns.settled()
            old = ns.restarted()
            assert all(map(is_injected, old)), "the pods are plain"
            # The kubelet needs a moment for itself, on a loaded machine a long one.
            assert all(pod.took < 12 for pod in old), [pod.took for pod in old]
            result.pods += old


@scenario("injection: several containers, sidecars of others, a hook of its own, hostNetwork, and a Job")
def shapes(cluster, result):
    with cluster.namespace("injection-shapes", result) as ns, injection(cluster, ns):
        node_network(ns)
        app = lambda port, **more: shop.app(ns.images, rude=True, port=port, name=f"app-{port}") | more
        helper = lambda name, port: shop.app(ns.images, port=port, name=name) | {"restartPolicy": "Always"}
        chained = {"lifecycle": {"preStop": {"exec": {"command": ["/shop", "sleep", "2s"]}}}}
        pods = {
            "several": shop.pod([app(8000), app(8001)], grace=30),
            "others": shop.pod([app(8000)], [helper("before", 8101), helper("after", 8102)], grace=30),
            "own-hook": shop.pod([app(8000, **chained)], grace=30),
            "host": shop.pod([app(18417)], grace=30, hostNetwork=True),
        }
        for name, spec in pods.items():
            ns.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "shop"}}, "spec": spec})
        job = app(8000)
        job["args"] = [*job["args"], "--for=8s"]
        ns.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"},
                  "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": {"app": "job"}},
                                                           "spec": shop.pod([job], restartPolicy="Never")}}})
        ns.kubectl("wait", *(f"pod/{name}" for name in pods), "--for=condition=Ready", "--timeout=120s")
        there = ns.pods.there()
        assert len(there) == len(pods) and all(map(is_injected, there)), "not all are injected"
        ns.kubectl("delete", "pod", *pods, "--wait=false")
        ns.pods.all_gone(there, 60)
        result.pods = there
        # Its sidecar is a native one, and holds nothing up.
        ns.kubectl("wait", "job/job", "--for=condition=Complete", "--timeout=90s")


def stateful(images):
    return plain(images, serviceName="shop") | {"kind": "StatefulSet"}


@scenario("injection: a StatefulSet is restarted under load")
def stateful_set(cluster, result):
    restarted(cluster, result, "sidecar", stateful, name="stateful")


def daemon(images):
    """On a node the new pod is there before the old one goes: else a cluster of one node has a moment without any."""
    item = plain(images) | {"kind": "DaemonSet"}
    del item["spec"]["replicas"]
    item["spec"]["updateStrategy"] = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    return item


@scenario("injection: a DaemonSet is restarted under load, in both modes")
def daemon_set(cluster, result):
    for mode in ("sidecar", "hook"):
        restarted(cluster, result, mode, daemon, name="daemon")


@scenario("injection: a CronJob's pods get a sidecar that holds none of them up, in both modes")
def cron_job(cluster, result):
    for mode in ("sidecar", "hook"):
        with cluster.namespace(f"injection-cron-{mode}", result) as ns, injection(cluster, ns, mode=mode):
            app = shop.app(ns.images, rude=True)
            app["args"] = [*app["args"], "--for=3s"]
            job = {"template": {"metadata": {"labels": {"app": "shop"}}, "spec": shop.pod([app], restartPolicy="Never")}}
            ns.apply({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"},
                      "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job}}})
            ns.kubectl("create", "job", "now", "--from=cronjob/nightly")
            ns.kubectl("wait", "job/now", "--for=condition=Complete", "--timeout=120s")
            result.pods += ns.pods.of()
            assert result.pods and all(map(is_injected, result.pods)), "the pod is plain"


@scenario("injection: two pods of a node's own network: the second waits for no port and calls no other's sidecar")
def host_ports(cluster, result):
    with cluster.namespace("injection-host", result) as ns, injection(cluster, ns):
        node_network(ns)
        annotations = {"gracekeeper.dev/port": "18999"}
        for name, port in (("first", 18418), ("second", 18419)):
            spec = shop.pod([shop.app(ns.images, rude=True, port=port)], grace=30, hostNetwork=True)
            ns.apply({"apiVersion": "v1", "kind": "Pod",
                      "metadata": {"name": name, "labels": {"app": "shop"}, "annotations": annotations}, "spec": spec})
            ns.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=120s")
        # Of the two sidecars one has the port; the other's app runs all the same.
        ns.kubectl("delete", "pod", "second", "--wait=false")
        second, = [pod for pod in ns.pods.there() if pod.name == "second"]
        ns.pods.all_gone([second], 60)
        time.sleep(3)
        first, = [pod for pod in ns.pods.of() if pod.name == "first"]
        assert not first.gone and first.ready, "the first was drained by the second's hook"
        status = ns.kubectl("logs", "first", "--container=gracekeeper")
        assert "drain" not in status.split("serving", 1)[1], status


@scenario("injection: whatever is wrong in an annotation, the app starts, and the sidecar says so")
def mistakes(cluster, result):
    for mode in ("sidecar", "hook"):
        with cluster.namespace(f"injection-mistakes-{mode}", result) as ns, injection(cluster, ns, mode=mode):
            for name, wrong in MISTAKES.items():
                ns.apply({
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": name, "labels": {"app": "shop"},
                                 "annotations": {f"gracekeeper.dev/{flag}": value for flag, value in wrong.items()}},
                    "spec": shop.pod([shop.app(ns.images)], grace=30),
                })
            ns.kubectl("wait", "pod", "--all", "--for=condition=Ready", "--timeout=180s")
            if mode == "sidecar":
                silent = [name for name in MISTAKES
                          if "the default is used" not in ns.kubectl("logs", name, "--container=gracekeeper")]
                assert not silent, f"nothing is said of the mistakes of {silent}"
            there = ns.pods.there()
            ns.kubectl("delete", "pod", "--all", "--wait=false")
            ns.pods.all_gone(there, 90)


@scenario("injection: helm test makes a pod in a labelled namespace and finds the sidecar in it")
def helm_test(cluster, result):
    with cluster.namespace("injection-test", result) as ns, injection(cluster, ns):
        said = helm("test", "gracekeeper", "--namespace", ns.name, "--timeout=120s")
        assert "Succeeded" in said, said
