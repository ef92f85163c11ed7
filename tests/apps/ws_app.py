"""A WebSocket server: it answers each message that names a gate's folder and name when that is opened."""

import asyncio
import sys

from websockets.asyncio.server import serve

import gate


async def shop(socket):
    async for message in socket:
        if "\n" in message:
            await gate.hold_async(*message.split("\n"))
        await socket.send("done")


async def main():
    every = float(sys.argv[1]) if len(sys.argv) > 1 else None
    async with serve(shop, "127.0.0.1", 0, ping_interval=every) as server:
        print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


asyncio.run(main())
