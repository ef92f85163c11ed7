"""Connections of a client: each asks for pages, one after another, and sees how the server ends it.

A page is "hello", or the number of seconds that it is to take.
"""

import select
import socket
import struct

import hpack
from hyperframe import frame


class Lost(Exception):
    """A request without an answer."""


class Connection:
    """What all kinds have: `answer` is the page's text, `farewell` whether the server has said that it will close."""

    def __init__(self, port, timeout=60):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.farewell = False

    def ask(self, page):
        """The text of a page. Raises `Lost`, or `TimeoutError`."""
        try:
            return self.exchange(page)
        except (ConnectionError, EOFError) as why:
            raise Lost(str(why) or type(why).__name__) from why

    def closed(self, seconds):
        """Waits for the server to close this idle connection; whether it has."""
        try:
            readable, _, _ = select.select([self.socket], [], [], seconds)
            if not readable:
                return False
            data = self.socket.recv(65536)
            self.heard(data)
            return not data
        except ConnectionError:
            return True

    def heard(self, data):
        """What came while nothing was asked."""

    def read(self):
        data = self.socket.recv(65536)
        if not data:
            raise EOFError("closed without an answer")
        return data

    def close(self):
        self.socket.close()


class Http(Connection):
    """HTTP/1.1."""

    def exchange(self, page):
        path = "/hello" if page == "hello" else f"/slow?seconds={page}"
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.read()
        head, _, body = data.partition(b"\r\n\r\n")
        version, status = head.split()[:2]
        fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
        if status != b"200":
            raise Lost(f"status {status.decode()}")
        if fields.get(b"connection", b"").strip() == b"close" or version == b"HTTP/1.0":
            self.farewell = True
        if b"content-length" in fields:
            while len(body) < int(fields[b"content-length"]):
                body += self.read()
        elif fields.get(b"transfer-encoding", b"").strip() == b"chunked":
            while not body.endswith(b"0\r\n\r\n"):
                body += self.read()
            body = body.split(b"\r\n")[1]
        else:
            while data := self.socket.recv(65536):
                body += data
        return body.decode().strip()


class FastCgi(Connection):
    """FastCGI, as a web server in front of PHP speaks it, with kept connections."""

    folder = None

    def exchange(self, page):
        name = "hello" if page == "hello" else "slow"
        params = b"".join(
            struct.pack("!BB", len(key), len(value)) + key.encode() + value.encode()
            for key, value in {"SCRIPT_FILENAME": f"{self.folder}/{name}.php", "REQUEST_METHOD": "GET",
                               "QUERY_STRING": f"seconds={page}"}.items())
        self.socket.sendall(self.record(1, struct.pack("!HB5x", 1, 1)) + self.record(4, params) + self.record(4, b"")
                            + self.record(5, b""))
        out, data = b"", b""
        while True:
            while len(data) < 8:
                data += self.read()
            _, kind, _, length, padding = struct.unpack("!BBHHBx", data[:8])
            while len(data) < 8 + length + padding:
                data += self.read()
            content, data = data[8:8 + length], data[8 + length + padding:]
            if kind == 6:
                out += content
            elif kind == 3:
                return out.partition(b"\r\n\r\n")[2].decode().strip()

    @staticmethod
    def record(kind, content):
        return struct.pack("!BBHHBx", 1, kind, 1, len(content), 0) + content


class Grpc(Connection):
    """gRPC without a schema: unary calls over HTTP/2. What comes after GOAWAY is still read, and its pings are answered."""

    PSEUDO = [(":method", "POST"), (":scheme", "http"), (":authority", "shop")]
    HEADERS = [("content-type", "application/grpc"), ("te", "trailers")]

    def __init__(self, port, timeout=60):
        super().__init__(port, timeout)
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.stream = -1
        self.left = b""
        self.send(frame.SettingsFrame(0), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

    def send(self, one, before=b""):
        self.socket.sendall(before + one.serialize())

    def exchange(self, page):
        if self.farewell:
            raise ConnectionError("GOAWAY was said")
        self.stream += 2
        name, message = ("Hello", b"") if page == "hello" else ("Slow", str(page).encode())
        head = frame.HeadersFrame(self.stream, flags=["END_HEADERS"])
        head.data = self.encoder.encode([*self.PSEUDO, (":path", f"/shop.Shop/{name}"), *self.HEADERS])
        self.send(frame.DataFrame(self.stream, struct.pack("!BI", 0, len(message)) + message, flags=["END_STREAM"]),
                  head.serialize())
        body, status = b"", None
        while True:
            # All of them are acted upon, also those behind the answer.
            for one in list(self.frames(self.read())):
                if one.stream_id != self.stream:
                    continue
                if isinstance(one, frame.DataFrame):
                    body += one.data
                elif isinstance(one, frame.HeadersFrame):
                    status = dict(self.decoder.decode(one.data)).get("grpc-status", status)
                elif isinstance(one, frame.RstStreamFrame):
                    raise Lost(f"stream reset, code {one.error_code}")
                if "END_STREAM" in one.flags:
                    if status != "0":
                        raise Lost(f"grpc-status {status}")
                    return body[5:].decode()

    def frames(self, data):
        self.left += data
        while len(self.left) >= 9:
            one, length = frame.Frame.parse_frame_header(memoryview(self.left[:9]))
            if len(self.left) < 9 + length:
                return
            one.parse_body(memoryview(self.left[9:9 + length]))
            self.left = self.left[9 + length:]
            if isinstance(one, (frame.SettingsFrame, frame.PingFrame)) and "ACK" not in one.flags:
                more = {"opaque_data": one.opaque_data} if isinstance(one, frame.PingFrame) else {}
                self.send(type(one)(0, flags=["ACK"], **more))
            elif isinstance(one, frame.GoAwayFrame):
                self.farewell = True
            yield one

    def heard(self, data):
        list(self.frames(data))

    def closed(self, seconds):
        """A client that hears GOAWAY closes the connection, once it has no call on it."""
        return super().closed(seconds) or self.farewell
