"""A gRPC server without a schema: messages are the gate's folder and name, or nothing. Its count is at /inflight, and
how many calls have begun at /calls.

grpc_app.py [PORT] [--polite]: with it, what has begun is answered after SIGTERM; without it, SIGTERM ends the process."""

import argparse
import http.server
import signal
import threading
import time
from concurrent import futures

import grpc

import gate

inside = 0
calls = 0
lock = threading.Lock()


class Inside:
    """Counts a call for as long as it lasts."""

    def __enter__(self):
        self.add(1)

    def __exit__(self, *_):
        self.add(-1)

    def add(self, one):
        global inside
        with lock:
            inside += one


class Calls(grpc.ServerInterceptor):
    """Counts calls as they begin."""

    def intercept_service(self, continuation, details):
        global calls
        with lock:
            calls += 1
        return continuation(details)


def hello(request, context):
    return b"hello"


def slow(request, context):
    with Inside():
        time.sleep(0.3)
        return b"done"


def work(request, context):
    with Inside():
        gate.hold(*request.decode().split("\n"))
        return b"done"


def upload(requests, context):
    with Inside():
        gate.begin(*next(requests).decode().split("\n"))
        return str(sum(len(piece) for piece in requests)).encode()


def stream(request, context):
    with Inside():
        yield from gate.events(*request.decode().split("\n"))


class Count(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{calls if self.path == '/calls' else inside}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


shop = grpc.method_handlers_generic_handler(
    "shop.Shop",
    {
        "Hello": grpc.unary_unary_rpc_method_handler(hello),
        "Slow": grpc.unary_unary_rpc_method_handler(slow),
        "Work": grpc.unary_unary_rpc_method_handler(work),
        "Upload": grpc.stream_unary_rpc_method_handler(upload),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
    },
)
parser = argparse.ArgumentParser()
parser.add_argument("port", nargs="?", type=int, default=0)
parser.add_argument("--polite", action="store_true")
asked = parser.parse_args()
count = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Count)
threading.Thread(target=count.serve_forever, daemon=True).start()
print(f"counting on port {count.server_port}", flush=True)
server = grpc.server(futures.ThreadPoolExecutor(32), handlers=[shop], interceptors=[Calls()])
port = server.add_insecure_port(f"127.0.0.1:{asked.port}")
server.start()
print(f"listening on http://127.0.0.1:{port}", flush=True)
if asked.polite:
    # The calls that run have 10 s to end.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.stop, args=[10]).start())
server.wait_for_termination()
