"""As much of a Kubernetes API server as a pod's own sidecar can tell from one, and all that can go wrong with it.

api_server.py PEM FOLDER [PORT] listens over TLS. FOLDER/pod.json is the one pod, FOLDER/token the one token that it takes,
and FOLDER/mode what it does:

ok answers; forbidden, missing and broken answer 403, 404 and 500, busy 429 and to come again in an hour; hang takes
requests and never answers, drip answers a byte a second; reset closes connections in the middle; garbage answers what is
no JSON; lie answers with another pod.

A watch on EndpointSlices tells of the pod's leaving once FOLDER/left is there. Each request is a line of
FOLDER/requests.jsonl.
"""

import http.server
import json
import pathlib
import ssl
import sys
import threading
import time
import urllib.parse

folder = pathlib.Path(sys.argv[2])
lock = threading.Lock()


def text(name, default=""):
    path = folder / name
    return path.read_text() if path.exists() else default


def slices(ready):
    endpoint = {
        "addresses": ["10.0.0.1"],
        "conditions": {"ready": ready, "serving": True, "terminating": not ready},
        "targetRef": {"kind": "Pod", "name": "shop-1", "namespace": "shops", "uid": "u-1"},
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "shop-x", "namespace": "shops", "resourceVersion": "7"},
        "addressType": "IPv4",
        "ports": [{"port": 8000}],
        "endpoints": [endpoint],
    }


class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.serve(b"")

    def do_POST(self):
        self.serve(self.rfile.read(int(self.headers["Content-Length"])))

    def serve(self, body):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        seen = {
            "method": self.command,
            "path": url.path,
            "query": query,
            "token": self.headers.get("Authorization", "").removeprefix("Bearer "),
            "agent": self.headers.get("User-Agent", ""),
            "body": json.loads(body) if body else None,
        }
        with lock, open(folder / "requests.jsonl", "a") as log:
            log.write(json.dumps(seen) + "\n")
        mode = text("mode", "ok").strip()
        if mode == "hang":
            time.sleep(3600)
        elif mode == "drip":
            self.drip()
        elif mode == "reset":
            self.connection.close()
        elif mode == "garbage":
            self.answer(200, b"<html>a captive portal</html>", "text/html")
        elif mode == "forbidden":
            self.refuse(403, "Forbidden", 'pods "shop-1" is forbidden: User "x" cannot do that')
        elif mode == "missing":
            self.refuse(404, "NotFound", 'pods "shop-1" not found')
        elif mode == "broken":
            self.refuse(500, "InternalError", "etcdserver: request timed out")
        elif mode == "busy":
            self.refuse(429, "TooManyRequests", "the server has received too many requests", {"Retry-After": "3600"})
        elif seen["token"] != text("token").strip():
            self.refuse(401, "Unauthorized", "Unauthorized")
        elif self.command == "POST":
            self.say(201, seen["body"])
        elif url.path.endswith("/endpointslices"):
            self.endpoints(query.get("watch") in ("1", "true"))
        else:
            pod = json.loads(text("pod.json"))
            if mode == "lie":
                pod["metadata"]["uid"] = "u-2"
            self.say(200, pod)

    def endpoints(self, watch):
        here = not (folder / "left").exists()
        if not watch:
            kind = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList"}
            self.say(200, {**kind, "metadata": {"resourceVersion": "7"}, "items": [slices(here)]})
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while not (folder / "left").exists():
            time.sleep(0.02)
        event = json.dumps({"type": "MODIFIED", "object": slices(False)}).encode() + b"\n"
        self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event))

    def drip(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "3600")
        self.end_headers()
        try:
            for _ in range(3600):
                self.wfile.write(b" ")
                time.sleep(1)
        except OSError:
            self.close_connection = True

    def refuse(self, code, reason, message, headers=()):
        status = {"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure"}
        self.say(code, {**status, "message": message, "reason": reason, "code": code}, headers)

    def say(self, code, value, headers=()):
        self.answer(code, json.dumps(value).encode(), "application/json", headers)

    def answer(self, code, body, kind, headers=()):
        self.send_response(code)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass


if __name__ == "__main__":
    port = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    server = Server(("127.0.0.1", port), Api)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(f"listening on https://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
