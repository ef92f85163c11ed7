"""An HTTP app that closes each connection after its answer, as servers do whose clients ask for `Connection: close`, or
keeps it where it is started with `keep`; and that serves in a network namespace, where it is given one.

    closing_app.py [keep]
"""
import http.server
import socket
import sys
import time
import urllib.parse


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        seconds = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("seconds", ["0"])
        time.sleep(float(seconds[0]))
        body = b"ok\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if "keep" not in sys.argv:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True


with Server(("::", 0), Handler) as server:
    print(f"listening on port {server.server_address[1]}", flush=True)
    server.serve_forever()
