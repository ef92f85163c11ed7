"""The app under test as Kubernetes objects, and the ways to stop it."""

from cluster import ROOT, helm_template

CHART = ROOT / "charts/gracekeeper"
PARTS = ROOT / "tests/e2e/chart"

PORT = 8000
TOKEN = "opensesame-opensesame"
METRIC = f"prometheus+http://127.0.0.1:{PORT}/metrics#shop_customers"
SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
POD_IS = [
    {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
    for name, path in {
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "POD_UID": "metadata.uid",
    }.items()
]


def app(images, rude=False, port=PORT, name="shop"):
    """The container of the app, without a hook."""
    return {
        "name": name,
        "image": images["shop"],
        "imagePullPolicy": "IfNotPresent",
        "args": ["serve", f"--port={port}", *(["--rude"] if rude else [])],
        "env": [{"name": "HOSTNAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "ports": [{"containerPort": port}],
        "readinessProbe": {"httpGet": {"path": "/livez", "port": port}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}},
        "securityContext": SECURITY,
    }


def values(images, **more):
    """What the chart is told."""
    repository, tag = images["gracekeeper"].rsplit(":", 1)
    return {"image": {"repository": repository, "tag": tag}, "token": {"value": TOKEN}, **more}


def chart_values(images):
    """The same app by the chart that is our example of one which depends on gracekeeper's."""
    container = app(images, rude=True)
    # The release makes a token of its own.
    told = values(images, token={}, terminationGracePeriodSeconds=60, appPorts=[PORT], inflight=[METRIC])
    return {
        "image": container["image"],
        "replicas": 3,
        "port": PORT,
        "gracekeeper": told,
        **{name: container[name] for name in ("args", "env", "readinessProbe", "resources", "securityContext")},
    }


def keeper(images, grace=60, **more):
    """What the chart has an app's pod include: the native sidecar, the ordinary one and the hook."""
    told = values(images, terminationGracePeriodSeconds=grace, **more)
    return helm_template(PARTS, {"gracekeeper": told})


def pod(containers, sidecars=(), grace=60, **more):
    """A pod's spec."""
    return {
        "terminationGracePeriodSeconds": grace,
        "initContainers": list(sidecars),
        "containers": list(containers),
        **more,
    }


def stopped_by(images, way, told=False, rude=False, grace=60):
    """A pod of the shop that is stopped in one of the ways that are compared."""
    container = app(images, rude)
    closing = f"http://127.0.0.1:{PORT}/closing"
    if way.startswith("sleep"):
        words = ["/shop", "sleep", way.split()[1] + "s", *([f"--tell={closing}"] if told else [])]
        container["lifecycle"] = {"preStop": {"exec": {"command": words}}}
    if not way.startswith("gracekeeper"):
        return pod([container], grace=grace)
    parts = keeper(images, grace, appPorts=[PORT], inflight=[METRIC] if "metric" in way else [],
                   notify=[closing] if told else [], appShutdown="graceful" if "graceful" in way else "abrupt")
    container["lifecycle"] = parts["hook"]
    return pod([container], [parts["sidecar"]], grace=grace)


def with_exec_hook(images, rude=False, grace=60):
    """A pod whose hook is a command, brought by an init container; the sidecar is there as well, with a drain file."""
    flags = [f"--grace-period={grace}s", f"--app-port={PORT}", f"--inflight={METRIC}"]
    # Not where an image has the binary itself.
    volume = {"name": "hook", "mountPath": "/hook"}
    drain = {"name": "drain", "mountPath": "/run/drain"}
    sidecar = keeper(images, grace, appPorts=[PORT], inflight=[METRIC], drainFile="/run/drain/draining",
                     volumeMounts=[drain])["sidecar"]
    install = {
        "name": "install",
        "image": images["gracekeeper"],
        "imagePullPolicy": "IfNotPresent",
        "args": ["install", "/hook"],
        "volumeMounts": [volume],
        "securityContext": SECURITY,
    }
    container = app(images, rude)
    container["volumeMounts"] = [volume | {"readOnly": True}, drain | {"readOnly": True}]
    container["env"] = [*container["env"], {"name": "GRACEKEEPER_TOKEN", "value": TOKEN}, *POD_IS]
    container["lifecycle"] = {"preStop": {"exec": {"command": ["/hook/gracekeeper", "hook", *flags]}}}
    return pod([container], [install, sidecar], grace=grace, volumes=[{"name": name, "emptyDir": {}} for name in ("hook", "drain")])


def workload(kind, spec, replicas=3, name="shop", **more):
    """What keeps so many of that pod running."""
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
            **more,
        },
    }


def service(name="shop", port=PORT):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": port}]},
    }


def opened(ns, *objects):
    """Installs the chart in the namespace, then these objects and the shop's Service; all of it is ready afterwards."""
    ns.helm("install", "gracekeeper", CHART, values=values(ns.images, rbac={"serviceAccounts": ["default"]}))
    ns.apply(service(), *objects)
    for item in objects:
        if item["kind"] in ("Deployment", "StatefulSet"):
            ns.settled(f"{item['kind'].lower()}/{item['metadata']['name']}")
