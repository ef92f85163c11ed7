"""Flask under gunicorn with several workers: prometheus_client's multiprocess mode adds up the workers' gauges."""

from flask import Flask, Response, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest, multiprocess

import gate

app = Flask(__name__)
inflight = Gauge("http_requests_inflight", "Requests in flight.", multiprocess_mode="livesum")


@app.get("/hello")
def hello():
    return "hello"


@app.get("/work")
def work():
    with inflight.track_inprogress():
        gate.hold(request.args["folder"], request.args["name"])
    return {"done": request.args["name"]}


@app.post("/upload")
def upload():
    gate.begin(request.args["folder"], request.args["name"])
    return {"bytes": len(request.get_data())}


@app.get("/stream")
def stream():
    return Response(gate.events(request.args["folder"], request.args["name"]), mimetype="text/event-stream")


@app.get("/metrics")
def metrics():
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return Response(generate_latest(registry), mimetype=CONTENT_TYPE_LATEST)
