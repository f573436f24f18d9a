"""A proxy between client and registry that breaks things when it is told to, and remembers what it was asked.

A fault takes the place of the answer to the next requests that fit a pattern, such as ``GET .*/blobs/.*``::

    proxy.fail("GET .*/blobs/.*", cut(after=100))
    proxy.fail("HEAD .*", status(429, {"Retry-After": "0"}), times=2)
"""

import http.client
import re
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import attrs
import pytest

_ENDLESS = 1 << 30


@attrs.define(eq=False)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)

    def __str__(self):
        return f"{self.method} {self.path}"


@attrs.define(eq=False)
class _Planned:
    pattern: str
    fault: object
    times: int


class Proxy(ThreadingHTTPServer):
    """Listens on a loopback port of its own; without *upstream* every request needs a fault."""

    daemon_threads = False
    block_on_close = True

    def __init__(self, upstream=None):
        super().__init__(("127.0.0.1", 0), _Exchange)
        self.upstream = upstream
        self.asked = []
        self.ending = threading.Event()
        self._planned = []
        self._lock = threading.Lock()

    @property
    def address(self):
        return "{}:{}".format(*self.server_address)

    def fail(self, pattern, fault, times=1):
        """Answer the next *times* requests that fit *pattern* with *fault*."""
        self._planned.append(_Planned(pattern, fault, times))

    def always(self, pattern, fault):
        """Answer every request that fits *pattern* with *fault*."""
        self.fail(pattern, fault, _ENDLESS)

    def heal(self):
        """No more faults."""
        self._planned.clear()

    def lines(self, pattern=".*"):
        """The requests so far that fit *pattern*, as text."""
        return [str(asked) for asked in self.asked if re.fullmatch(pattern, str(asked))]

    def take(self, asked):
        """The fault for a request, if one is due."""
        with self._lock:
            self.asked.append(asked)
            for planned in self._planned:
                if planned.times and re.fullmatch(planned.pattern, str(asked)):
                    planned.times -= 1
                    return planned.fault
        return None

    def forward(self, asked):
        """The upstream's answer: status, headers, body."""
        connection = http.client.HTTPConnection(self.upstream, timeout=30)
        try:
            headers = {name: value for name, value in asked.headers.items() if name.lower() != "connection"}
            connection.request(asked.method, asked.path, asked.body or None, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def handle_error(self, request, client_address):
        """A client that goes away is part of the game."""


class _Exchange(BaseHTTPRequestHandler):
    """One connection, for one request."""

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.exchange
        raise AttributeError(name)

    def log_message(self, *_):
        pass

    def exchange(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            return  # the client has gone
        asked = Asked(self.command, self.path, dict(self.headers.items()), body)
        fault = self.server.take(asked)
        if fault:
            fault(self, asked)
        else:
            self.send(*self.server.forward(asked))

    def send(self, status, headers, body=b""):
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "date"):
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def serve_faults(upstream=None):
    """A :class:`Proxy` that lives as long as the block."""
    return serving(Proxy(upstream))


@contextmanager
def serving(proxy):
    """Run *proxy* as long as the block."""
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.ending.set()
        proxy.shutdown()
        thread.join()
        proxy.server_close()


# --- faults ---------------------------------------------------------------------------------------------


def status(number, headers=None, body=b""):
    """An answer of the proxy's own."""
    return lambda exchange, asked: exchange.send(
        number, {"Content-Length": len(body), **(headers or {})}, body
    )


def redirect(location, number=307):
    """Send the client elsewhere."""
    return status(number, {"Location": location})


def cut(after=0):
    """The registry's answer, and a broken connection after some bytes of its body; -1: before the answer."""

    def fault(exchange, asked):
        if after >= 0:
            number, headers, body = exchange.server.forward(asked)
            exchange.send(number, headers, body[:after])
            exchange.wfile.flush()
        exchange.connection.shutdown(socket.SHUT_RDWR)

    return fault


def cut_body(after=0):
    """The client's connection breaks while it sends, after some bytes of the body."""

    def fault(exchange, asked):
        connection = http.client.HTTPConnection(exchange.server.upstream, timeout=30)
        connection.putrequest(asked.method, asked.path, skip_host=True, skip_accept_encoding=True)
        for name, value in asked.headers.items():
            connection.putheader(name, value)
        connection.endheaders(asked.body[:after])
        connection.close()
        exchange.connection.shutdown(socket.SHUT_RDWR)

    return fault


def lost():
    """The registry does what it was asked for, and its answer gets lost."""

    def fault(exchange, asked):
        exchange.server.forward(asked)
        exchange.connection.shutdown(socket.SHUT_RDWR)

    return fault


def stall(after=0):
    """The registry's answer, and silence after some bytes of its body."""

    def fault(exchange, asked):
        number, headers, body = exchange.server.forward(asked)
        exchange.send(number, headers, body[:after])
        exchange.wfile.flush()
        exchange.server.ending.wait()

    return fault


def hold(until, after=0):
    """The registry's answer, and silence after some bytes of its body *until* an event is set."""

    def fault(exchange, asked):
        number, headers, body = exchange.server.forward(asked)
        exchange.send(number, headers, body[:after])
        exchange.wfile.flush()
        while not (until.wait(0.05) or exchange.server.ending.is_set()):
            pass
        exchange.wfile.write(body[after:])

    return fault


def corrupt(place=0):
    """The registry's answer with one bit of its body flipped."""

    def change(number, headers, body):
        flipped = bytearray(body)
        flipped[place] ^= 1
        return number, headers, bytes(flipped)

    return changed(change)


def with_headers(**headers):
    """The registry's answer with other headers; None takes one away."""

    def change(number, found, body):
        wanted = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        found = {name: value for name, value in found.items() if name.lower() not in wanted}
        return number, {**found, **{name: value for name, value in wanted.items() if value is not None}}, body

    return changed(change)


def with_body(content):
    """The registry's answer with another body, and the right length for it."""

    def change(number, headers, body):
        headers = {name: value for name, value in headers.items() if name.lower() != "content-length"}
        return number, {**headers, "Content-Length": len(content)}, content

    return changed(change)


def without_range():
    """A server that does not know Range, and sends everything."""

    def fault(exchange, asked):
        headers = {name: value for name, value in asked.headers.items() if name.lower() != "range"}
        exchange.send(*exchange.server.forward(attrs.evolve(asked, headers=headers)))

    return fault


def changed(change):
    """The registry's answer, changed."""
    return lambda exchange, asked: exchange.send(*change(*exchange.server.forward(asked)))


@pytest.fixture
def proxy(server):
    """The way to the registry *server*, for this test."""
    with serve_faults(server.address) as proxy:
        yield proxy
