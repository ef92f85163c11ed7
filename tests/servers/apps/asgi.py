"""An ASGI app of two pages: /hello, and /slow?seconds=N."""

import asyncio
import urllib.parse


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    query = urllib.parse.parse_qs(scope["query_string"].decode())
    await asyncio.sleep(float(query.get("seconds", ["0"])[0]))
    body = b"done" if scope["path"] == "/slow" else b"hello"
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})
