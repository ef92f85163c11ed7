"""Runs the scenarios against the cluster that KUBECONFIG names.

What the environment says:
    E2E_ONLY         only scenarios whose names have this pattern, or one of several with | between them
    E2E_JOBS         how many at once, 2 unless told
    E2E_LOAD         the command that brings an image to the nodes: $IMAGE is its name, $ARCHIVE a file as docker save
                     writes it; kind's, unless told
    E2E_REPORT       the folder for the report and the pods' logs
    E2E_RESTARTS     how many restarts there are in a row, 100 unless told
    E2E_SLOW_ROUTES  the command that makes the cluster's proxies slow to follow, and E2E_FAST_ROUTES its opposite
    E2E_API_STOP     the command that stops the API server, and E2E_API_START its opposite
What cannot be played for want of a command is skipped, and said to be.
"""

import argparse
import concurrent.futures
import contextlib
import fnmatch
import os
import pathlib
import queue
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import image
import report
from cluster import Cluster, Skipped, command, helm_path, needs, server_version
from result import Result, table
# The longest first, so that the others are played beside it.
from scenarios import STORIES, hundred, background, endings, grpc, injection, kubelet, mishaps, rehearsal, restart, security, shapes  # noqa: F401, I001

ONLY = os.environ.get("E2E_ONLY", "*").split("|")
JOBS = int(os.environ.get("E2E_JOBS", "2"))
# What automake's tests exit with to say that they were skipped.
SKIPPED = 77
INTERRUPTED = 130
REPORT = os.environ.get("E2E_REPORT")


def no_cluster():
    """Why there is nothing to run against, if so. What kubectl would take by itself is not taken."""
    if not any(map(os.path.exists, os.environ.get("KUBECONFIG", "").split(os.pathsep))):
        return "KUBECONFIG names none"
    if not shutil.which("kubectl"):
        return "there is no kubectl"
    done = subprocess.run(["kubectl", "version", "--request-timeout=5s"], capture_output=True, text=True)
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


def play(cluster, name, story):
    """Plays one scenario and says so."""
    result, began = Result(name), time.monotonic()
    try:
        story(cluster, result)
    except Skipped as why:
        result.state, result.why = "skipped", str(why)
    except Exception as why:
        result.state, result.why = "failed", str(why).replace("\n", " ") or type(why).__name__
        if not isinstance(why, AssertionError):
            traceback.print_exc()
    result.took = time.monotonic() - began
    said = [str(outcome) for outcome in result.outcomes]
    print(f"{result.state:>7} {result.took:5.0f} s  {name}: {'; '.join([*said, result.verdicts(), result.why])}",
          flush=True)
    return result


def everything():
    """Names, stories, and what each asks of the cluster: nothing, to be alone in it, or slow routes."""
    for name, story, alone in STORIES:
        yield name, story, "alone" if alone else "together"
    for name, story in restart.scenarios("fast"):
        yield name, story, "together"
    for name, story in restart.scenarios("slow"):
        yield name, story, "slow"


def wanted(kind):
    return [(name, story) for name, story, of in everything()
            if of == kind and any(fnmatch.fnmatch(name, f"*{pattern}*") for pattern in ONLY)]


def play_all(cluster, pool):
    """Results, as they come."""
    yield from pool.map(lambda one: play(cluster, *one), wanted("together"))
    yield from (play(cluster, *one) for one in wanted("alone"))
    if slow := wanted("slow"):
        yield from play_slow(cluster, pool, slow)


def play_slow(cluster, pool, slow):
    """Those that want slow routes."""
    slower, faster = ("E2E_SLOW_ROUTES", "make routes slow"), ("E2E_FAST_ROUTES", "make routes fast again")
    try:
        needs(*slower)
        needs(*faster)
    except Skipped as why:
        print(f"skipped: slow routes: {why}", flush=True)
        yield from (Result(name, "skipped", str(why)) for name, _ in slow)
        return
    with contextlib.ExitStack() as routes:
        change = cluster.changed(lambda: command(*slower), lambda: command(*faster))
        made = play(cluster, "routes are made slow", lambda *_: routes.enter_context(change))
        yield made
        if made.state == "ok":
            yield from pool.map(lambda one: play(cluster, *one), slow)
            yield play(cluster, "routes are made fast again", lambda *_: routes.close())


def play_and_tell(cluster, ended):
    """All of it; what to exit with is told in any case."""
    code = 1
    try:
        results = list(play_all(cluster, concurrent.futures.ThreadPoolExecutor(JOBS)))
        if cluster.over:
            return
        results.extend(restart.compared(results))
        print(f"\n{table(results)}\n")
        if REPORT:
            print(f"report: {report.write(pathlib.Path(REPORT), results, server_version())}")
        failed = sum(result.state == "failed" for result in results)
        skipped = sum(result.state == "skipped" for result in results)
        print(f"e2e: {len(results) - failed - skipped} passed, {failed} failed, {skipped} skipped", flush=True)
        code = 1 if failed else 0
    finally:
        ended.put(code)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("gracekeeper", nargs="?", help="the static binary; without any, only whether there is a cluster")
    parser.add_argument("shop", nargs="?", help="the app's")
    parser.add_argument("tools", nargs="?", help="gracekeeper with the tools, static too; without it some are skipped")
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    args = parser.parse_args()
    if args.list:
        print(*(name for kind in ("together", "alone", "slow") for name, _ in wanted(kind)), sep="\n")
        return
    why = no_cluster()
    if why:
        print(f"e2e: skipped: no cluster ({why}); set KUBECONFIG to one, such as kind makes")
        sys.exit(0 if args.gracekeeper else SKIPPED)
    if not helm_path():
        sys.exit("e2e: there is no helm, which installs the chart; install it, or run tests/setup, which unpacks one")
    if not args.gracekeeper:
        return
    # A signal interrupts nothing by itself: other threads play, and this one waits for the end or for a signal.
    ended = queue.SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # As a shell wants it for what it runs in the background, and nohup.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: ended.put(INTERRUPTED))
    with tempfile.TemporaryDirectory() as folder:
        binaries = {"gracekeeper": args.gracekeeper, "shop": args.shop, "tools": args.tools}
        images = {name: image.load(name, path, folder) for name, path in binaries.items() if path}
    cluster = Cluster(secrets.token_hex(2), images, binaries)
    threading.Thread(target=play_and_tell, args=(cluster, ended), daemon=True).start()
    code = ended.get()
    # The reader may be gone.
    with contextlib.suppress(OSError):
        if code == INTERRUPTED:
            print("e2e: interrupted; cleaning up", flush=True)
    try:
        cluster.clean_up()
    except Exception as why:
        code = code or 1
        with contextlib.suppress(OSError):
            print(f"e2e: not all is cleaned up: {why}", flush=True)
    # Stories that still run find their namespaces gone, and are not waited for.
    os._exit(code)


main()
