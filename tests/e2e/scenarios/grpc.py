"""The gRPC examples of deploy/examples, whose clients keep their channels for ever: no call fails over rolling restarts,
whether the app is told of the drain or not."""

import json
import pathlib
import subprocess
import tempfile

import image
import shop
from cluster import ROOT, Skipped, wait_for
from load import Outcome
from scenarios import scenario

EXAMPLES = ROOT / "deploy/examples"
CLIENTS = ROOT / "tests/e2e/grpc"
TEST_ENV = ROOT / "target/test-env"
RESTARTS = 3
FOLDER = "/run/drain"


def go_image(name):
    """An image of a Go program that tests/setup --go has built."""
    program = TEST_ENV / "bin" / name
    if not program.exists():
        raise Skipped(f"there is no {program.relative_to(ROOT)}; tests/setup --go builds it where Debian's grpc is")
    with tempfile.TemporaryDirectory() as folder:
        return image.load(name, program, folder), [], {}


def python_image(name, script):
    """An image of this machine's Python with the packages that gRPC needs, at the places where they are here."""
    python = TEST_ENV / "venv/bin/python"
    tell = ("import json, sys, sysconfig; p = sysconfig.get_paths(); "
            "print(json.dumps([sys.base_prefix, p['stdlib'], p['purelib']]))")
    done = subprocess.run([python, "-c", tell], capture_output=True, text=True)
    if done.returncode:
        raise Skipped("there is no environment of Python's; tests/setup makes it")
    prefix, library, packages = json.loads(done.stdout)
    left_out = ("site-packages", "dist-packages", "test", "idlelib", "ensurepip", "__pycache__", "config-")
    files = [path for path in pathlib.Path(library).rglob("*") if path.is_file()
             and not any(part.startswith(left_out) for part in path.relative_to(library).parts)]
    more = [(path, str(path).lstrip("/")) for path in files]
    for package in ("grpc", "grpc_health", "google", "typing_extensions.py"):
        place = pathlib.Path(packages, package)
        if not place.exists():
            raise Skipped(f"the environment of Python's has no {package}; tests/setup brings it")
        inside = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
        more += [(path, str(pathlib.Path("packages", path.relative_to(packages)))) for path in inside
                 if "__pycache__" not in path.parts]
    libraries = {word for path, _ in more if path.suffix == ".so"
                 for word in subprocess.run(["ldd", path], capture_output=True, text=True).stdout.split()
                 if word.startswith("/")}
    more += [(pathlib.Path(word).resolve(), word.lstrip("/")) for word in sorted(libraries)]
    environment = {"PYTHONHOME": prefix, "PYTHONPATH": "/packages", "PYTHONDONTWRITEBYTECODE": "1"}
    more.append((script, "program.py"))
    return image.load_program(name, str(python.resolve()), more), ["/program.py"], environment


def container(name, made, *args):
    """A container of such an image."""
    image_name, before, environment = made
    return {
        "name": name,
        "image": image_name,
        "imagePullPolicy": "IfNotPresent",
        "args": [*before, *args],
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "securityContext": shop.SECURITY,
    }


def server(images, language, told):
    """A pod of an example. The Go one is told by --notify, the Python one by --drain-file; without a sidecar, `told` is
    None."""
    made = (go_image("grpc-go") if language == "Go"
            else python_image("grpc-python", EXAMPLES / "grpc-python/server.py"))
    app = container("shop", made) | {
        "ports": [{"containerPort": 9000}],
        "readinessProbe": {"grpc": {"port": 9000}, "periodSeconds": 2},
    }
    if told is None:
        return shop.pod([app])
    notice = {}
    if told:
        notice = {"notify": ["http://127.0.0.1:9090/drain"]} if language == "Go" else {"drainFile": f"{FOLDER}/draining"}
    mount = {"name": "drain", "mountPath": FOLDER}
    parts = shop.keeper(images, appPorts=[9000], inflight=["go-grpc://127.0.0.1:9090"], appShutdown="graceful",
                        volumeMounts=[mount], **notice)
    app |= {"lifecycle": parts["hook"], "volumeMounts": [mount]}
    return shop.pod([app], [parts["sidecar"]], volumes=[{"name": "drain", "emptyDir": {}}])


class Client:
    """A client in a pod, from here to `stop`."""

    def __init__(self, ns, name, made):
        self.ns, self.name = ns, name
        address = ns.get("service", "shop")["spec"]["clusterIP"]
        address = f"[{address}]" if ":" in address else address
        ns.run(name, container("client", made, f"{address}:80"), app="load")
        wait_for(f"200 calls of {name} to be answered", lambda: int(self.ask("") or 0) >= 200, 240)

    def ask(self, path):
        return self.ns.kubectl("get", "--raw", f"/api/v1/namespaces/{self.ns.name}/pods/{self.name}:9000/proxy/{path}",
                               check=False)

    def stop(self):
        wait_for("the client to take note", lambda: self.ask("stop"), 20)
        phase = "--output=jsonpath={.status.phase}"
        wait_for("the client's end", lambda: self.ns.kubectl("get", "pod", self.name, phase) in ("Succeeded", "Failed"))
        told = [json.loads(line) for line in self.ns.kubectl("logs", self.name, "--tail=-1").splitlines()
                if line.startswith("{")]
        return Outcome(told[-1], told[:-1])


def restarted(cluster, result, language, told):
    """Restarts a Deployment of three some times, while a client in each language calls."""
    with cluster.namespace(f"grpc-{language.lower()}", result) as ns:
        shop.opened(ns, shop.service(port=9000), shop.workload("Deployment", server(ns.images, language, told)))
        clients = [Client(ns, "client-go", go_image("grpc-go-client")),
                   Client(ns, "client-python", python_image("grpc-python-client", CLIENTS / "client.py"))]
        gone = []
        for _ in range(RESTARTS):
            gone += ns.restarted()
        result.pods = gone
        result.outcomes += [client.stop() for client in clients]
        result.events = ns.events()


def judge(result):
    assert result.failed == 0, "; ".join(map(str, result.outcomes)) + f": {[out.lost[:3] for out in result.outcomes]}"
    assert result.verdicts() == f"{len(result.pods)} handed-over", result.verdicts()
    if result.cut:
        # The last frame of a client that leaves because of GOAWAY can look like a request.
        result.note = f"{result.cut} told as cut off, and none failed"
    # GracefulStop came to its end.
    codes = [status["state"]["terminated"]["exitCode"] for pod in result.pods for status in pod.containers()
             if status["name"] == "shop" and "terminated" in status["state"]]
    assert codes and not any(codes), f"exit statuses {codes}"


def scenarios():
    for language in ("Go", "Python"):
        for told in (True, False):

            def play(cluster, result, language=language, told=told):
                restarted(cluster, result, language, told)
                judge(result)

            scenario(f"gRPC for {language}, {'told' if told else 'not told'}: no call fails over {RESTARTS} restarts")(play)

        def without(cluster, result, language=language):
            restarted(cluster, result, language, None)

        scenario(f"gRPC for {language}, without gracekeeper, over {RESTARTS} restarts")(without)


scenarios()
