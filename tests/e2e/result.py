"""What a scenario came to."""

import re
import statistics
from dataclasses import dataclass, field

from cluster import wait_for

# Of up to so many pods each one's time is told, as there are in most scenarios.
FEW = 6


@dataclass
class Result:
    """One line of the table."""

    name: str
    state: str = "ok"  # ok, failed, skipped
    why: str = ""
    took: float = 0
    outcomes: list = field(default_factory=list)
    pods: list = field(default_factory=list)
    events: list = field(default_factory=list)
    note: str = ""
    anchor: str = ""
    cell: object = None  # which of those that are compared it is

    @property
    def requests(self):
        return sum(outcome.requests for outcome in self.outcomes)

    @property
    def failed(self):
        return sum(outcome.failed for outcome in self.outcomes)

    @property
    def cut(self):
        """How many requests the sidecars say were cut off; None where there was none to say it."""
        told = [cut_by(pod) for pod in self.pods if pod.last_words("gracekeeper")]
        return sum(told) if told else None

    def told_exactly(self, ns):
        """The sidecars told of each request that was cut off, and of no other, by message and by Event.

        Which those are is known from both ends: the app took them, and the client has no answer. Of one that reached a
        connection as it was closed, and that no app took, a sidecar may tell, and none must.
        """
        outcome, = self.outcomes
        taken = 0
        for pod in self.pods:
            assert pod.last_words("gracekeeper"), f"the sidecar of {pod.name} has left no message"
            here = outcome.never_answered(pod)
            assert here <= cut_by(pod), f"{pod.name}: told of {cut_by(pod)} requests cut off, and its app took {here}"
            taken += here
        lost = outcome.lost_on_connections()
        assert self.cut <= lost, f"told of {self.cut} requests cut off, and clients lost {lost}"
        if self.cut != lost:
            self.note = f"{lost - taken} of those lost reached no app"
        # A pod that does not serve again has one drain, and so one Event at most.
        cut = {pod.name: [cut_by(pod)] for pod in self.pods if cut_by(pod)}
        wait_for("the Events RequestsCut", lambda: cut.keys() <= cut_by_events(ns.events()).keys(), 20)
        self.events = ns.events()
        told = cut_by_events(self.events)
        assert told == cut, f"the Events tell of {told} requests cut off, and the messages of {cut}"

    def gone_after(self):
        """Seconds from deletion to gone, the quickest first."""
        return sorted(pod.took for pod in self.pods if pod.took is not None)

    def after_last_answer(self):
        """Seconds from the last answer that a pod gave until it was gone, the shortest first: a pod that knows what comes would
        be gone right then."""
        times = []
        for pod in self.pods:
            changes = [at for outcome in self.outcomes for at, _ in outcome.inflight(pod)]
            if changes and pod.took is not None:
                times.append(pod.gone - max(changes) / 1000)
        return sorted(times)

    def verdicts(self):
        """How often each verdict was given."""
        counts = {}
        for pod in self.pods:
            words = (pod.last_words("gracekeeper") or "").split()
            if words:
                counts[words[0]] = counts.get(words[0], 0) + 1
        return ", ".join(f"{n} {verdict}" for verdict, n in sorted(counts.items()))

    def cells(self):
        return [
            self.name,
            f"{self.requests:,}" if self.outcomes else "",
            f"{self.failed:,}" if self.outcomes else "",
            "" if self.cut is None else f"{self.cut:,}",
            in_short(self.gone_after()),
            in_short(self.after_last_answer()),
            self.verdicts(),
            ": ".join(word for word in (self.state, self.why or self.note) if word),
        ]


def in_short(times):
    """Each of a few times, or the median and the most."""
    told = times if len(times) <= FEW else [statistics.median(times), times[-1]]
    between = ", " if len(times) <= FEW else " / "
    return between.join(f"{seconds:.1f}" for seconds in told) + " s" if told else ""


def cut_by(pod):
    """How many requests a pod's sidecar says were cut off."""
    found = re.search(r"requests cut off: (\d+)", pod.last_words("gracekeeper"))
    return int(found[1]) if found else 0


def cut_by_events(events):
    """How many requests each pod's Events say were cut off: "3 requests were cut off", or "A request was"."""
    counts = {}
    for event in events:
        if event["reason"] == "RequestsCut":
            number = event["note"].split()[0]
            counts.setdefault(event["regarding"]["name"], []).append(1 if number == "A" else int(number))
    return counts


COLUMNS = [
    "scenario", "requests", "failed", "cut, as told", "gone after: each, or median / most", "after its last answer", "verdicts", "result",
]


def table(results):
    """As Markdown."""
    rows = [COLUMNS, ["---"] * len(COLUMNS), *(result.cells() for result in results)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
