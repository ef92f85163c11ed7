"""A rolling restart under load, in each of the ways to stop a pod."""

import math
import time
from dataclasses import dataclass

import shop
from load import Load
from result import Result

# Defaults of gracekeeper: a drain takes MIN_WAIT at least, and MAX_QUIET is the longest that nothing must arrive for it to
# mean that nothing will. How long it is follows from how much arrived.
MIN_WAIT = 5
MAX_QUIET = 10
# Between the end of a drain and the pod's being gone: the hook's answer, and the kubelet, which may be busy.
SLACK = 7

WAYS = ["no hook", "sleep 5", "sleep 15", "gracekeeper, metric", "gracekeeper, port"]
# For an app that finishes its work by itself.
HANDOVERS = ["gracekeeper, metric, graceful", "gracekeeper, port, graceful"]

# How late routes are at the most.
LATE = {"fast": 0, "slow": 12}


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

    @property
    def hook_limit(self):
        """Seconds that a handover may take: with fast routes those of the sleep that loses nothing there, and 3 for new
        connections; with slow ones until they have followed, and the longest silence after that."""
        if self.routes == "slow":
            return LATE["slow"] + MAX_QUIET
        return 15 if self.loses_last else 5 + 3

    def play(self, cluster, result):
        result.cell = self
        with cluster.namespace(slug(self.name), result) as ns:
            spec = shop.stopped_by(ns.images, self.way, self.told, self.manners == "rude")
            shop.opened(ns, shop.workload("Deployment", spec))
            load = Load(ns, f"--connections={self.connections}")
            result.pods = ns.restarted()
            # Who is still sent to those that are gone is lost as well.
            time.sleep(15 if self.routes == "slow" else 3)
            result.outcomes.append(load.stop())
            result.events = ns.events()
            self.judge(ns, result)

    def judge(self, ns, result):
        """What is claimed of gracekeeper."""
        if not self.way.startswith("gracekeeper"):
            return
        if self.way in HANDOVERS:
            judge_handover(result, self.hook_limit)
        else:
            judge_haste(result, self.loses_last)
        # An app that ends closes its idle connections, and a request that is on its way there is lost: the sleeps lose it too,
        # and `last_requests` compares them.
        if not self.loses_last:
            assert result.failed == 0, str(result.outcomes[0])
        result.told_exactly(ns)


def scenarios(routes):
    for manners in ("polite", "rude"):
        for connections in ("new", "keep-alive"):
            for way in WAYS + (HANDOVERS if manners == "polite" else []):
                # Without a hook the app is not told.
                for told in (False, True) if way != "no hook" else (False,):
                    cell = Cell(routes, manners, connections, way, told)
                    yield cell.name, cell.play


def slug(name):
    return "".join(letter if letter.isalnum() else "-" for letter in name).replace("--", "-")


def judge_haste(result, stay):
    """A pod is gone soon after its last answer, unless clients `stay` as long as they have anything to ask; and where
    that leaves the time, before `sleep 15` would have let its app stop."""
    for pod in result.pods:
        busy = max((at / 1000 - pod.deleted for at, _ in result.outcomes[0].inflight(pod)), default=0)
        said = f"{pod.name} had work for {busy:.1f} s, and was gone after {pod.took:.1f} s"
        assert stay or pod.took <= max(busy, MIN_WAIT) + MAX_QUIET + SLACK, said
        assert busy >= 15 - SLACK or pod.took < 15, said


def judge_handover(result, hook_limit):
    """Once routes have changed the app has the rest, whatever clients keep their connections."""
    assert result.verdicts() == f"{len(result.pods)} handed-over", result.verdicts()
    for pod in result.pods:
        busy = max((at / 1000 - pod.deleted for at, _ in result.outcomes[0].inflight(pod)), default=0)
        said = f"{pod.name} had work for {busy:.1f} s, and was gone after {pod.took:.1f} s"
        assert pod.took <= max(busy, hook_limit) + SLACK, said


def compared(results):
    """Cells beside each other."""
    yield from premise(results)
    yield from last_requests(results)


def premise(results):
    """Slow routes go on leading to pods that are gone, or what is survived with them proves nothing."""
    refused = {}
    for result in results:
        if result.cell and result.outcomes and (result.cell.connections, result.cell.way) == ("new", "no hook"):
            outcome, = result.outcomes
            refused[result.cell.routes, result.cell.manners] = outcome.failed - outcome.lost_on_connections()
    slow = {manners: n for (routes, manners), n in refused.items() if routes == "slow"}
    if slow:
        # Where only slow ones were played, there must be some at all.
        fast = {manners: refused.get(("fast", manners), 0) for manners in slow}
        row = Result("slow routes are slow: without a hook, more new connections are refused than with fast ones")
        row.note = "; ".join(f"{manners} app: {n} and {fast[manners]} refused" for manners, n in slow.items())
        if any(n <= fast[manners] for manners, n in slow.items()):
            row.state, row.why = "failed", row.note
        yield row


def last_requests(results):
    """What each way loses where a keep-alive client is not told."""
    groups = {}
    for result in results:
        if result.cell and result.cell.loses_last and result.outcomes:
            groups.setdefault((result.cell.routes, result.cell.manners), {})[result.cell.way] = result.failed
    for (routes, manners), lost in groups.items():
        sleeps = [n for way, n in lost.items() if way.startswith("sleep")]
        ours = [n for way, n in lost.items() if way.startswith("gracekeeper")]
        if not sleeps or not ours:
            continue
        name = (f"{routes} routes: {manners} app, keep-alive, not told: gracekeeper loses no more than the best sleep, "
                "within chance")
        most = min(sleeps) + chance(min(sleeps))
        comparison = Result(name, note=f"{', '.join(map(str, ours))} lost; the sleeps {', '.join(map(str, sleeps))}; "
                                       f"up to {most} is chance")
        if max(ours) > most:
            comparison.state, comparison.why = "failed", comparison.note
        yield comparison


def chance(count):
    """By how much another count of the same may be larger: both are of chance, such as which connections have a request
    on them when a pod ends. The root of their sum is the deviation of their difference, of which three are allowed."""
    # The largest n for which n² <= 9 (2 count + n).
    return int((9 + math.sqrt(81 + 72 * count)) / 2)
