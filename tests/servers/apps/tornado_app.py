"""A Tornado app: /hello, and /slow?seconds=N. With a second argument it has a handler for SIGTERM."""

import asyncio
import signal
import sys

import tornado.web


class Hello(tornado.web.RequestHandler):
    async def get(self):
        self.write("hello")


class Slow(tornado.web.RequestHandler):
    inside = 0

    async def get(self):
        Slow.inside += 1
        try:
            await asyncio.sleep(float(self.get_argument("seconds")))
            self.write("done")
            await self.finish()
        finally:
            Slow.inside -= 1


async def main():
    app = tornado.web.Application([("/hello", Hello), ("/slow", Slow)])
    server = app.listen(int(sys.argv[1]), "127.0.0.1")
    stop = asyncio.Event()
    if len(sys.argv) > 2:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.stop()
    while Slow.inside:
        await asyncio.sleep(0.05)
    await server.close_all_connections()


asyncio.run(main())
