"""A WSGI app of two pages: /hello, and /slow?seconds=N."""

import time
import urllib.parse


def app(environ, start_response):
    query = urllib.parse.parse_qs(environ.get("QUERY_STRING", ""))
    time.sleep(float(query.get("seconds", ["0"])[0]))
    body = b"done" if environ["PATH_INFO"] == "/slow" else b"hello"
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
