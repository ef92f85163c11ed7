"""What comes to every pod beside its clients: monitors, a proxy in front, connections that are open and not used."""

import json
import pathlib
import shutil
import time

import image
import shop
from cluster import Skipped, wait_for
from load import Load
from scenarios import scenario

# A drain that only monitors could hold ends so long after its beginning, and the kubelet takes its time on top.
MONITORED = 5 + 10
KUBELET = 5
SCRAPES = 5  # seconds
CHECKS = 10

NODE_APP = pathlib.Path(__file__).parents[2] / "apps/node"

NGINX = """
worker_processes 1;
daemon off;
error_log /dev/stderr;
pid /tmp/nginx.pid;
events {}
http {
  access_log off;
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
  upstream app { server 127.0.0.1:8000; keepalive 16; }
  server {
    listen 8080;
    keepalive_timeout 65;
    location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_read_timeout 60s; }
  }
}
"""


def helper(ns, name, *args, image=None):
    """A pod of the shop's image, or of that one, that runs until the namespace goes or its work is done."""
    ns.run(name, {
        "name": "helper",
        "image": image or ns.images["shop"],
        "imagePullPolicy": "IfNotPresent",
        "args": list(args),
        "securityContext": shop.SECURITY,
    })
    wait_for(f"pod {name} to run", lambda: ns.get("pod", name)["status"].get("phase") in ("Running", "Succeeded"))


def address(pod, port=shop.PORT):
    ip = pod.object["status"]["podIP"]
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def monitored(ns):
    """A scraper and three health checkers, each with an address of its own, at all pods there are now; returns once each
    has come three times."""
    addresses = [address(pod) for pod in ns.pods.there()]
    helper(ns, "scraper", "monitor", f"--every={SCRAPES}s", *(f"http://{one}/metrics" for one in addresses))
    for n in range(3):
        helper(ns, f"checker-{n}", "monitor", f"--every={CHECKS}s", *(f"http://{one}/livez" for one in addresses))
    time.sleep(2 * CHECKS + 1)


def gone_in_time(result, seconds):
    assert result.verdicts() == f"{len(result.pods)} drained", result.verdicts()
    assert result.gone_after()[-1] <= seconds, f"gone after {result.gone_after()}, not within {seconds} s"


@scenario("monitors: an idle app with a scraper and three health checkers goes as soon as routes have had their time")
def idle_with_monitors(cluster, result):
    with cluster.namespace("monitors-idle", result) as ns:
        spec = shop.stopped_by(ns.images, "gracekeeper, port")
        shop.opened(ns, shop.workload("Deployment", spec, replicas=2))
        monitored(ns)
        result.pods, result.events = ns.scaled_to_zero(), ns.events()
        gone_in_time(result, MONITORED + KUBELET)


@scenario("monitors: a busy, rude app with a scraper and three health checkers loses nothing")
def busy_with_monitors(cluster, result):
    with cluster.namespace("monitors-busy", result) as ns:
        spec = shop.stopped_by(ns.images, "gracekeeper, port", rude=True)
        shop.opened(ns, shop.workload("Deployment", spec))
        load = Load(ns, "--longest=5s", "--rate=40")
        monitored(ns)
        result.pods = ns.restarted()
        time.sleep(3)
        result.outcomes.append(load.stop())
        result.events = ns.events()
        assert result.failed == 0, str(result.outcomes[0])
        result.told_exactly(ns)


@scenario("monitors: a rude app behind an nginx in its pod, which keeps its connections, loses nothing")
def behind_a_proxy(cluster, result):
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if not nginx:
        raise Skipped("there is no nginx on this machine to make an image of; install Debian's nginx-light")
    with cluster.namespace("monitors-proxy", result) as ns:
        ns.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "nginx"}, "data": {"nginx.conf": NGINX}})
        parts = shop.keeper(ns.images, appPorts=[shop.PORT])
        app = shop.app(ns.images, rude=True) | {"lifecycle": parts["hook"]}
        proxy = {
            "name": "nginx",
            "image": image.load_program("nginx", nginx),
            "imagePullPolicy": "IfNotPresent",
            "args": ["-c", "/etc/nginx/nginx.conf"],
            "ports": [{"containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/livez", "port": 8080}, "periodSeconds": 1},
            "lifecycle": parts["hook"],
            "volumeMounts": [{"name": "conf", "mountPath": "/etc/nginx"}, {"name": "tmp", "mountPath": "/tmp"}],
            "securityContext": shop.SECURITY,
        }
        volumes = [{"name": "conf", "configMap": {"name": "nginx"}}, {"name": "tmp", "emptyDir": {}}]
        spec = shop.pod([app, proxy], [parts["sidecar"]], volumes=volumes)
        front = shop.service(name="front", port=8080)
        front["spec"]["selector"] = {"app": "shop"}
        shop.opened(ns, front, shop.workload("Deployment", spec))
        load = Load(ns, "--longest=5s", "--rate=40", service="front")
        monitored(ns)
        result.pods = ns.restarted()
        time.sleep(3)
        result.outcomes.append(load.stop())
        result.events = ns.events()
        assert result.failed == 0, str(result.outcomes[0])


@scenario("idle WebSockets whose server pings hold no drain")
def idle_websockets(cluster, result):
    with cluster.namespace("idle-websockets", result) as ns:
        spec = shop.stopped_by(ns.images, "gracekeeper, port")
        spec["containers"][0]["args"].append("--ping=5s")
        shop.opened(ns, shop.workload("Deployment", spec, replicas=2))
        for n, pod in enumerate(ns.pods.there()):
            helper(ns, f"idle-{n}", "idle", address(pod))
        time.sleep(12)
        result.pods, result.events = ns.scaled_to_zero(), ns.events()
        gone_in_time(result, 5 + 3 + KUBELET)


def real_libraries(images):
    """A pod whose app speaks Socket.IO and gRPC with the real libraries, and drops what it has in hand at SIGTERM."""
    node, modules = shutil.which("node"), NODE_APP / "node_modules"
    if not node or not modules.exists():
        raise Skipped("there is no node on this machine, or `make setup` has not fetched the packages of tests/apps/node")
    files = [NODE_APP / "idle.js", *(path for path in sorted(modules.rglob("*")) if path.is_file())]
    node_image = image.load_program("node", node, [(path, path.relative_to(NODE_APP)) for path in files])
    parts = shop.keeper(images, appPorts=[8000, 9000])
    app = {
        "name": "shop",
        "image": node_image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["/idle.js", "serve"],
        "ports": [{"containerPort": port} for port in (8000, 9000)],
        "readinessProbe": {"tcpSocket": {"port": 9000}, "periodSeconds": 1},
        "securityContext": shop.SECURITY,
        "lifecycle": parts["hook"],
    }
    return node_image, shop.pod([app], [parts["sidecar"]])


def visited(ns, node_image):
    """Has clients of the real libraries connect to each pod: Socket.IO, and gRPC channels that were never used, that were
    used once, and that the client keeps alive with pings."""
    for n, pod in enumerate(ns.pods.there()):
        helper(ns, f"visit-{n}", "/idle.js", "visit", pod.object["status"]["podIP"], image=node_image)
        wait_for("the clients to be connected", lambda n=n: "are open" in ns.kubectl("logs", f"visit-{n}"))
    # Some of their pings.
    time.sleep(12)


@scenario("idle Socket.IO clients and gRPC channels, by the real libraries, hold no drain")
def idle_libraries(cluster, result):
    with cluster.namespace("idle-libraries", result) as ns:
        node_image, spec = real_libraries(ns.images)
        shop.opened(ns, shop.workload("Deployment", spec, replicas=2))
        visited(ns, node_image)
        result.pods, result.events = ns.scaled_to_zero(), ns.events()
        gone_in_time(result, 5 + 3 + KUBELET)


@scenario("a message and a call of 12 s, among idle Socket.IO clients and gRPC channels, are answered")
def slow_libraries(cluster, result):
    with cluster.namespace("slow-libraries", result) as ns:
        node_image, spec = real_libraries(ns.images)
        shop.opened(ns, shop.workload("Deployment", spec, replicas=1))
        visited(ns, node_image)
        pod, = ns.pods.there()
        helper(ns, "ask", "/idle.js", "ask", pod.object["status"]["podIP"], "12", image=node_image)
        wait_for("the slow work to begin", lambda: "asked" in ns.kubectl("logs", "ask"))
        result.pods, result.events = ns.scaled_to_zero(), ns.events()
        wait_for("the answers", lambda: ns.get("pod", "ask")["status"].get("phase") in ("Succeeded", "Failed"))
        said = ns.kubectl("logs", "ask")
        assert "answers: done,done" in said, said
        gone_in_time(result, 12 + 10 + KUBELET)


@scenario("a release whose app never comes up is rolled back: its pods go at once")
def bad_release(cluster, result):
    with cluster.namespace("bad-release", result) as ns:
        spec = shop.stopped_by(ns.images, "gracekeeper, port")
        shop.opened(ns, shop.workload("Deployment", spec, replicas=2))
        good = ns.pods.there()
        patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": ["serve", "--port=none"]}]
        ns.kubectl("patch", "deployment/shop", "--type=json", f"--patch={json.dumps(patch)}")

        def crashed():
            return [pod for pod in ns.pods.of() if pod not in good and not pod.gone and any(
                status["name"] == "shop" and status.get("restartCount", 0) > 0 for status in pod.containers())]

        bad = wait_for("a pod whose app has crashed", crashed)
        # Its sidecar is up.
        wait_for("its sidecar to run", lambda: all(
            status.get("ready") or status.get("started") for status in bad[0].containers() if status["name"] == "gracekeeper"))
        ns.kubectl("rollout", "undo", "deployment/shop")
        ns.pods.all_gone(bad)
        result.pods, result.events = bad, ns.events()
        assert result.gone_after()[-1] <= 5 + KUBELET, f"gone after {result.gone_after()}"
        assert all(not pod.gone for pod in good), "a pod that worked went"
