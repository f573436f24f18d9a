"""Where an image comes from, as a value: the text that users write, with its transport taken apart.

The transports are those of containers-transports(5) that need no daemon, and two of our own: a plain root file
system, and this machine. Nothing is opened or fetched here.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

import attrs

from pycontain.errors import InvalidReference
from pycontain.oci.reference import Reference


@attrs.frozen
class RegistrySource:
    """An image in a registry: ``alpine``, ``docker://ghcr.io/a/b:1.2``."""

    reference: Reference

    def __str__(self) -> str:
        return f"docker://{self.reference}"


@attrs.frozen
class OciLayout:
    """An image in an OCI image layout: ``oci:DIR[:TAG]``. Without a tag the layout must hold one image."""

    path: str
    tag: str | None = None

    def __str__(self) -> str:
        return _join("oci", self.path, self.tag)


@attrs.frozen
class OciArchive:
    """An image in a tar of an OCI image layout: ``oci-archive:FILE[:TAG]``."""

    path: str
    tag: str | None = None

    def __str__(self) -> str:
        return _join("oci-archive", self.path, self.tag)


@attrs.frozen
class DockerArchive:
    """An image in a file that ``docker save`` wrote: ``docker-archive:FILE[:REF]``."""

    path: str
    reference: Reference | None = None

    def __str__(self) -> str:
        return _join("docker-archive", self.path, str(self.reference) if self.reference else None)


@attrs.frozen
class Rootfs:
    """A plain root file system: ``rootfs:DIR``, or a tar of one, ``rootfs:FILE.tar[.gz|.zst]``."""

    path: str

    def __str__(self) -> str:
        return _join("rootfs", self.path)


@attrs.frozen
class HostImage:
    """This machine's own programs, read-only: ``host:``."""

    def __str__(self) -> str:
        return "host:"


Source: TypeAlias = RegistrySource | OciLayout | OciArchive | DockerArchive | Rootfs | HostImage

#: How each transport is written; the order is the one of the documentation.
TRANSPORTS: Final[dict[str, str]] = {
    "docker": "docker://REFERENCE",
    "oci": "oci:DIR[:TAG]",
    "oci-archive": "oci-archive:FILE[:TAG]",
    "docker-archive": "docker-archive:FILE[:REF]",
    "rootfs": "rootfs:DIR|FILE.tar",
    "host": "host:",
}

# Other programs know these; read as references they would silently name images on Docker Hub.
_FOREIGN = {"containers-storage", "dir", "docker-daemon", "oci-daemon", "ostree", "sif", "tarball"}

# image-spec annotations.md: the grammar of org.opencontainers.image.ref.name
_REF_NAME = re.compile(
    r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*(?:/[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*)*"
)


def parse_source(text: str) -> Source:
    """Read an image reference with or without a transport.

    >>> parse_source("oci:/srv/images/alpine:3.20")
    OciLayout(path='/srv/images/alpine', tag='3.20')
    """
    transport, colon, rest = text.partition(":")
    if not colon:
        return _parse_registry(text)
    match transport:
        case "oci":
            return OciLayout(*_split_ref_name(text, rest))
        case "oci-archive":
            return OciArchive(*_split_ref_name(text, rest))
        case "docker-archive":
            path, reference = _split_path(text, rest)
            return DockerArchive(path, None if reference is None else Reference.parse(reference))
        case "rootfs":
            return Rootfs(_checked_path(text, rest))
        case "host":
            return _parse_host(text, rest)
        case "docker" if rest.startswith("//"):
            return RegistrySource(Reference.parse(rest.removeprefix("//")))
    if transport in _FOREIGN or rest.startswith("//"):
        raise InvalidReference(f"{transport!r} is no transport that pycontain knows", text=text, hint=_KNOWN)
    return _parse_registry(text)


_KNOWN = (
    "transports are "
    + ", ".join(TRANSPORTS.values())
    + "; without one, the text names an image in a registry"
)


def _parse_registry(text: str) -> RegistrySource:
    try:
        return RegistrySource(Reference.parse(text))
    except InvalidReference as error:
        if text.startswith((".", "/", "~")):
            error.add_note(f"for a root file system on disk write rootfs:{text}")
        elif ":" in text.partition("/")[0]:
            error.add_note(_KNOWN)
        raise


def _parse_host(text: str, rest: str) -> HostImage:
    if rest:
        raise InvalidReference(
            f"{text!r} is ambiguous: host: is this machine and takes nothing after the colon",
            text=text,
            hint=f"write host: for this machine, or docker://{text} for the image of that name in a registry",
        )
    return HostImage()


def _split_ref_name(text: str, rest: str) -> tuple[str, str | None]:
    path, tag = _split_path(text, rest)
    if tag is not None and not _REF_NAME.fullmatch(tag):
        raise InvalidReference(f"{tag!r} in {text!r} is no tag of an image layout", text=text)
    return path, tag


def _split_path(text: str, rest: str) -> tuple[str, str | None]:
    # As skopeo does: the first colon ends the path, because a tag may hold colons.
    path, colon, name = rest.partition(":")
    return _checked_path(text, path), name if colon else None


def _checked_path(text: str, path: str) -> str:
    if not path or "\0" in path:
        transport = text.partition(":")[0]
        raise InvalidReference(f"{text!r} names no path", text=text, hint=f"write {TRANSPORTS[transport]}")
    return path


def _join(*parts: str | None) -> str:
    return ":".join(part for part in parts if part is not None)
