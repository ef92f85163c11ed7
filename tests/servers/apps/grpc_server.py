"""A gRPC server without a schema: Hello, and Slow, whose message is a number of seconds. With a second argument it has a
handler for SIGTERM that stops it with that many seconds of grace."""

import signal
import sys
import threading
import time
from concurrent import futures

import grpc


def hello(request, context):
    return b"hello"


def slow(request, context):
    time.sleep(float(request))
    return b"done"


server = grpc.server(futures.ThreadPoolExecutor(16), handlers=[grpc.method_handlers_generic_handler("shop.Shop", {
    "Hello": grpc.unary_unary_rpc_method_handler(hello),
    "Slow": grpc.unary_unary_rpc_method_handler(slow),
})])
server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
if len(sys.argv) > 2:
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    asked.wait()
    server.stop(float(sys.argv[2])).wait()
else:
    server.wait_for_termination()
