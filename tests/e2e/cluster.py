"""The cluster that KUBECONFIG names, through kubectl alone."""

import contextlib
import functools
import json
import os
import pathlib
import shutil
import subprocess
import threading
import time

# Namespaces of this run are found by it, however the run ends.
RUN_LABEL = "gracekeeper-e2e"

# Where the report goes, and the logs of all pods.
LOGS = os.environ.get("E2E_REPORT")

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class Skipped(Exception):
    """A scenario that cannot be played here, and why."""


def wait_for(what, condition, seconds=120, every=0.2):
    """The first true value of the condition, or a failure that says what did not come about."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(every)
    raise AssertionError(f"waited {seconds} s in vain for {what}")


def insist(action, tries=6, pause=5):
    """Tries it again where it fails: the API server may have been away until now."""
    for _ in range(tries - 1):
        try:
            return action()
        except Exception:
            time.sleep(pause)
    return action()


def needs(variable, purpose):
    """A command that the user gave; skips the scenario where there is none."""
    text = os.environ.get(variable)
    if not text:
        raise Skipped(f"{variable} is not set; it is the command to {purpose}")
    return text


def command(variable, purpose):
    """Runs a command that the user gave, in a shell. It changes something for others: see `Cluster.changed`."""
    subprocess.run(needs(variable, purpose), shell=True, check=True, stdout=subprocess.DEVNULL, timeout=120,
                   start_new_session=True)


class Cluster:
    """What belongs to no namespace."""

    def __init__(self, run, images, binaries):
        self.run = run
        self.images = images
        self.binaries = binaries
        self.numbers = iter(range(1, 10_000))
        self.watches = []
        self.over = False
        self.lock = threading.Lock()
        self.changing = threading.Lock()
        self.owed = []

    def namespace(self, name, result):
        with self.lock:
            number = next(self.numbers)
        return Namespace(self, f"e2e-{self.run}-{number}-{name}"[:63].rstrip("-"), result)

    @contextlib.contextmanager
    def goes_on(self):
        """Whatever is made in here is found by `clean_up`, after which nothing more is made."""
        with self.lock:
            assert not self.over, "interrupted"
            yield

    @contextlib.contextmanager
    def changed(self, change, back):
        """What is changed for others is put back after this, or by `clean_up`, which waits for a change to be complete.

        What does either runs in a session of its own, where a terminal's Ctrl-C does not reach it.
        """
        try:
            with self.changing:
                assert not self.over, "interrupted"
                self.owed.append(back)
                change()
            yield
        finally:
            self.put_back(back)

    def put_back(self, back):
        with self.changing:
            if back in self.owed:
                insist(back)
                self.owed.remove(back)

    def clean_up(self):
        with self.lock:
            self.over = True
        # None is added any more, once a change that is being made is complete.
        with self.changing:
            owed = list(self.owed)
        try:
            for back in owed:
                self.put_back(back)
        finally:
            for watch in self.watches:
                watch.stop()
                watch.stop_logs()
            # In a session of its own, where a terminal's Ctrl-C does not reach it.
            insist(lambda: kubectl("delete", "namespace", "-l", f"{RUN_LABEL}={self.run}", "--timeout=300s",
                                   start_new_session=True))


class Namespace:
    """A namespace of a scenario's own: what is in it is watched from the first moment, and all of it goes at the end."""

    def __init__(self, cluster, name, result):
        self.cluster = cluster
        self.images = cluster.images
        self.name = name
        self.result = result

    def __enter__(self):
        with self.cluster.goes_on():
            self.apply({
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {
                    "name": self.name,
                    # What is asked of the pods here is what a careful cluster asks.
                    "labels": {RUN_LABEL: self.cluster.run, "pod-security.kubernetes.io/enforce": "restricted"},
                },
            })
        wait_for("the namespace's service account",
                 lambda: self.kubectl("get", "serviceaccount", "default", check=False))
        with self.cluster.goes_on():
            self.pods = Watch(self)
            self.cluster.watches.append(self.pods)
        return self

    def __exit__(self, failure, *_):
        # What was seen until then shows in the report.
        if failure and not self.result.pods:
            self.result.pods = self.pods.of()
            with contextlib.suppress(AssertionError):
                self.result.events = self.events()
        self.kubectl("delete", "namespace", self.name, "--wait=false", check=False)
        self.pods.stop()

    def kubectl(self, *words, **more):
        return kubectl("--namespace", self.name, *words, **more)

    def ask(self, pod, method, url, *headers, check=True):
        """What the shop's binary in a pod of that name is answered: a status, 0 where there is no answer, and a body."""
        answer = self.kubectl("exec", pod, "--", "/shop", "ask", method, url,
                              *(f"--header={header}" for header in headers), check=check)
        status, _, body = answer.partition(" ")
        return int(status or 0), body.strip()

    def apply(self, *objects):
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--filename=-", "--validate=false", stdin=json.dumps(items))

    def helm(self, *words, values=None):
        return helm(*words, "--namespace", self.name, values=values)

    def get(self, *words):
        return json.loads(self.kubectl("get", *words, "--output=json"))

    def settled(self, what="deployment/shop"):
        """Waits until all of it is there and ready."""
        self.kubectl("rollout", "status", what, "--timeout=180s", timeout=200)

    def run(self, name, container, app="helper"):
        """Makes a pod of one container that runs once, until its work is done or the namespace goes."""
        self.apply({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": app}},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 1,
                "containers": [container],
            },
        })

    def scaled_to_zero(self, what="deployment/shop"):
        """Lets all of its pods go, and returns them once they are gone."""
        old = self.pods.there()
        self.kubectl("scale", what, "--replicas=0")
        self.pods.all_gone(old)
        return old

    def restarted(self, what="deployment/shop"):
        """Restarts all of its pods, a few at a time, and returns those that are gone by then."""
        old = self.pods.there()
        self.kubectl("rollout", "restart", what)
        self.settled(what)
        self.pods.all_gone(old)
        return old

    def events(self, reason=None):
        """Events that gracekeeper wrote here."""
        items = self.get("events.events.k8s.io")["items"]
        return [item for item in items if item.get("reportingController") == "gracekeeper"
                and reason in (None, item["reason"])]


def helm_path():
    """Helm's own, or the one that tests/setup unpacks; None where there is neither."""
    return shutil.which("helm", path=os.pathsep.join([os.environ["PATH"], str(ROOT / "target/test-env/bin")]))


def helm(*words, values=None):
    """Runs Helm, with values where there are any."""
    words = [*map(str, words), *([] if values is None else ["--values=-"])]
    stdin = None if values is None else json.dumps(values)
    done = subprocess.run([helm_path(), *words], input=stdin, capture_output=True, text=True, timeout=330)
    if done.returncode:
        raise AssertionError(f"helm {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


@functools.cache
def server_version():
    """The cluster's, such as v1.36.2."""
    return json.loads(kubectl("version", "--output=json"))["serverVersion"]["gitVersion"]


def helm_template(chart, values):
    """The one document that a chart of one template renders, which is JSON."""
    text = helm("template", "parts", chart, "--show-only=templates/parts.yaml", f"--kube-version={server_version()}",
                values=values)
    return json.loads(next(line for line in text.splitlines() if line.startswith("{")))


def kubectl(*words, stdin=None, check=True, timeout=330, **more):
    done = subprocess.run(["kubectl", *words], input=stdin, capture_output=True, text=True, timeout=timeout, **more)
    if done.returncode and check:
        raise AssertionError(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
    return "" if done.returncode else done.stdout


class Pod:
    """What was seen of a pod, and when by this machine's clock."""

    def __init__(self, name):
        self.name = name
        self.object = {}
        self.seen = time.time()
        self.readiness = []  # (when, whether)
        self.deleted = None  # asked to go
        self.metadata_then = None  # as the API server had it then; the kubelet's last call moves the deadline
        self.gone = None
        self.logged = False

    @property
    def ready(self):
        """Whether it is, by the same object that says the rest."""
        conditions = self.object.get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    @property
    def took(self):
        """Seconds from deletion to gone."""
        return self.gone - self.deleted if self.gone and self.deleted else None

    def containers(self):
        status = self.object.get("status", {})
        return status.get("containerStatuses", []) + status.get("initContainerStatuses", [])

    def last_words(self, container):
        """A container's termination message, of now or of its life before."""
        for status in self.containers():
            if status["name"] == container:
                for state in (status.get("state"), status.get("lastState")):
                    message = (state or {}).get("terminated", {}).get("message")
                    if message:
                        return message.strip()
        return None

    def take(self, kind, item):
        now = time.time()
        self.object = item
        if not self.readiness or self.readiness[-1][1] != self.ready:
            self.readiness.append((now, self.ready))
        if item["metadata"].get("deletionTimestamp") and not self.deleted:
            self.deleted = now
            self.metadata_then = item["metadata"]
        if kind == "DELETED":
            self.gone = now


class Watch:
    """Follows all pods of a namespace."""

    def __init__(self, namespace):
        self.seen = {}
        self.namespace = namespace
        self.stopped = False
        self.process = None
        self.logs = []
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()

    def follow(self):
        # A watch ends when the API server does, and begins again with what is there then.
        words = ["get", "pods", "--watch", "--output-watch-events", "--output=json"]
        while True:
            self.miss()
            with self.lock:
                if self.stopped:
                    return
                self.process = subprocess.Popen(["kubectl", "--namespace", self.namespace.name, *words],
                                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            for line in self.process.stdout:
                event = json.loads(line)
                self.take(event["type"], event["object"])
            time.sleep(0.2)

    def miss(self):
        """Pods that went while there was no watch are gone by now."""
        if self.seen and not self.stopped:
            text = self.namespace.kubectl("get", "pods", "--output=json", "--request-timeout=10s", check=False)
            there = text and {item["metadata"]["uid"] for item in json.loads(text)["items"]}
            for uid, pod in self.seen.items():
                if text and uid not in there and not pod.gone:
                    pod.gone = time.time()

    def take(self, kind, item):
        if item["kind"] == "Pod":
            name = item["metadata"]["uid"]
            pod = self.seen.setdefault(name, Pod(item["metadata"]["name"]))
            pod.take(kind, item)
            if LOGS and pod.readiness[-1][1] and not pod.logged:
                pod.logged = True
                self.keep_log(pod)

    def keep_log(self, pod):
        """A pod's log goes with the pod, so it is followed from when the pod is ready."""
        folder = pathlib.Path(LOGS, "logs", self.namespace.name)
        folder.mkdir(parents=True, exist_ok=True)
        words = ["logs", pod.name, "--all-containers", "--prefix", "--timestamps", "--follow"]
        with (folder / f"{pod.name}.log").open("w") as file, self.lock:
            self.logs = [log for log in self.logs if log.poll() is None]
            if not self.stopped:
                self.logs.append(subprocess.Popen(["kubectl", "--namespace", self.namespace.name, *words],
                                                  stdout=file, stderr=subprocess.DEVNULL))

    def stop(self):
        with self.lock:
            self.stopped = True
            if self.process:
                self.process.terminate()

    def stop_logs(self):
        """Apart from `stop`, after which no more are followed: a pod has its last words when its namespace goes."""
        for log in self.logs:
            log.terminate()

    def of(self, app="shop"):
        pods = [pod for pod in list(self.seen.values())
                if app in (label(pod, "app"), label(pod, "app.kubernetes.io/name"))]
        return sorted(pods, key=lambda pod: pod.seen)

    def there(self, app="shop"):
        """Those that are there now, of which there must be some."""
        return wait_for(f"pods of {app}", lambda: [pod for pod in self.of(app) if not pod.gone], 10)

    def all_gone(self, pods, seconds=180):
        wait_for("pods to be gone", lambda: all(pod.gone for pod in pods), seconds)


def label(pod, name):
    return pod.object.get("metadata", {}).get("labels", {}).get(name)
