"""What is recorded of the servers, as a Markdown table; and where it contradicts what the catalog says is right."""

import json
import pathlib
import re

import clients
from catalog import SERVERS
from measure import ENDLESS, WATCHED

BY_NAME = {server.name: server for server in SERVERS}
RESULTS = pathlib.Path(__file__).resolve().parent / "results.json"
GRACEFUL = ["server", "idle kept connections", "a connection in use, after its answer", "new connections",
            "ends after the last answer", "gives up", "set by"]
ABRUPT = ["server", "a request in flight", "what helps"]
# Seconds within which something happens "at once", on a busy machine.
AT_ONCE = 0.5


def recorded():
    """By the servers' names; of those that are in the catalog."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    return {one["name"]: one for one in results if one["name"] in BY_NAME}


def record(results):
    """One server a line, in the catalog's order."""
    lines = [json.dumps(results[one.name]) for one in SERVERS if one.name in results]
    RESULTS.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def lines_of(results):
    """Two tables: those that finish their work, and those that do not."""
    made = []
    for right, head, cells in (("graceful", GRACEFUL, finishing), ("abrupt", ABRUPT, dying)):
        rows = [cells(one, results[one.name]) for one in SERVERS if one.right == right and one.name in results]
        made.append([f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]])
    return made


def ignored(seen):
    """The signal does nothing to a process that is PID 1 and has no handler."""
    return seen["exit"] is None and seen["endless"] is None and seen.get("endlessNotPid1") is not None


def title(server, seen):
    software, *more = re.split("(,| on SIG)", server.name, maxsplit=1)
    return f"{software} {seen['version']}{''.join(more)}"


def finishing(server, seen):
    return [title(server, seen), idle(seen["idleClosed"]), used(server, seen), new_connections(seen["new"]["counts"]),
            after(seen), endless(seen["endless"]), server.setting]


def dying(server, seen):
    return [title(server, seen), cut_off(server, seen), server.setting]


def cut_off(server, seen):
    if ignored(seen):
        return f"cut off at once; as PID 1, {server.signal} is ignored, and it is cut off at the end of the grace period"
    return "cut off at once" if seen["slowAt"] < 2 * AT_ONCE else f"cut off after {seen['slowAt']:.0f} s"


def after(seen):
    """When it was gone, seconds after its last answer."""
    if seen["exit"] is None:
        return f"not within {WATCHED - seen['slowAt']:.0f} s"
    took = seen["exit"] - seen["slowAt"]
    return "at once" if took < 2 * AT_ONCE else f"{took:.0f} s"


def new_connections(counts):
    if counts.get("hangs", 0) > 5:
        return "hang"
    if counts.get("answered", 0) > 5:
        return "answered"
    return "refused"


def idle(closed):
    if closed is None:
        return "left open"
    if closed < 0:
        return "there are none"
    if closed < 0.01:
        return "closed within 10 ms"
    return f"closed after {1000 * closed:.0f} ms" if closed < AT_ONCE else f"closed after {closed:.1f} s"


def used(server, seen):
    then = seen["then"]
    if then is None:
        return "served on"
    if then == "told":
        return "told by GOAWAY" if server.protocol is clients.Grpc else "told by `Connection: close`"
    if then.startswith("lost: status"):
        return "answered with " + then.removeprefix("lost: status ")
    return "closed without notice"


def endless(took):
    """When it is gone that has a request which never ends."""
    return f"not within {ENDLESS} s" if took is None else f"after {took:.0f} s"


def contradictions(seen):
    """What was measured decides: an app that loses what it has in flight is not graceful, and one that finishes it is."""
    server = BY_NAME[seen["name"]]
    finishes = seen["slow"] == "answered" and not ignored(seen)
    if finishes != (server.right == "graceful"):
        yield f"{server.name}: {server.right} is said to be right, and a request in flight was: {seen['slow']}"


def missing(page):
    """Lines of the tables that a page has not, and lines that look like theirs and are of no table."""
    made = [line for lines in lines_of(recorded()) for line in lines]
    heads = {f"| {' | '.join(head)} |" for head in (GRACEFUL, ABRUPT)}
    there, inside = [], False
    for line in page.splitlines():
        inside = line in heads or inside and line.startswith("|")
        if inside:
            there.append(line)
    yield from (f"it has not the line that is recorded: {line}" for line in made if line not in there)
    yield from (f"nothing recorded says: {line}" for line in there if line not in made)
