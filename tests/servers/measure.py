"""One server, started for real and told to end: what its clients and a stopwatch see."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import clients

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ENV = ROOT / "target/servers-env"

# A request in flight takes so long, and the signal comes so long after its beginning.
SLOW = 8
BEFORE = 1.5
# And its client goes on using the connection for so long.
USED = 3
# How long a server is watched that has requests which end, and one whose request never does.
WATCHED = 25
ENDLESS = 40
# A new connection that has no answer by then hangs.
PATIENCE = 1.5


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(what, condition, seconds=180):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise TimeoutError(f"waited {seconds} s in vain for {what}")


class Running:
    """A server, as PID 1 of a PID namespace as in a container, or as an ordinary process; and what it has behind it."""

    def __init__(self, server, pid1, stack):
        self.server = server
        self.port = free_port()
        self.folder = tempfile.mkdtemp(prefix="servers-")
        stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        words = {"PORT": str(self.port), "ADMIN": str(free_port()), "FOLDER": self.folder, "APPS": str(HERE / "apps"),
                 "ENV": str(ENV), "VENV": str(ENV / "venv/bin"), **server.words}
        if server.backend:
            words["BACKEND"] = str(free_port())
            behind = subprocess.Popen([sys.executable, HERE / "apps/backend.py", words["BACKEND"]],
                                      stderr=subprocess.DEVNULL)
            stack.callback(behind.wait)
            stack.callback(behind.kill)
            wait_for("the backend", lambda: connects(int(words["BACKEND"])))
        for name in server.files:
            text = (HERE / "apps/conf" / name).read_text()
            pathlib.Path(self.folder, name).write_text(filled(text, words))
        command = [filled(word, words) for word in server.command]
        environment = os.environ | {
            "PYTHONPATH": str(HERE / "apps"), "NODE_PATH": str(HERE / "node/node_modules"), "PYTHONUNBUFFERED": "1",
            **{name: filled(value, words) for name, value in server.environment.items()}}
        if pid1:
            command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *command]
        # It goes with this program, however that ends.
        command = ["setpriv", "--pdeathsig", "KILL", *command]
        self.log = open(os.path.join(self.folder, "log"), "w")
        self.process = subprocess.Popen(command, env=environment, cwd=self.folder, stdout=self.log, stderr=self.log)
        stack.callback(self.end)
        self.pid = wait_for("the server's process", self.child) if pid1 else self.process.pid
        try:
            wait_for("the first answer", self.answers)
        except TimeoutError as why:
            raise TimeoutError(f"{why}; its log: {pathlib.Path(self.folder, 'log').read_text()[-2000:]}") from None

    def child(self):
        said = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(said[0]) if said else None

    def connect(self, timeout=60):
        return self.server.protocol(self.port, timeout)

    def answers(self):
        assert self.process.poll() is None, pathlib.Path(self.folder, "log").read_text()[-2000:]
        try:
            connection = self.connect(5)
        except OSError:
            return False
        with contextlib.closing(connection):
            try:
                return connection.ask("hello") == "hello"
            except (clients.Lost, TimeoutError):
                return False

    def kill(self, number):
        os.kill(self.pid, number)

    def gone(self):
        return self.process.poll() is not None

    def end(self):
        if self.process.poll() is None:
            # The child first: what is left of a namespace goes with its PID 1.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(2)
            self.process.kill()
            self.process.wait()
        self.log.close()


def connects(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def filled(text, words):
    """The text with what stands for each of these words."""
    longest_first = sorted(words, key=len, reverse=True)
    return re.sub("|".join(longest_first), lambda found: words[found[0]], text)


class Observed:
    """What is seen of one server after its signal, in seconds since it."""

    def __init__(self, running):
        self.running = running
        self.at = None
        self.over = threading.Event()
        self.slow, self.slow_at = None, None
        # What becomes of its connection: None if it is served on.
        self.then = None
        self.idle_at = None
        self.new = []  # (when it was tried, what came of it)

    def since(self):
        return time.monotonic() - self.at

    def slow_request(self, connection):
        """A request that is in flight when the signal comes. Its client goes on using the connection for a while, unless the
        server says that it will close it, or does."""
        try:
            self.slow = "answered" if connection.ask(str(SLOW)) == "done" else "garbled"
        except (clients.Lost, TimeoutError) as why:
            self.slow = f"lost: {why}"
        self.slow_at = self.since()
        if self.slow != "answered":
            return
        end = time.monotonic() + USED
        while time.monotonic() < end and not self.then:
            if connection.farewell or connection.closed(0.05):
                self.then = "told" if connection.farewell else "closed"
                break
            try:
                connection.ask("hello")
            except (clients.Lost, TimeoutError) as why:
                self.then = f"lost: {why}"
        if self.then != "told":
            self.until_closed(connection)
        connection.close()

    def until_closed(self, connection):
        """When the server closes a connection that is not used; None if it does not."""
        while not self.over.is_set():
            if connection.closed(0.2):
                return None if self.over.is_set() else max(self.since(), 0) if self.at else -1
        return None

    def idle_connection(self, connection):
        self.idle_at = self.until_closed(connection)
        # As clients do.
        connection.close()

    def new_connection(self):
        when = self.since()
        try:
            connection = self.running.connect(PATIENCE)
        except ConnectionRefusedError:
            came = "refused"
        except TimeoutError:
            came = "hangs"
        except OSError:
            came = "reset"
        else:
            with contextlib.closing(connection):
                try:
                    connection.ask("hello")
                    came = "answered"
                except TimeoutError:
                    came = "hangs"
                except clients.Lost:
                    came = "reset"
        if not self.running.gone() or came == "answered":
            self.new.append((when, came))

    def watch(self, number):
        running = self.running
        slow, idle = running.connect(), running.connect()
        idle.ask("hello")
        threads = [threading.Thread(target=self.slow_request, args=[slow]),
                   threading.Thread(target=self.idle_connection, args=[idle])]
        for thread in threads:
            thread.start()
        time.sleep(BEFORE)
        self.at = time.monotonic()
        running.kill(number)
        tries = []
        while not running.gone() and self.since() < WATCHED:
            tries.append(threading.Thread(target=self.new_connection))
            tries[-1].start()
            time.sleep(0.05)
        exited = self.since() if running.gone() else None
        if exited is not None:
            # What it closed as it went is seen.
            time.sleep(0.5)
        self.over.set()
        running.end()
        for thread in [*tries, *threads]:
            thread.join()
        return {
            "exit": exited and round(exited, 2),
            "status": running.process.returncode if exited else None,
            "slow": self.slow, "slowAt": round(self.slow_at, 2), "then": self.then,
            "idleClosed": self.idle_at if self.idle_at is None else round(self.idle_at, 3),
            "new": summary(self.new),
        }


def summary(tries):
    """What came of new connections: how many each, and until when the last was answered."""
    counts = {}
    for _, came in tries:
        counts[came] = counts.get(came, 0) + 1
    answered = [when for when, came in tries if came == "answered"]
    return {"counts": counts, "lastAnswered": round(max(answered), 2) if answered else None}


def endless(server, number, pid1=True):
    """When a server is gone that has a request which never ends."""
    with contextlib.ExitStack() as stack:
        running = Running(server, pid1, stack)
        connection = running.connect(2 * ENDLESS)

        def ask():
            with contextlib.suppress(clients.Lost, TimeoutError, OSError):
                connection.ask("3600")

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(1)
        began = time.monotonic()
        running.kill(number)
        while not running.gone() and time.monotonic() - began < ENDLESS:
            time.sleep(0.02)
        took = round(time.monotonic() - began, 2) if running.gone() else None
        running.end()
        thread.join()
        return took


def measure(server):
    """All that the table says of a server."""
    number = signal.Signals[server.signal]
    with contextlib.ExitStack() as stack:
        seen = Observed(Running(server, True, stack)).watch(number)
    seen["endless"] = endless(server, number)
    if seen["exit"] is None and seen["endless"] is None:
        # It may ignore the signal because it is PID 1.
        seen["endlessNotPid1"] = endless(server, number, pid1=False)
    return seen
