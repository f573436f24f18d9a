"""Debian's docker-registry for the tests, on a loopback port of its own, and small images to put into it."""

import gzip
import io
import re
import shutil
import subprocess
import tarfile
import time
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from pycontain.oci import media_types
from pycontain.oci.config import ImageConfig, RootFS
from pycontain.oci.descriptor import Descriptor
from pycontain.oci.digest import Digest
from pycontain.oci.manifest import Index, Manifest
from pycontain.oci.platform import Platform
from pycontain.registry.settings import Retries
from pycontain.testing import registry

PATIENCE = 20.0  # seconds for the server to start

USER, PASSWORD = "tester", "open sesame: 1001"
# As htpasswd -nbB -C 5 writes it; the server takes nothing but bcrypt.
HTPASSWD = f"{USER}:$2y$05$nKO/xSZgKyg8NBSy8GaEgeeGitMKTL.NK3st7ATqOKCGiW4oSFfbW\n"

#: No test waits long, and none depends on how long.
SOON = Retries(attempts=4, first_wait=0.01, longest_wait=0.05)

_LISTENING = re.compile(r"listening on ([0-9.]+:[0-9]+)")


@attrs.frozen
class RegistryServer:
    """A running server: its address, and the folder where it keeps its blobs."""

    address: str
    folder: Path


@contextmanager
def serve_registry(folder, *, password=False, certificate=None, token=None):
    """A docker-registry that lives as long as the block.

    With *password* it wants USER and PASSWORD; *token* is the section of its config about tokens.
    """
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed")
    config = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "blobs")}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:0"},
    }
    if certificate:
        config["http"]["tls"] = {"certificate": str(certificate.chain), "key": str(certificate.key)}
    if password:
        (folder / "htpasswd").write_text(HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
    if token:
        config["auth"] = {"token": token}
    (folder / "config.yml").write_text("\n".join(yaml_lines(config)))
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            [program, "serve", str(folder / "config.yml")], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            yield RegistryServer(wait_for_address(process, folder / "log"), folder)
        finally:
            process.kill()
            process.wait()


@contextmanager
def serve_either(which, tmp_path_factory):
    """That of Debian, or the one of :mod:`pycontain.testing`."""
    folder = tmp_path_factory.mktemp("registry")
    if which == "ours":
        with registry() as address:
            yield RegistryServer(address, folder)
        return
    with serve_registry(folder) as server:
        yield server


def wait_for_address(process, log):
    deadline = time.monotonic() + PATIENCE
    while not (found := _LISTENING.search(log.read_text())):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)
    return found[1]


def yaml_lines(value, indent=""):
    for key, member in value.items():
        if isinstance(member, dict):
            yield f"{indent}{key}:"
            yield from yaml_lines(member, indent + "  ")
        else:
            yield f"{indent}{key}: {str(member).lower() if isinstance(member, bool) else member}"


# --- TLS ------------------------------------------------------------------------------------------------


@attrs.frozen
class Certificate:
    """A server's key and certificate, and the authority that signed it, as files."""

    authority: Path
    chain: Path
    key: Path


def make_certificate(folder):
    """A certificate for 127.0.0.1 and localhost, by an authority of its own."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")

    def run(*arguments):
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    authority = ("-subj", "/CN=test authority", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    run("req", "-x509", *new_key, *authority, "-keyout", "ca.key", "-out", "ca.pem")
    run("req", *new_key, "-subj", "/CN=127.0.0.1", "-keyout", "server.key", "-out", "server.csr")
    # Since 3.13 Python wants what RFC 5280 does: who may sign says so, and what is signed says by which key.
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\nauthorityKeyIdentifier=keyid\n")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
    run("x509", "-req", "-in", "server.csr", *signing, "-out", "server.pem")
    return Certificate(folder / "ca.pem", folder / "server.pem", folder / "server.key")


# --- images ---------------------------------------------------------------------------------------------


@attrs.frozen
class TestImage:
    """An image, or an index of some, with the bytes of all that it points to."""

    __test__ = False  # not for pytest

    descriptor: Descriptor
    blobs: dict[Digest, bytes] = attrs.field(repr=False, eq=False)

    def read(self, descriptor):
        return self.blobs[descriptor.digest]

    def open(self, descriptor):
        return io.BytesIO(self.blobs[descriptor.digest])

    @property
    def content(self):
        return self.blobs[self.descriptor.digest]


def make_layer(name, content):
    """A gzip layer with one file, and its diff ID."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(tar.getvalue(), mtime=0), Digest.of(tar.getvalue())


def make_image(*contents, architecture="amd64"):
    """An image with one layer for each of *contents*."""
    layers = [make_layer(f"file{number}", content) for number, content in enumerate(contents)]
    config = ImageConfig(
        architecture=architecture, os="linux", rootfs=RootFS(diff_ids=tuple(diff_id for _, diff_id in layers))
    ).encode()
    described = [Descriptor.of(blob, media_types.LAYER_GZIP) for blob, _ in layers]
    manifest = Manifest(Descriptor.of(config, media_types.CONFIG), tuple(described)).encode()
    top = Descriptor.of(manifest, media_types.MANIFEST)
    return TestImage(
        top, {Digest.of(blob): blob for blob in (manifest, config, *(blob for blob, _ in layers))}
    )


def make_index(**images):
    """An index of images for Linux, by architecture."""
    listed = tuple(
        attrs.evolve(image.descriptor, platform=Platform("linux", name)) for name, image in images.items()
    )
    content = Index(listed).encode()
    blobs = {Digest.of(content): content}
    for image in images.values():
        blobs |= image.blobs
    return TestImage(Descriptor.of(content, media_types.INDEX), blobs)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A registry for all tests of a module."""
    with serve_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server
