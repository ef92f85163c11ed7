"""A client of the gRPC examples: client.py ADDRESS. Each of its channels is kept for ever and carries calls and streams; one
is hardly used. How many have ended well is at port 9000; /stop lets what is under way end, and then it tells what failed.
"""

import collections
import http.server
import json
import random
import sys
import threading
import time

import grpc
from google.protobuf.wrappers_pb2 import StringValue

BUSY_CHANNELS = 3
CALLERS = 3
SELDOM = 4
PAUSE = 0.2

address = sys.argv[1]
stop = threading.Event()
lock = threading.Lock()
count, lost = collections.Counter(), []


def made(what, ask):
    """One call, and what became of it. No call is tried again by this client, but for what gRPC itself does."""
    at = time.time()
    try:
        ask()
        failure = None
    except grpc.RpcError as why:
        failure = f"{what}: {why.code().name}: {why.details()}"
    with lock:
        count[failure is None] += 1
        if failure:
            lost.append({"lost": failure, "pod": "", "began": round(1000 * at), "ended": round(1000 * time.time())})


def calls(channel, pause):
    get = channel.unary_unary("/quotes.Quotes/Get", StringValue.SerializeToString, StringValue.FromString)
    while not stop.is_set():
        took = random.choice([0, 20, 50, 300, 2000] if random.random() < 0.1 else [0, 20, 50])
        made("call", lambda: get(StringValue(value=f"{took}ms")))
        stop.wait(pause)


def streams(channel):
    watch = channel.unary_stream("/quotes.Quotes/Watch", StringValue.SerializeToString, StringValue.FromString)

    def whole():
        assert [quote.value for quote in watch(StringValue(value=f"{random.randint(1, 6)}s"))][-1] == "end"

    while not stop.is_set():
        made("stream", whole)
        # A stream that cannot begin fails at once, and without end.
        stop.wait(PAUSE)


class Progress(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/stop":
            stop.set()
        body = str(count[True]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def opened():
    return grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])


threading.Thread(target=http.server.ThreadingHTTPServer(("", 9000), Progress).serve_forever, daemon=True).start()
began = time.time()
threads = [threading.Thread(target=calls, args=[opened(), SELDOM])]
for _ in range(BUSY_CHANNELS):
    channel = opened()
    threads += [threading.Thread(target=calls, args=[channel, 0.02]) for _ in range(CALLERS)]
    threads.append(threading.Thread(target=streams, args=[channel]))
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for one in lost:
    print(json.dumps(one))
losses = collections.Counter(one["lost"].partition(":")[0] for one in lost)
print(json.dumps({"requests": sum(count.values()), "failed": count[False], "losses": losses, "began": round(1000 * began),
                  "ended": round(1000 * time.time()), "pods": {}}), flush=True)
