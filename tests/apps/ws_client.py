"""Clients of ws_app.py: ws_client.py HOST:PORT FOLDER; one waits for an answer, others are kept open. See gate.py."""

import asyncio
import pathlib
import sys

from websockets.asyncio.client import connect

ADDRESS, FOLDER = sys.argv[1:]


async def connected():
    """A WebSocket that has been used. A pause, so that no two messages share a tick."""
    socket = await connect(f"ws://{ADDRESS}/", ping_interval=None)
    await asyncio.sleep(0.1)
    await socket.send("hello")
    assert await socket.recv() == "done"
    await asyncio.sleep(0.1)
    return socket


async def main():
    kept = [await connected() for _ in range(2)]
    print("kept", flush=True)
    socket = await connected()
    await socket.send(f"{FOLDER}\nslow")
    while not pathlib.Path(FOLDER, "slow.started").exists():
        await asyncio.sleep(0.01)
    print("under way", flush=True)
    assert await socket.recv() == "done"
    print("answered slow", flush=True)
    await asyncio.Event().wait()
    del kept


asyncio.run(main())
