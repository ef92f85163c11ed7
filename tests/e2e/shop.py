"""The app under test as Kubernetes objects, and the ways to stop it."""

PORT = 8000
TOKEN = "opensesame"
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


def hook(path="/prestop/app"):
    """A preStop hook that asks the sidecar."""
    headers = [{"name": "X-Gracekeeper-Token", "value": TOKEN}]
    return {"preStop": {"httpGet": {"path": path, "port": 9903, "httpHeaders": headers}}}


def sidecar(images, *flags, grace=60, native=True):
    """gracekeeper beside the app."""
    container = {
        "name": "gracekeeper",
        "image": images["gracekeeper"],
        "imagePullPolicy": "IfNotPresent",
        "args": ["run", f"--grace-period={grace}s", *flags],
        "env": [{"name": "GRACEKEEPER_TOKEN", "value": TOKEN}, *POD_IS],
        "ports": [{"containerPort": 9903}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 9903}, "periodSeconds": 1},
        "lifecycle": hook("/prestop/self"),
        "resources": {"requests": {"cpu": "5m", "memory": "8Mi"}, "limits": {"memory": "32Mi"}},
        "securityContext": SECURITY,
    }
    return container | ({"restartPolicy": "Always"} if native else {})


def pod(containers, sidecars=(), grace=60, **more):
    """A pod's spec."""
    return {
        "terminationGracePeriodSeconds": grace,
        "initContainers": list(sidecars),
        "containers": list(containers),
        **more,
    }


def stopped_by(images, way, told=False, rude=False, grace=60, flags=()):
    """A pod of the shop that is stopped in one of the ways that are compared."""
    container = app(images, rude)
    closing = f"http://127.0.0.1:{PORT}/closing"
    if way.startswith("sleep"):
        words = ["/shop", "sleep", way.split()[1] + "s", *([f"--tell={closing}"] if told else [])]
        container["lifecycle"] = {"preStop": {"exec": {"command": words}}}
    if not way.startswith("gracekeeper"):
        return pod([container], grace=grace)
    source = [f"--inflight={METRIC}"] if way.endswith("metric") else []
    notify = [f"--notify={closing}"] if told else []
    container["lifecycle"] = hook()
    keeper = sidecar(images, f"--app-port={PORT}", *source, *notify, *flags, grace=grace)
    return pod([container], [keeper], grace=grace)


def with_exec_hook(images, rude=False, grace=60):
    """A pod whose hook is a command, brought by an init container; the sidecar is there as well."""
    flags = [f"--grace-period={grace}s", f"--app-port={PORT}", f"--inflight={METRIC}"]
    # Not where an image has the binary itself.
    volume = {"name": "hook", "mountPath": "/hook"}
    keeper = sidecar(images, *flags[1:], grace=grace)
    install = {
        "name": "install",
        "image": images["gracekeeper"],
        "imagePullPolicy": "IfNotPresent",
        "args": ["install", "/hook"],
        "volumeMounts": [volume],
        "securityContext": SECURITY,
    }
    container = app(images, rude)
    container["volumeMounts"] = [volume | {"readOnly": True}]
    container["env"] = [*container["env"], {"name": "GRACEKEEPER_TOKEN", "value": TOKEN}, *POD_IS]
    container["lifecycle"] = {"preStop": {"exec": {"command": ["/hook/gracekeeper", "hook", *flags]}}}
    return pod([container], [install, keeper], grace=grace, volumes=[{"name": "hook", "emptyDir": {}}])


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


def may_write_events():
    """What the sidecar may do in the API, in its namespace."""
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "gracekeeper"},
            "rules": [
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
                {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]},
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "gracekeeper"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "gracekeeper"},
            "subjects": [{"kind": "ServiceAccount", "name": "default"}],
        },
    ]
