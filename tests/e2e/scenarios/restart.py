"""A rolling restart under load, in each of the ways to stop a pod."""

import math
import time

import shop
from load import Load
from result import Result

# Between a pod's last answer and its being gone: quiet for a second, the hook's answer, and the kubelet, which may be busy.
SLACK = 7

WAYS = ["no hook", "sleep 5", "sleep 15", "gracekeeper, metric", "gracekeeper, port"]


def scenarios(slow):
    """Each cell: an app's manners, how its clients connect, the way that it is stopped, whether it is told."""
    routes = "slow routes" if slow else "fast routes"
    for manners in ("polite", "rude"):
        for connections in ("new", "keep-alive"):
            for way in WAYS:
                # Nobody can be told without a hook, and a client that goes anyway need not be.
                for told in (False, True) if connections == "keep-alive" and way != "no hook" else (False,):
                    name = f"{routes}: {manners} app, {connections}, {way}{', told' if told else ''}"
                    yield name, cell(name, manners == "rude", connections, way, told, slow)


def cell(name, rude, connections, way, told, slow):
    def story(cluster, result):
        with cluster.namespace(slug(name)) as ns:
            spec = shop.stopped_by(ns.images, way, told, rude)
            shop.opened(ns, shop.workload("Deployment", spec))
            load = Load(ns, f"--connections={connections}")
            old = ns.pods.there()
            ns.kubectl("rollout", "restart", "deployment/shop")
            ns.settled()
            ns.pods.all_gone(old)
            # Who is still sent to those that are gone is lost as well.
            time.sleep(15 if slow else 3)
            result.outcomes.append(load.stop())
            result.pods, result.events = old, ns.events()
            judge(result, connections, way, told)

    return story


def slug(name):
    return "".join(letter if letter.isalnum() else "-" for letter in name).replace("--", "-")


def judge_haste(result):
    """Where the work leaves the time, a pod is gone before `sleep 15` would have let its app stop."""
    for pod in result.pods:
        busy = max((at / 1000 - pod.deleted for at, _ in result.outcomes[0].inflight(pod)), default=0)
        if busy < 15 - SLACK:
            assert pod.took < 15, f"{pod.name} had work for {busy:.1f} s, and was gone after {pod.took:.1f} s"


def compared(results):
    """Beside each other: clients that keep their connections, and of which the app is not told."""
    for routes in ("fast routes", "slow routes"):
        for manners in ("polite", "rude"):
            common = f"{routes}: {manners} app, keep-alive, "
            lost = {result.name.removeprefix(common): result.failed for result in results
                    if result.name.startswith(common) and result.outcomes and not result.name.endswith("told")}
            sleeps = [n for way, n in lost.items() if way.startswith("sleep")]
            ours = [n for way, n in lost.items() if way.startswith("gracekeeper")]
            if not sleeps or not ours:
                continue
            comparison = Result(f"{common}not told: gracekeeper loses no more than the best sleep")
            comparison.note = f"{', '.join(map(str, ours))} lost; the sleeps {', '.join(map(str, sleeps))}"
            # Each count is of chance: which connections have a request on them when a pod ends.
            if max(ours) > min(sleeps) + 3 * math.sqrt(max(ours) + min(sleeps)):
                comparison.state, comparison.why = "failed", comparison.note
            yield comparison


def judge(result, connections, way, told):
    """What is claimed."""
    if not way.startswith("gracekeeper"):
        return
    outcome = result.outcomes[0]
    judge_haste(result)
    if connections == "new" or told:
        assert outcome.failed == 0, str(outcome)
    assert result.cut == outcome.cut(), f"told of {result.cut} requests cut off, clients saw {outcome.cut()}"
