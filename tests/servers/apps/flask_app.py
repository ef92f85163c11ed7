"""A Flask app on Flask's own server: /hello, and /slow?seconds=N."""

import sys
import time

import flask

app = flask.Flask(__name__)


@app.get("/hello")
def hello():
    return "hello"


@app.get("/slow")
def slow():
    time.sleep(float(flask.request.args["seconds"]))
    return "done"


app.run("127.0.0.1", int(sys.argv[1]))
