"""A real app whose metrics page is as large as PAGE_BYTES says: uvicorn and prometheus_client, for the bench `cost`."""

import os

from prometheus_client import REGISTRY, Gauge, Histogram, generate_latest, make_asgi_app

inside = Gauge("app_requests_inprogress", "Requests that are under way.")
took = Histogram("app_request_seconds", "How long requests took.", ["handler", "method"])


def observe(first, last):
    for n in range(first, last):
        took.labels(f"/api/v1/orders/{n}/items", "GET").observe(0.01)


# Some handlers tell how long the lines of one are; the rest is as many as the page needs.
observe(0, 10)
few = len(generate_latest(REGISTRY))
observe(10, 20)
each = (len(generate_latest(REGISTRY)) - few) / 10
observe(20, int((int(os.environ["PAGE_BYTES"]) - few) / each) + 10)
metrics = make_asgi_app()


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    if scope["path"].startswith("/metrics"):
        return await metrics(scope, receive, send)
    with inside.track_inprogress():
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
