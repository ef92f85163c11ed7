"""Clients that speak HTTP/2 from the first byte: h2_client.py BASE FOLDER (apart | beside).

Apart, a slow request, an upload and a stream have a connection each, and others are kept open. Beside, a slow request and
a short one after it share one. See gate.py for when they end.
"""

import asyncio
import pathlib
import sys

import httpx

BASE, FOLDER, HOW = sys.argv[1:]


def path(what, name):
    return f"{BASE}/{what}?folder={FOLDER}&name={name}"


def say(what):
    print(what, flush=True)


async def exists(name):
    while not pathlib.Path(FOLDER, name).exists():
        await asyncio.sleep(0.01)


async def connected():
    """A connection of its own on which all is said that begins one. A pause, so that no two things share a tick."""
    client = httpx.AsyncClient(http1=False, http2=True, timeout=None)
    for _ in range(3):
        answer = await client.get(f"{BASE}/hello")
        assert (answer.status_code, answer.http_version) == (200, "HTTP/2"), answer
        await asyncio.sleep(0.1)
    return client


async def pieces():
    while not pathlib.Path(FOLDER, "upload.go").exists():
        yield b"x" * 100
        await asyncio.sleep(0.05)


async def slow(client):
    assert (await client.get(path("work", "slow"))).status_code == 200
    say("answered slow")


async def upload(client):
    assert (await client.post(path("upload", "upload"), content=pieces())).json()["bytes"] > 0
    say("answered upload")


async def stream(client):
    assert "tick" in (await client.get(path("stream", "stream"))).text
    say("answered stream")


async def apart():
    kept = [await connected() for _ in range(2)]
    work = [slow(await connected()), upload(await connected()), stream(await connected())]
    under_way = asyncio.gather(*work)
    for name in ("slow", "upload", "stream"):
        await exists(f"{name}.started")
    say("under way")
    await under_way
    return kept


async def beside():
    client = await connected()
    under_way = asyncio.create_task(slow(client))
    await exists("slow.started")
    await asyncio.sleep(0.1)
    assert (await client.get(f"{BASE}/hello")).status_code == 200
    say("under way")
    await under_way
    return client


async def main():
    kept = await (apart() if HOW == "apart" else beside())
    await asyncio.Event().wait()
    del kept


asyncio.run(main())
