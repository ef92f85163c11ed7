"""Starts each server for real, sends it the signal with which a pod ends, and records what its clients see.

    python tests/servers                 tries all, writes results.json, prints the tables
    python tests/servers nginx uvicorn   only those whose names begin so; the others stay as they are recorded
    python tests/servers --table         prints the tables of what is recorded

Needs root, for a PID namespace: in a container, an app is PID 1 and has no signal handlers but its own.
"""

import argparse
import concurrent.futures
import json
import sys
import traceback

import table
from catalog import SERVERS
from measure import measure

# They mostly wait.
AT_ONCE = 6


def tried(server):
    """What is recorded of a server, or None where it cannot be tried."""
    if program := server.missing():
        print(f"{server.name}: left out, since there is no {program}", flush=True)
        return None
    try:
        seen = measure(server)
    except Exception:
        print(f"{server.name}: {traceback.format_exc()}", flush=True)
        return None
    print(f"{server.name}: tried", flush=True)
    return {"name": server.name, "version": server.version_here(), "signal": server.signal, **seen}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help="only servers whose names begin so, in small letters")
    parser.add_argument("--table", action="store_true", help="only print what is recorded")
    args = parser.parse_args()
    recorded = table.recorded()
    failed = 0
    if not args.table:
        wanted = [one for one in SERVERS if not args.names or one.name.lower().startswith(tuple(args.names))]
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            for new in pool.map(tried, wanted):
                failed += new is None
                if new:
                    recorded[new["name"]] = new
                    table.record(recorded)
    print("\n\n".join("\n".join(lines) for lines in table.lines_of(recorded)))
    wrong = [line for one in recorded.values() for line in table.contradictions(one)]
    print(*wrong, sep="\n", file=sys.stderr)
    sys.exit(1 if wrong or failed else 0)


main()
