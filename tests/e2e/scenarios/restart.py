"""A rolling restart under load, in each of the ways to stop a pod."""

import math
import time
from dataclasses import dataclass

import shop
from load import Load
from result import Result

# Between a pod's last answer and its being gone: quiet for a second, the hook's answer, and the kubelet, which may be busy.
SLACK = 7

WAYS = ["no hook", "sleep 5", "sleep 15", "gracekeeper, metric", "gracekeeper, port"]


@dataclass(frozen=True)
class Cell:
    """An app's manners, how its clients connect, the way that it is stopped, and whether it is told."""

    routes: str
    manners: str
    connections: str
    way: str
    told: bool

    @property
    def name(self):
        return f"{self.routes} routes: {self.manners} app, {self.connections}, {self.way}{', told' if self.told else ''}"

    @property
    def loses_last(self):
        """Whether a client's last request may be lost in any way: it keeps its connection, and the app is not told."""
        return self.connections == "keep-alive" and not self.told

    def play(self, cluster, result):
        result.cell = self
        with cluster.namespace(slug(self.name)) as ns:
            spec = shop.stopped_by(ns.images, self.way, self.told, self.manners == "rude")
            shop.opened(ns, shop.workload("Deployment", spec))
            load = Load(ns, f"--connections={self.connections}")
            result.pods = ns.restarted()
            # Who is still sent to those that are gone is lost as well.
            time.sleep(15 if self.routes == "slow" else 3)
            result.outcomes.append(load.stop())
            result.events = ns.events()
            self.judge(result)

    def judge(self, result):
        """What is claimed of gracekeeper."""
        if not self.way.startswith("gracekeeper"):
            return
        judge_haste(result)
        if not self.loses_last:
            assert result.failed == 0, str(result.outcomes[0])
        result.told_exactly()


def scenarios(routes):
    for manners in ("polite", "rude"):
        for connections in ("new", "keep-alive"):
            for way in WAYS:
                # Nobody can be told without a hook, and a client that goes anyway need not be.
                for told in (False, True) if connections == "keep-alive" and way != "no hook" else (False,):
                    cell = Cell(routes, manners, connections, way, told)
                    yield cell.name, cell.play


def slug(name):
    return "".join(letter if letter.isalnum() else "-" for letter in name).replace("--", "-")


def judge_haste(result):
    """Where the work leaves the time, a pod is gone before `sleep 15` would have let its app stop."""
    for pod in result.pods:
        busy = max((at / 1000 - pod.deleted for at, _ in result.outcomes[0].inflight(pod)), default=0)
        if busy < 15 - SLACK:
            assert pod.took < 15, f"{pod.name} had work for {busy:.1f} s, and was gone after {pod.took:.1f} s"


def compared(results):
    """Beside each other: what each way loses where a keep-alive client is not told."""
    groups = {}
    for result in results:
        if result.cell and result.cell.loses_last and result.outcomes:
            groups.setdefault((result.cell.routes, result.cell.manners), {})[result.cell.way] = result.failed
    for (routes, manners), lost in groups.items():
        sleeps = [n for way, n in lost.items() if way.startswith("sleep")]
        ours = [n for way, n in lost.items() if way.startswith("gracekeeper")]
        if not sleeps or not ours:
            continue
        name = f"{routes} routes: {manners} app, keep-alive, not told: gracekeeper loses no more than the best sleep"
        comparison = Result(name, note=f"{', '.join(map(str, ours))} lost; the sleeps {', '.join(map(str, sleeps))}")
        # Each count is of chance: which connections have a request on them when a pod ends.
        if max(ours) > min(sleeps) + 3 * math.sqrt(max(ours) + min(sleeps)):
            comparison.state, comparison.why = "failed", comparison.note
        yield comparison
