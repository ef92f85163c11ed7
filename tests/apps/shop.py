"""A small shop, of the standard library alone: slow requests, a gauge of them, and sudden death on SIGTERM.

/work?seconds=2 takes that long; /work?folder=F&name=N waits for a file, see gate.py; /metrics is the gauge.
"""

import http.server
import json
import os
import signal
import sys
import threading
import time
import urllib.parse

import gate


class Shop(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    inside = 0
    lock = threading.Lock()

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path == "/metrics":
            page = f"# TYPE shop_customers gauge\nshop_customers {Shop.inside}\n"
            self.answer("text/plain; version=0.0.4", page)
        elif url.path == "/work":
            with Shop.lock:
                Shop.inside += 1
            try:
                if "folder" in query:
                    gate.hold(query["folder"], query["name"])
                time.sleep(float(query.get("seconds", 0)))
                self.answer("application/json", json.dumps({"done": query.get("name", "")}))
            finally:
                with Shop.lock:
                    Shop.inside -= 1
        else:
            self.send_error(404)

    def answer(self, kind, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    # Nothing is said to the customers inside.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 0), Shop)
    server.daemon_threads = True
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
