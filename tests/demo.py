"""Shows the main job at work: an app with slow requests in flight is stopped twice, as Kubernetes stops a pod.

First with a hook that sleeps for a guessed time, then with gracekeeper. Standard library alone.
"""

import json
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
GRACEKEEPER = sys.argv[1]
REQUESTS = {"alice": 2.0, "bob": 4.5, "carol": 8.0}
GUESS = 5
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Story:
    """Prints what happens, with the seconds since the pod's deletion."""

    def __init__(self):
        self.began = time.monotonic()

    def say(self, who, what):
        print(f"  {time.monotonic() - self.began:5.1f}s  {who:<12} {what}", flush=True)


def fetch(url):
    try:
        with OPENER.open(url, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def start(command):
    """Starts a program and returns it with the address it prints."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        found = re.search(r"(?:http://|address=)(127\.0\.0\.1:\d+)", line)
        if found:
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return process, "http://" + found[1]
    sys.exit(f"{command[0]} did not start")


def customers(story, shop):
    """Requests in flight, and a list that will hold who was served."""
    served = []

    def shop_for(name, seconds):
        try:
            fetch(f"{shop}/work?seconds={seconds}&name={name}")
            served.append(name)
            story.say(name, f"got the answer to a request of {seconds:g}s")
        except OSError as error:
            story.say(name, f"LOST a request of {seconds:g}s: {error}")

    threads = [threading.Thread(target=shop_for, args=item) for item in REQUESTS.items()]
    for thread in threads:
        thread.start()
    while f"shop_customers {len(REQUESTS)}" not in fetch(f"{shop}/metrics")[1]:
        time.sleep(0.01)
    return threads, served


def stop(story, app, threads):
    app.send_signal(signal.SIGTERM)
    story.say("kubelet", "sends SIGTERM to the app, which dies at once")
    app.wait()
    for thread in threads:
        thread.join()


def with_a_sleep():
    app, shop = start([sys.executable, str(ROOT / "tests/apps/shop.py")])
    story = Story()
    threads, served = customers(story, shop)
    story.say("kubelet", f"the pod is deleted; the preStop hook is `sleep {GUESS}`")
    time.sleep(GUESS)
    stop(story, app, threads)
    return served


def with_gracekeeper():
    app, shop = start([sys.executable, str(ROOT / "tests/apps/shop.py")])
    source = f"prometheus+{shop}/metrics#shop_customers"
    keeper, base = start([GRACEKEEPER, "run", "--listen=127.0.0.1:0", f"--inflight={source}"])
    try:
        story = Story()
        story.say("readiness", f"{fetch(f'{base}/readyz')[0]}, the pod gets traffic")
        threads, served = customers(story, shop)
        story.say("kubelet", "the pod is deleted; calls the preStop hooks and waits")
        answers = []
        hooks = [
            threading.Thread(target=lambda path=path: answers.append(fetch(base + path)))
            for path in ("/prestop/app", "/prestop/self")
        ]
        for hook in hooks:
            hook.start()
        while fetch(f"{base}/readyz")[0] == 200:
            time.sleep(0.01)
        story.say("readiness", f"{fetch(f'{base}/readyz')[0]}, the pod gets no new traffic")
        shown = None
        while hooks[0].is_alive():
            status = json.loads(fetch(f"{base}/status")[1])
            inflight = status["sources"][0]["inflight"]
            if status["phase"] == "draining" and inflight != shown:
                shown = inflight
                left = status["deadlineInSeconds"]
                story.say("gracekeeper", f"{inflight} in flight; at most {left:.0f}s left")
            time.sleep(0.05)
        for hook in hooks:
            hook.join()
        verdict = json.loads(answers[0][1])
        said = ", ".join(f"{key} {verdict[key]}" for key in ("outcome", "tookSeconds", "inflight"))
        story.say("gracekeeper", f"answers the hooks: {said}")
        stop(story, app, threads)
        keeper.send_signal(signal.SIGTERM)
        keeper.wait()
        story.say("gracekeeper", f"ends too, exit status {keeper.returncode}")
        return served, verdict
    finally:
        keeper.kill()


def main():
    print(f"An app has {len(REQUESTS)} requests in flight when its pod is deleted. On SIGTERM it dies at once.\n")
    print(f"1. With a preStop hook that sleeps {GUESS} seconds:")
    by_sleep = with_a_sleep()
    print("\n2. With gracekeeper:")
    by_keeper, verdict = with_gracekeeper()
    total = len(REQUESTS)
    print(f"\nsleep {GUESS}: {len(by_sleep)} of {total} requests answered; gracekeeper: {len(by_keeper)} of {total}.")
    if len(by_keeper) != total or verdict["outcome"] != "drained":
        sys.exit("demo: gracekeeper lost a request")


main()
