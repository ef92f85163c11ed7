"""An aiohttp app: /hello, and /slow?seconds=N."""

import asyncio
import sys

from aiohttp import web


async def hello(request):
    return web.Response(text="hello")


async def slow(request):
    await asyncio.sleep(float(request.query["seconds"]))
    return web.Response(text="done")


app = web.Application()
app.add_routes([web.get("/hello", hello), web.get("/slow", slow)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))
