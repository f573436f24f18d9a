"""``registry()``: a registry in this process, which holds what it is given in memory and forgets it.

It speaks the distribution-spec 1.1 over plain HTTP on a loopback address: pull, push at once and in chunks, mount, delete, list tags.
There is no login, and it is for trusted clients: what is pushed stays in memory.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import uuid
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qs, urlencode, urlsplit

import attrs

from pycontain.oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = r"/v2/(?P<name>[a-z0-9._/-]+)"
_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{1,18})?")
_CHUNK = re.compile(r"([0-9]+)-([0-9]+)")
_DEFAULT_TYPE = "application/octet-stream"


@contextmanager
def registry() -> Iterator[str]:
    """Serve an empty registry for the time of a block; the value is its address, as ``127.0.0.1:5000``.

    >>> from pycontain import Image
    >>> from pycontain.testing import make_image, temporary_store
    >>> with registry() as address, temporary_store():
    ...     image = make_image(f"{address}/team/app:1", {"/etc/motd": "hello"})
    ...     digest = image.push()
    ...     Image.pull(f"{address}/team/app:1", unpack=False).digest == digest
    True
    """
    server = _Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="registry")
    thread.start()
    try:
        yield server.address
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@attrs.define(eq=False)
class _Repository:
    blobs: dict[str, bytes] = attrs.field(factory=dict)
    manifests: dict[str, tuple[str, bytes]] = attrs.field(factory=dict)
    tags: dict[str, str] = attrs.field(factory=dict)
    uploads: dict[str, bytearray] = attrs.field(factory=dict)


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Exchange)
        self.repositories: dict[str, _Repository] = {}
        self.lock = threading.Lock()
        self.connections: set[socket.socket] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def server_close(self) -> None:
        """End the connections that clients keep for a next time, and wait for their threads."""
        with self.lock:
            for connection in self.connections:
                with suppress(OSError):  # the client has left
                    connection.shutdown(socket.SHUT_RDWR)
        super().server_close()


@attrs.frozen
class _Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = attrs.field(factory=dict)


def _refused(status: int, code: str, message: str) -> _Answer:
    errors = {"errors": [{"code": code, "message": message}]}
    return _Answer(status, json.dumps(errors).encode(), {"Content-Type": "application/json"})


def _is(digest: str, content: bytes) -> bool:
    """Whether *content* has the *digest* that it is said to have."""
    try:
        Digest.parse(digest).check(content)
    except ValueError:
        return False
    return True


class _Exchange(BaseHTTPRequestHandler):
    """One connection. Every ``on_`` method is one end point of the specification, and makes one answer."""

    server: _Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one piece: two would wait for each other, tcp(7)
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections.add(self.connection)

    def finish(self) -> None:
        with self.server.lock:
            self.server.connections.discard(self.connection)
        with suppress(OSError):  # the client has left
            super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that it has there
        """Say nothing."""

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.content = self._read()
        answer = _refused(404, "UNSUPPORTED", "there is no such end point")
        for pattern, name in self.END_POINTS.items():
            found = re.fullmatch(pattern, url.path)
            if found is not None:
                with self.server.lock:
                    answer = getattr(self, name)(**found.groupdict())
                break
        self.send_response(answer.status)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        for header, value in ({"Content-Length": str(len(answer.body))} | answer.headers).items():
            self.send_header(header, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - the names that it calls

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = bytearray()
        while length := int(self.rfile.readline().split(b";")[0], 16):  # RFC 9112, 7.1
            content += self.rfile.read(length)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return bytes(content)

    # Longer ones first: a name may hold slashes, and all of these words.
    END_POINTS: ClassVar = {
        r"/v2/?": "on_version",
        rf"{_NAME}/blobs/uploads/": "on_uploads",
        rf"{_NAME}/blobs/uploads/(?P<ident>[0-9a-f-]+)": "on_upload",
        rf"{_NAME}/blobs/(?P<digest>[^/]+)": "on_blob",
        rf"{_NAME}/manifests/(?P<version>[^/]+)": "on_manifest",
        rf"{_NAME}/tags/list": "on_tags",
    }

    def on_version(self) -> _Answer:
        """Say that this is a registry: end-1."""
        return _Answer(200, b"{}", {"Content-Type": "application/json"})

    def _repository(self, name: str, *, make: bool = False) -> _Repository:
        found = self.server.repositories.get(name)
        if found is None:
            found = _Repository()
            if make:
                self.server.repositories[name] = found
        return found

    # --- blobs ------------------------------------------------------------------------------------------

    def on_blob(self, name: str, digest: str) -> _Answer:
        """end-2 and end-10."""
        blobs = self._repository(name).blobs
        if digest not in blobs:
            return _refused(404, "BLOB_UNKNOWN", f"there is no blob {digest} in {name}")
        if self.command == "DELETE":
            del blobs[digest]
            return _Answer(202)
        content = blobs[digest]
        headers = {"Docker-Content-Digest": digest, "Content-Type": _DEFAULT_TYPE, "Accept-Ranges": "bytes"}
        wanted = _RANGE.fullmatch(self.headers.get("Range", ""))
        if wanted is None:
            return _Answer(200, content, headers)
        first, last = int(wanted[1]), min(int(wanted[2] or len(content) - 1), len(content) - 1)
        if first > last:
            return _refused(416, "RANGE_INVALID", f"it has {len(content)} bytes")
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return _Answer(206, content[first : last + 1], headers)

    def on_uploads(self, name: str) -> _Answer:
        """Begin an upload, do all of it at once, or mount: end-4a, end-4b and end-11."""
        repository = self._repository(name, make=True)
        mounted = self.query.get("mount", "")
        source = self._repository(self.query.get("from", "")).blobs
        if mounted in source:
            repository.blobs[mounted] = source[mounted]
            return self._created(f"/v2/{name}/blobs/{mounted}", mounted)
        if "digest" in self.query:
            return self._finished(name, repository, self.content)
        ident = str(uuid.uuid4())
        repository.uploads[ident] = bytearray()
        return self._reached(name, ident, 202)

    def on_upload(self, name: str, ident: str) -> _Answer:
        """Go on with an upload, end it, drop it, say what has come: end-5, end-6, end-13."""
        repository = self._repository(name)
        upload = repository.uploads.get(ident)
        if upload is None:
            return _refused(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload")
        if self.command == "DELETE":
            del repository.uploads[ident]
            return _Answer(204)
        if self.command == "GET":
            return self._reached(name, ident, 204)
        place = _CHUNK.fullmatch(self.headers.get("Content-Range", ""))
        if place is not None and int(place[1]) != len(upload):
            return _refused(416, "RANGE_INVALID", f"{len(upload)} bytes have come")
        upload += self.content
        if self.command == "PATCH":
            return self._reached(name, ident, 202)
        del repository.uploads[ident]
        return self._finished(name, repository, bytes(upload))

    def _reached(self, name: str, ident: str, status: int) -> _Answer:
        length = len(self._repository(name).uploads[ident])
        headers = {"Location": f"/v2/{name}/blobs/uploads/{ident}", "Range": f"0-{max(0, length - 1)}"}
        return _Answer(status, b"", headers)

    def _finished(self, name: str, repository: _Repository, content: bytes) -> _Answer:
        digest = self.query.get("digest", "")
        if not _is(digest, content):
            return _refused(400, "DIGEST_INVALID", f"what came has not the digest {digest!r}")
        repository.blobs[digest] = content
        return self._created(f"/v2/{name}/blobs/{digest}", digest)

    def _created(self, location: str, digest: str) -> _Answer:
        return _Answer(201, b"", {"Location": location, "Docker-Content-Digest": digest})

    # --- manifests --------------------------------------------------------------------------------------

    def on_manifest(self, name: str, version: str) -> _Answer:
        """end-3, end-7 and end-9."""
        if self.command == "PUT":
            return self._put_manifest(name, version)
        repository = self._repository(name)
        digest = repository.tags.get(version, version)
        if digest not in repository.manifests:
            return _refused(404, "MANIFEST_UNKNOWN", f"there is no {version} in {name}")
        if self.command == "DELETE":
            if version in repository.tags:
                del repository.tags[version]
            else:
                del repository.manifests[digest]
                repository.tags = {tag: one for tag, one in repository.tags.items() if one != digest}
            return _Answer(202)
        media_type, content = repository.manifests[digest]
        return _Answer(200, content, {"Docker-Content-Digest": digest, "Content-Type": media_type})

    def _put_manifest(self, name: str, version: str) -> _Answer:
        repository = self._repository(name, make=True)
        digest = str(Digest.of(self.content))
        if ":" in version:
            if not _is(version, self.content):
                return _refused(400, "DIGEST_INVALID", f"what came has not the digest {version}")
            digest = version
        try:
            document = json.loads(self.content)
            listed = [*document.get("layers", ()), *filter(None, (document.get("config"),))]
            wanted = [one["digest"] for one in listed if not one.get("urls")]
            children = [one["digest"] for one in document.get("manifests", ())]
        except (ValueError, AttributeError, KeyError, TypeError):
            return _refused(400, "MANIFEST_INVALID", "it is no manifest")
        missing = [one for one in wanted if one not in repository.blobs]
        missing += [one for one in children if one not in repository.manifests]
        if missing:
            return _refused(400, "MANIFEST_BLOB_UNKNOWN", f"{missing[0]} is not there")
        media_type = self.headers.get("Content-Type") or document.get("mediaType") or _DEFAULT_TYPE
        repository.manifests[digest] = (media_type, self.content)
        if ":" not in version:
            repository.tags[version] = digest
        return self._created(f"/v2/{name}/manifests/{digest}", digest)

    def on_tags(self, name: str) -> _Answer:
        """end-8."""
        if name not in self.server.repositories:
            return _refused(404, "NAME_UNKNOWN", f"there is no repository {name}")
        tags = sorted(tag for tag in self._repository(name).tags if tag > self.query.get("last", ""))
        most = int(self.query.get("n", len(tags)))
        headers = {"Content-Type": "application/json"}
        if most < len(tags):
            after = urlencode({"n": most, "last": tags[most - 1]}) if most else "n=0"
            headers["Link"] = f'</v2/{name}/tags/list?{after}>; rel="next"'
        return _Answer(200, json.dumps({"name": name, "tags": tags[:most]}).encode(), headers)
