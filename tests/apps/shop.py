"""A small shop, of the standard library alone: slow requests, a count of them, and sudden death on SIGTERM.

shop.py [PORT] [--unix PATH] [--tls PEM] [--goodbye] listens on the port, and on a socket and on a further port where asked to.

/work?seconds=2 takes that long; /work?folder=F&name=N waits for a file, see gate.py, and so does the end of the events of
/stream?folder=F&name=N, of which there is only one with &silent=yes; POST /upload?folder=F&name=N takes as long as its
body; /hello is quick. The count is at /metrics as a gauge, at /stats as JSON and at /inflight as a bare number, whose end
is the connection's with ?until=close. POST /drain is taken in; with --goodbye every later answer closes its connection.
"""

import argparse
import http.server
import json
import os
import signal
import socketserver
import ssl
import threading
import time
import urllib.parse

import gate


class Shop(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    inside = 0
    lock = threading.Lock()
    says_goodbye = draining = False

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path == "/metrics":
            page = f"# TYPE shop_customers gauge\nshop_customers {Shop.inside}\n"
            self.answer("text/plain; version=0.0.4", page)
        elif url.path == "/stats":
            stats = {"open": True, "counters": [{"name": "till", "customers": Shop.inside}], "inside": [0] * Shop.inside}
            self.answer("application/json", json.dumps(stats))
        elif url.path == "/inflight":
            self.answer("text/plain", f"{Shop.inside}\n", query.get("until") == "close")
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
        elif url.path == "/stream":
            self.stream(gate.events(query["folder"], query["name"], "silent" in query))
        elif url.path == "/hello":
            self.answer("text/plain", "hello")
        else:
            self.send_error(404)

    def do_POST(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path == "/drain":
            Shop.draining = True
            self.answer("text/plain", "")
        elif url.path == "/upload":
            gate.begin(query["folder"], query["name"])
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.answer("application/json", json.dumps({"bytes": len(body)}))
        else:
            self.send_error(404)

    def answer(self, kind, text, until_close=False):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if until_close:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
            if Shop.says_goodbye and Shop.draining:
                self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def stream(self, events):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("X-Accel-Buffering", "no")
        self.end_headers()
        for event in events:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


class Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def tls(pem):
    """A server on a free port. Like many, it closes connections without saying so in TLS."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    return server


if __name__ == "__main__":
    # Nothing is said to the customers inside.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    parser = argparse.ArgumentParser()
    parser.add_argument("port", nargs="?", type=int, default=0)
    parser.add_argument("--unix")
    parser.add_argument("--tls")
    parser.add_argument("--goodbye", action="store_true")
    asked = parser.parse_args()
    Shop.says_goodbye = asked.goodbye
    if asked.unix:
        threading.Thread(target=Unix(asked.unix, Shop).serve_forever, daemon=True).start()
    if asked.tls:
        server = tls(asked.tls)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"listening on https://127.0.0.1:{server.server_port}", flush=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", asked.port), Shop)
    server.daemon_threads = True
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
