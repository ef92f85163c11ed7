"""What a scenario came to."""

import re
import statistics
from dataclasses import dataclass, field


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

    def told_exactly(self):
        """The sidecars told of each request that was cut off, and of no other.

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

    def gone_after(self):
        """Seconds from deletion to gone: the median of the pods, and the most."""
        times = [pod.took for pod in self.pods if pod.took is not None]
        return (statistics.median(times), max(times)) if times else None

    def verdicts(self):
        """How often each verdict was given."""
        counts = {}
        for pod in self.pods:
            words = (pod.last_words("gracekeeper") or "").split()
            if words:
                counts[words[0]] = counts.get(words[0], 0) + 1
        return ", ".join(f"{n} {verdict}" for verdict, n in sorted(counts.items()))

    def cells(self):
        gone = self.gone_after()
        return [
            self.name,
            f"{self.requests:,}" if self.outcomes else "",
            f"{self.failed:,}" if self.outcomes else "",
            "" if self.cut is None else f"{self.cut:,}",
            f"{gone[0]:.1f} / {gone[1]:.1f} s" if gone else "",
            self.verdicts(),
            ": ".join(word for word in (self.state, self.why or self.note) if word),
        ]


def cut_by(pod):
    """How many requests a pod's sidecar says were cut off."""
    found = re.search(r"requests cut off: (\d+)", pod.last_words("gracekeeper"))
    return int(found[1]) if found else 0


COLUMNS = ["scenario", "requests", "failed", "cut, as told", "gone after, median / most", "verdicts", "result"]


def table(results):
    """As Markdown."""
    rows = [COLUMNS, ["---"] * len(COLUMNS), *(result.cells() for result in results)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
