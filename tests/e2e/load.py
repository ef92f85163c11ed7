"""Customers as a pod of the cluster, at the Service's own address."""

import json
import re

from cluster import wait_for
from shop import SECURITY


class Load:
    """Requests from here to `stop`; then what became of them."""

    def __init__(self, namespace, *flags, service="shop", name="load"):
        self.namespace = namespace
        self.name = name
        address = namespace.get("service", service)["spec"]["clusterIP"]
        address = f"[{address}]" if ":" in address else address
        namespace.run(name, {
            "name": "load",
            "image": namespace.images["shop"],
            "imagePullPolicy": "IfNotPresent",
            "args": ["load", f"{address}:80", *flags],
            "securityContext": SECURITY,
        }, app="load")
        self.answered(at_least=100)

    def ask(self, method, path):
        status, body = self.namespace.ask(self.name, method, f"http://127.0.0.1:9000{path}", check=False)
        return body if status == 200 else None

    def answered(self, at_least):
        """Waits until so many requests have been answered."""
        wait_for(f"{at_least} requests to be answered", lambda: int(self.ask("GET", "/") or 0) >= at_least)

    def close(self):
        """No new request comes; those in flight are answered."""
        wait_for("the load to take note", lambda: self.ask("POST", "/stop"), 20)

    def outcome(self):
        """Waits for what is under way, and tells what was lost."""
        path = "--output=jsonpath={.status.phase}"
        wait_for("the load's end", lambda: self.namespace.kubectl("get", "pod", self.name, path) in ("Succeeded", "Failed"))
        lines = self.namespace.kubectl("logs", self.name, "--tail=-1").splitlines()
        told = [json.loads(line) for line in lines]
        return Outcome(told[-1], [line["lost"] for line in told[:-1]])

    def stop(self):
        self.close()
        return self.outcome()


class Outcome:
    """What became of the requests of a load, or of several."""

    def __init__(self, summary, lost):
        self.requests = summary["requests"]
        self.failed = summary["failed"]
        self.losses = summary["losses"]
        self.began, self.ended = summary["began"] / 1000, summary["ended"] / 1000
        self.pods = summary["pods"]
        self.lost = lost
        assert self.failed == len(lost), f"{self.failed} requests failed, and {len(lost)} of them were told"

    def inflight(self, pod):
        """What it had in flight at a pod: milliseconds since 1970 and how many, whenever that changed."""
        return self.pods.get(pod.name, {}).get("inflight", [])

    def lost_on_connections(self):
        """Those that were lost once they had a connection, whether the app had taken them or not."""
        return sum(not one["lost"].startswith("no connection") for one in self.lost)

    def never_answered(self, pod):
        """Of the requests that this pod's app took, how many have no answer that reached a client."""
        said = pod.last_words("shop") or ""
        taken = re.search(r"(\d+) requests taken", said)
        assert taken, f"the app of {pod.name} has not told how many requests it took, but: {said}"
        return int(taken[1]) - self.pods.get(pod.name, {}).get("answered", 0)

    def __str__(self):
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(self.losses.items(), key=lambda item: -item[1]))
        return f"{self.failed:,} of {self.requests:,} failed" + (f" ({kinds})" if kinds else "")
