"""What the proxies have behind them: /hello, and /slow?seconds=N, on the port that is given."""

import http.server
import sys
import time
import urllib.parse


class Pages(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        time.sleep(float(urllib.parse.parse_qs(url.query).get("seconds", ["0"])[0]))
        body = b"done" if url.path == "/slow" else b"hello"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Pages).serve_forever()
