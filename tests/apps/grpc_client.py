"""Clients of grpc_app.py: grpc_client.py HOST:PORT FOLDER WORK..., where work is slow, upload, stream or steady.

Each has a connection of its own, and others are kept open. See gate.py for when they end.
"""

import pathlib
import sys
import threading
import time

import grpc

import gate

ADDRESS, FOLDER, *WORK = sys.argv[1:]


def connected():
    """A connection that has been used."""
    channel = grpc.insecure_channel(ADDRESS, options=[("grpc.use_local_subchannel_pool", 1)])
    for _ in range(2):
        assert channel.unary_unary("/shop.Shop/Hello")(b"") == b"hello"
        time.sleep(0.1)
    return channel


def names(name):
    return f"{FOLDER}\n{name}".encode()


def pieces():
    yield names("upload")
    while not pathlib.Path(FOLDER, "upload.go").exists():
        yield b"x" * 100
        time.sleep(0.05)


def slow(channel):
    assert channel.unary_unary("/shop.Shop/Work")(names("slow")) == b"done"


def upload(channel):
    assert int(channel.stream_unary("/shop.Shop/Upload")(pieces())) > 0


def stream(channel):
    assert len(list(channel.unary_stream("/shop.Shop/Stream")(names("stream")))) > 0


def steady(channel):
    """Call after call, each as soon as the one before has been answered."""
    gate.begin(FOLDER, "steady")
    while not pathlib.Path(FOLDER, "steady.go").exists():
        assert channel.unary_unary("/shop.Shop/Hello")(b"") == b"hello"
        time.sleep(0.02)


def run(name):
    globals()[name](connected())
    print(f"answered {name}", flush=True)


kept = [connected(), connected()]
for name in WORK:
    threading.Thread(target=run, args=[name]).start()
for name in WORK:
    while not pathlib.Path(FOLDER, f"{name}.started").exists():
        time.sleep(0.01)
print("under way", flush=True)
threading.Event().wait()
