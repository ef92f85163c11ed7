"""Says goodbye while the drain file is there. gunicorn drops a Connection header that the app itself sets."""

import os

DRAIN_FILE = os.environ.get("DRAIN_FILE", "/run/drain/draining")
keepalive = 600


def pre_request(worker, request):
    if os.path.exists(DRAIN_FILE):
        # As if the client had asked for it.
        request.headers.insert(0, ("CONNECTION", "close"))
