"""A gRPC server that ends without a failed call: clients leave by GOAWAY, its health is in step with gracekeeper's drain
file, and it stops gracefully on SIGTERM.

In gRPC for Python only `stop` says GOAWAY to all at once, and it cancels the calls that arrive just then. So each
connection has an age here: after some seconds the client is told by GOAWAY to connect anew, which loses nothing, and while
the pod drains it gets to another pod.

Port 9000 is for calls. Port 9090 is for the pod alone: /metrics has the two counters that gracekeeper's preset go-grpc://
reads.
"""

import collections
import http.server
import pathlib
import signal
import threading
import time
from concurrent import futures

import grpc
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

DRAIN_FILE = pathlib.Path("/run/drain/draining")
# Less than --max-quiet, so that all clients are gone before the app is stopped. gRPC adds or takes away up to a tenth.
AGE_MS = 5000
# The pod's grace period ends sooner: what is under way ends by itself, or with the pod.
GRACE = 3600


class Counters(grpc.ServerInterceptor):
    """Calls as they start and as they end, of any kind."""

    def __init__(self):
        self.lock = threading.Lock()
        self.started, self.handled = collections.Counter(), collections.Counter()

    def count(self, series, method):
        with self.lock:
            series[method] += 1

    def intercept_service(self, continuation, details):
        handler = continuation(details)
        if handler is None:
            return None
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                self.unary(details.method, handler.unary_unary), handler.request_deserializer, handler.response_serializer)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                self.stream(details.method, handler.unary_stream), handler.request_deserializer, handler.response_serializer)
        return handler

    def unary(self, method, call):
        def counted(request, context):
            self.count(self.started, method)
            try:
                return call(request, context)
            finally:
                self.count(self.handled, method)

        return counted

    def stream(self, method, call):
        def counted(request, context):
            self.count(self.started, method)
            try:
                yield from call(request, context)
            finally:
                self.count(self.handled, method)

        return counted

    def page(self):
        with self.lock:
            for name, series in {"started": self.started, "handled": self.handled}.items():
                yield f"# TYPE grpc_server_{name}_total counter"
                for method, count in series.items():
                    _, service, call = method.split("/")
                    yield f'grpc_server_{name}_total{{grpc_service="{service}",grpc_method="{call}"}} {count}'


def seconds(request):
    """As the request says: "300ms", "5s"."""
    return float(request.value[:-2]) / 1000 if request.value.endswith("ms") else float(request.value[:-1])


def get(request, context):
    """Answers after that long."""
    time.sleep(seconds(request))
    return StringValue(value="quote")


def watch(request, context):
    """A quote every tenth of a second, for that long."""
    for _ in range(round(10 * seconds(request))):
        yield StringValue(value="quote")
        time.sleep(0.1)
    yield StringValue(value="end")


# What protoc makes of a service with two calls.
QUOTES = grpc.method_handlers_generic_handler("quotes.Quotes", {
    "Get": grpc.unary_unary_rpc_method_handler(get, StringValue.FromString, StringValue.SerializeToString),
    "Watch": grpc.unary_stream_rpc_method_handler(watch, StringValue.FromString, StringValue.SerializeToString),
})


class App:
    """The server, and what it says of its health."""

    def __init__(self):
        self.calls = Counters()
        self.health = health.HealthServicer()
        self.draining = None
        self.server = grpc.server(futures.ThreadPoolExecutor(64), handlers=[QUOTES], interceptors=[self.calls],
                                  options=[("grpc.max_connection_age_ms", AGE_MS)])
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self.server.add_insecure_port("[::]:9000")
        self.follow()
        self.server.start()

    def tell(self, draining):
        if draining != self.draining:
            self.draining = draining
            status = health_pb2.HealthCheckResponse.NOT_SERVING if draining else health_pb2.HealthCheckResponse.SERVING
            for service in ("", "quotes.Quotes"):
                self.health.set(service, status)

    def follow(self):
        """The drain file is there while the pod drains, and gone when it serves again."""
        self.tell(DRAIN_FILE.exists())

    def stop(self):
        """Lets all that is under way end."""
        self.tell(True)
        self.server.stop(GRACE).wait()


app = App()


class Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = "".join(f"{line}\n" for line in app.calls.page()).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


metrics = http.server.ThreadingHTTPServer(("127.0.0.1", 9090), Metrics)
threading.Thread(target=metrics.serve_forever, daemon=True).start()
asked = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: asked.set())
while not asked.wait(0.1):
    app.follow()
app.stop()
