"""A rolling restart under load, in each of the ways to stop a pod."""

import time

import shop
from load import Load

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
            ns.apply(*shop.may_write_events(), shop.service(), shop.workload("Deployment", spec))
            ns.settled()
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


def judge(result, connections, way, told):
    """What is claimed."""
    if not way.startswith("gracekeeper"):
        return
    outcome = result.outcomes[0]
    if connections == "new" or told:
        assert outcome.failed == 0, str(outcome)
    assert result.cut == outcome.cut(), f"told of {result.cut} requests cut off, clients saw {outcome.cut()}"
