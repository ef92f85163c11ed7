"""A gRPC server without a schema: messages are the gate's folder and name, or nothing. Its count is at /inflight, and
how many calls have begun at /calls."""

import http.server
import threading
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
        "Work": grpc.unary_unary_rpc_method_handler(work),
        "Upload": grpc.stream_unary_rpc_method_handler(upload),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
    },
)
count = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Count)
threading.Thread(target=count.serve_forever, daemon=True).start()
print(f"counting on port {count.server_port}", flush=True)
server = grpc.server(futures.ThreadPoolExecutor(16), handlers=[shop], interceptors=[Calls()])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(f"listening on http://127.0.0.1:{port}", flush=True)
server.wait_for_termination()
