"""What others in the cluster can do to a sidecar."""

import functools
import json

import shop
from cluster import Skipped, wait_for
from scenarios import scenario
from scenarios.endings import open_shop

CHANGES = [("GET", "/prestop"), ("GET", "/prestop/app"), ("GET", "/prestop/self"), ("POST", "/drain"),
           ("POST", "/drain?wait=true"), ("DELETE", "/drain"), ("POST", "/release")]
READS = ["/readyz", "/livez", "/status", "/metrics"]


def stranger(ns):
    """Another pod of the cluster, which runs nothing of ours."""
    container = shop.app(ns.images, name="stranger")
    container["args"] = ["sleep", "1h"]
    del container["readinessProbe"]
    ns.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stranger", "labels": {"app": "stranger"}},
              "spec": shop.pod([container], grace=1)})
    ns.kubectl("wait", "pod/stranger", "--for=condition=Ready", "--timeout=60s")
    return functools.partial(ns.ask, "stranger")


def address(pod, port=9903):
    ip = pod.object["status"]["podIP"]
    return f"http://{f'[{ip}]' if ':' in ip else ip}:{port}"


@scenario("another pod calls every endpoint without the token, and with wrong ones: nothing changes")
def strangers(cluster, result):
    with cluster.namespace("strangers", result) as ns:
        open_shop(ns, replicas=1)
        ask = stranger(ns)
        pod, = ns.pods.there()
        sidecar = address(pod)
        wrong = [[], ["X-Gracekeeper-Token: "], [f"X-Gracekeeper-Token: {shop.TOKEN}2"], [f"X-Gracekeeper-Token: {shop.TOKEN[:-1]}"],
                 ["Authorization: Bearer wrong"], [f"Authorization: Basic {shop.TOKEN}"],
                 ["User-Agent: kube-lifecycle/1.36"], ["X-Forwarded-For: 127.0.0.1"]]
        for method, path in CHANGES:
            for headers in wrong:
                status, body = ask(method, sidecar + path, *headers)
                assert status == 401, f"{method} {path} with {headers}: {status} {body}"
        for path in READS:
            assert ask("GET", sidecar + path)[0] == 200, path
        state = json.loads(ask("GET", sidecar + "/status")[1])
        assert (state["phase"], state["ready"], state["verdict"]) == ("serving", True, None), state
        assert not ns.events(), ns.events()
        assert [ready for _, ready in pod.readiness if not ready] == [False], pod.readiness
        # That the endpoints are there, and that it is the token that they ask for.
        right = f"X-Gracekeeper-Token: {shop.TOKEN}"
        assert ask("POST", sidecar + "/drain", right)[0] == 202
        wait_for("readiness to fail", lambda: not pod.readiness[-1][1], 20)
        assert ask("DELETE", sidecar + "/drain", right)[0] == 200
        wait_for("readiness to come back", lambda: pod.readiness[-1][1], 20)


@scenario("a NetworkPolicy keeps other pods from the sidecar, where the network enforces it")
def network_policy(cluster, result):
    with cluster.namespace("policy", result) as ns:
        open_shop(ns, replicas=1)
        ask = stranger(ns)
        pod, = ns.pods.there()

        def reached(port):
            return ask("GET", address(pod, port) + "/livez")[0] == 200

        # Whether policies are enforced at all is found out by another one, and proves nothing of ours.
        ns.apply({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "nobody"},
                  "spec": {"podSelector": {"matchLabels": {"app": "shop"}}, "policyTypes": ["Ingress"]}})
        try:
            wait_for("a pod to be shut off", lambda: not reached(shop.PORT), 20)
        except AssertionError:
            raise Skipped("this cluster's network enforces no NetworkPolicy")
        ns.kubectl("apply", "--filename", shop.ROOT / "deploy/network-policy.yaml")
        ns.kubectl("delete", "networkpolicy", "nobody")
        wait_for("another pod to reach the app", lambda: reached(shop.PORT), 20)
        wait_for("another pod not to reach the sidecar", lambda: not reached(9903), 20)
        ns.kubectl("scale", "deployment/shop", "--replicas=0")
        ns.pods.all_gone([pod])
        result.pods, result.events = [pod], ns.events()
        assert result.verdicts() == "1 drained", result.verdicts()
