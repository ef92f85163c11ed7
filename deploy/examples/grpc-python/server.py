"""A gRPC server that ends without a failed call: GOAWAY as soon as gracekeeper makes the drain file, its health in step, and
a graceful stop on SIGTERM.

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
# While the pod drains, a client that still comes is sent away again after this long.
VISIT_MS = 1000
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
    """Serves the port with one server after another: `stop` says GOAWAY and takes no new connections, but as long as routes
    lead here, there have to be answers."""

    def __init__(self):
        self.calls = Counters()
        self.health = health.HealthServicer()
        self.pool = futures.ThreadPoolExecutor(64)
        self.draining = False
        self.server = self.started()
        self.stopping = []
        self.tell(health_pb2.HealthCheckResponse.SERVING)

    def started(self, *options):
        """A server on the port, beside another that has it: gRPC's default is SO_REUSEPORT."""
        server = grpc.server(self.pool, handlers=[QUOTES], interceptors=[self.calls],
                             options=[("grpc.so_reuseport", 1), *options])
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        server.add_insecure_port("[::]:9000")
        server.start()
        return server

    def tell(self, status):
        for service in ("", "quotes.Quotes"):
            self.health.set(service, status)

    def replace(self, *options):
        """Has another server take what comes. Clients of the one until now connect anew; its calls and streams go on."""
        before, self.server = self.server, self.started(*options)
        self.stopping = [one for one in self.stopping if not one.is_set()] + [before.stop(GRACE)]

    def follow(self):
        """The drain file is there while the pod drains, and gone when it serves again."""
        draining = DRAIN_FILE.exists()
        if draining and not self.draining:
            self.tell(health_pb2.HealthCheckResponse.NOT_SERVING)
            self.replace(("grpc.max_connection_age_ms", VISIT_MS))
        elif self.draining and not draining:
            self.replace()
            self.tell(health_pb2.HealthCheckResponse.SERVING)
        self.draining = draining

    def stop(self):
        """Lets all that is under way end."""
        self.tell(health_pb2.HealthCheckResponse.NOT_SERVING)
        for one in [*self.stopping, self.server.stop(GRACE)]:
            one.wait()


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
