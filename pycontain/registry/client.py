"""Registries and repositories: what can be asked of them (distribution-spec 1.1, "Endpoints").

A :class:`Registry` holds connections and tokens; keep one for each registry and share it between threads. Making
one, or a :class:`Repository` of it, talks to nobody. Pulls ask the mirrors first, and the registry itself when all
of them fail; pushes go to the registry. ``urls`` of descriptors are never fetched: an image could name any host.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, BinaryIO, Final, Self, TypeAlias, TypeVar

import attrs

from pycontain.errors import DigestMismatch, ImageError, InvalidImage, InvalidReference, RegistryError
from pycontain.oci.codec import EMPTY, MAX_DOCUMENT_BYTES, TEXTS, FrozenMap, Json, decode, object_of, optional
from pycontain.oci.descriptor import Descriptor
from pycontain.oci.digest import Digest
from pycontain.oci.manifest import parse_document
from pycontain.oci.media_types import INDEXES, MANIFESTS
from pycontain.oci.reference import DEFAULT_TAG, Reference
from pycontain.registry.blob import BlobStream
from pycontain.registry.challenge import to_push
from pycontain.registry.session import Purpose, Session
from pycontain.registry.settings import RegistrySettings, endpoint_of, mirrors_of
from pycontain.registry.transport import Body, Request, host_of, redirected
from pycontain.registry.upload import Upload, has_blob, mount_blob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from pycontain.registry.blob import Opener
    from pycontain.registry.transport import Answer

T = TypeVar("T")

_log = logging.getLogger(__name__)

_DOCUMENTS = MANIFESTS | INDEXES
_ACCEPT: Final = FrozenMap({"Accept": ", ".join(sorted(_DOCUMENTS))})
_DIGEST = "Docker-Content-Digest"
_NO_HEAD = (400, 404, 405, 501)  # maybe only the method is unknown; GET brings the reason
_NEXT = re.compile(r"""<([^<>]*)>[ \t]*;[ \t]*rel="?next"?""")  # RFC 8288
_MAX_PAGES = 1000

#: A reference, a digest, or a tag.
Version: TypeAlias = Reference | Digest | str


@attrs.define(eq=False)
class Registry:
    """One registry, by its name in references, and its mirrors. Close it, or use it in a ``with``.

    ``places`` are those to ask: the mirrors in their order, and the registry itself as the last.
    """

    name: str
    settings: RegistrySettings = attrs.field(factory=RegistrySettings, repr=False)
    places: tuple[Session, ...] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        origin = Session.open(endpoint_of(self.name, self.settings), self.settings, self.settings.auth)
        mirrors = [Session.open(mirror, self.settings, None) for mirror in mirrors_of(self.settings)]
        self.places = (*mirrors, origin)

    @property
    def origin(self) -> Session:
        """The registry itself."""
        return self.places[-1]

    def repository(self, name: str) -> Repository:
        """One repository of it, by the name that references use: ``library/alpine``."""
        return Repository(self, name)

    def interrupt(self) -> None:
        """Break all connections, and make no more: nobody waits for what they bring. In any thread."""
        for session in self.places:
            session.transport.interrupt()

    def close(self) -> None:
        """End all idle connections."""
        for session in self.places:
            session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@attrs.frozen
class Repository:
    """One repository of a registry. Threads may share it.

    A manifest or repository that is not there raises :class:`ImageNotFound`; a blob that is not there, which a
    sound registry never has, a :class:`RegistryError` with status 404.
    """

    registry: Registry
    name: str

    def __attrs_post_init__(self) -> None:
        Reference(self.registry.name, self.name, DEFAULT_TAG)  # refuses what breaks the grammar

    def __str__(self) -> str:
        return f"{self.registry.name}/{self.name}"

    # --- manifests --------------------------------------------------------------------------------------

    def resolve(self, version: Version) -> Descriptor:
        """Describe the manifest or index that *version* stands for now, without fetching it where that works."""
        wanted = self._plain(version)
        found = self._read(lambda session, name: _head(session, name, wanted))
        return found or self.manifest(version)[0]

    def manifest(self, version: Version) -> tuple[Descriptor, bytes]:
        """The manifest or index that *version* stands for now. By digest, its bytes are verified."""
        wanted = self._plain(version)
        return self._read(lambda session, name: _get(session, name, wanted))

    def read_manifest(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest or index, verified; what :func:`pycontain.oci.choice.resolve` wants as *read*."""
        if descriptor.data is not None:
            return descriptor.data

        def get(session: Session, name: str) -> bytes:
            content = _get(session, name, descriptor.digest)[1]
            descriptor.check(content)
            return content

        return self._read(get)

    def push_manifest(self, descriptor: Descriptor, content: bytes, version: Version | None = None) -> None:
        """Store a manifest or index whose blobs or manifests are there, under a tag or by its digest alone.

        Safe to repeat. A tag that exists moves.
        """
        descriptor.check(content)
        wanted = descriptor.digest if version is None else self._plain(version)
        request = Request(
            "PUT",
            self.registry.origin.address(self.name, f"manifests/{wanted}"),
            headers={"Content-Type": descriptor.media_type},
            body=Body.of(content),
        )
        purpose = Purpose(f"push {_join(self, wanted)}", self.name, [to_push(self.name)])
        with self.registry.origin.send(request, purpose, 201) as answer:
            _check_stored(answer, descriptor.digest)

    # --- blobs ------------------------------------------------------------------------------------------

    def blob(self, descriptor: Descriptor, offset: int = 0, *, verify: bool = False) -> BlobStream:
        """Open a blob from *offset*, which is between 0 and its size. The caller closes the stream.

        The size is always checked. The digest is checked with *verify*, for a whole blob; otherwise it is for
        whoever stores the bytes to check it.
        """
        openers = [_blob_opener(session, self.name, descriptor.digest) for session in self.registry.places]
        return BlobStream(
            descriptor, openers, self.registry.origin.transport.wait_after, offset, verify=verify
        )

    def read_blob(self, descriptor: Descriptor) -> bytes:
        """A small blob, such as a config, whole and verified."""
        if descriptor.data is not None:
            return descriptor.data
        if descriptor.size > MAX_DOCUMENT_BYTES:
            raise InvalidImage(
                f"{descriptor.digest} has {descriptor.size} bytes, more than the {MAX_DOCUMENT_BYTES} of a document"
            )
        with self.blob(descriptor, verify=True) as stream:
            return stream.read()

    def has_blob(self, digest: Digest) -> bool:
        """Whether the registry itself, not a mirror, has the blob in this repository."""
        return has_blob(self.registry.origin, Purpose.pull(self.name, f"the blob {digest}"), digest)

    def mount_blob(self, digest: Digest, from_repository: str) -> bool:
        """Take a blob over from another repository of the same registry, without its bytes moving.

        False when the registry does not do that: it may not know the blob there, or may not want to.
        """
        source = Repository(self.registry, from_repository).name
        return mount_blob(self.registry.origin, self.name, digest, source)

    def push_blob(self, descriptor: Descriptor, source: BinaryIO, chunk_size: int | None = None) -> bool:
        """Store the bytes of *source*, seekable and read from its start; the registry checks the digest.

        In one request, or with *chunk_size* in several, which survive a broken connection in between. False when
        the registry had the blob. Safe to repeat.
        """
        upload = Upload(self.registry.origin, self.name, descriptor, chunk_size)
        if upload.is_stored():
            return False
        upload.perform(source)
        return True

    # --- tags -------------------------------------------------------------------------------------------

    def tags(self) -> Iterator[str]:
        """The tags, in the registry's order, page by page as they are taken."""
        purpose = Purpose.pull(self.name, f"the tags of {self}", reference=str(self))
        request = Request("GET", self.registry.origin.address(self.name, "tags/list"))
        for _ in range(_MAX_PAGES):
            answer, content = self.registry.origin.fetch(request, purpose, MAX_DOCUMENT_BYTES)
            yield from _parse_tags(self.registry.name, content)
            following = _NEXT.search(answer.headers.get("Link", ""))
            if not following:
                return
            request = redirected(attrs.evolve(request, url=answer.url), following[1])
        raise RegistryError(f"{self} has more than {_MAX_PAGES} pages of tags", registry=self.registry.name)

    # --- where to ask -----------------------------------------------------------------------------------

    def _plain(self, version: Version) -> Digest | str:
        match version:
            case Digest():
                return version
            case str():
                reference = Reference(self.registry.name, self.name, version)  # refuses what is no tag
            case Reference():
                reference = version
        if (reference.registry, reference.repository) != (self.registry.name, self.name):
            raise InvalidReference(f"{reference} is not in the repository {self}", text=str(reference))
        return reference.digest or reference.tag or ""

    def _read(self, ask: Callable[[Session, str], T]) -> T:
        """What the first mirror that can gives, or else the registry itself."""
        *mirrors, origin = self.registry.places
        for mirror in mirrors:
            try:
                return ask(mirror, mirror.repository(self.name))
            except (RegistryError, ImageError) as error:
                _log.debug("mirror %s of %s failed: %s", mirror.endpoint.name, self, error)
        return ask(origin, self.name)


# --- single requests ------------------------------------------------------------------------------------


def _join(place: object, version: Digest | str) -> str:
    return f"{place}{'@' if isinstance(version, Digest) else ':'}{version}"


def _document_request(
    method: str, session: Session, name: str, version: Digest | str
) -> tuple[Request, Purpose]:
    reference = _join(f"{session.endpoint.name}/{name}", version)
    request = Request(method, session.address(name, f"manifests/{version}"), headers=_ACCEPT)
    return request, Purpose.pull(name, reference, reference)


def _head(session: Session, name: str, version: Digest | str) -> Descriptor | None:
    """The descriptor of a manifest as its headers have it; None when they do not suffice."""
    request, purpose = _document_request("HEAD", session, name, version)
    with session.send(request, purpose, 200, *_NO_HEAD) as answer:
        size = _said_size(answer)
        media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        digest = _said_digest(answer)
    if answer.status != 200 or digest is None or not size or media_type not in _DOCUMENTS:
        return None
    if isinstance(version, Digest) and digest != version:
        raise _wrong_document(session, version, digest)
    return Descriptor(media_type, digest, size)


def _get(session: Session, name: str, version: Digest | str) -> tuple[Descriptor, bytes]:
    request, purpose = _document_request("GET", session, name, version)
    answer, content = session.fetch(request, purpose, MAX_DOCUMENT_BYTES)
    digest = version if isinstance(version, Digest) else _said_digest(answer) or Digest.of(content)
    digest.check(content)
    document = parse_document(content, answer.headers.get("Content-Type"))
    return Descriptor(document.media_type, digest, len(content)), content


def _said_digest(answer: Answer) -> Digest | None:
    text = answer.headers.get(_DIGEST)
    digest = Digest.parse(text) if text else None
    return digest if digest and digest.is_supported else None


def _said_size(answer: Answer) -> int:
    text = answer.headers.get("Content-Length", "")
    return int(text[:20]) if text.isdecimal() else 0


def _check_stored(answer: Answer, digest: Digest) -> None:
    said = _said_digest(answer)
    if said and said != digest:
        raise DigestMismatch(
            f"{host_of(answer.url)} stored {digest} as {said}", expected=str(digest), found=str(said)
        )


def _wrong_document(session: Session, wanted: Digest, found: Digest) -> DigestMismatch:
    return DigestMismatch(
        f"{session.endpoint.name} answers with {found} when asked for {wanted}",
        expected=str(wanted),
        found=str(found),
    )


def _blob_opener(session: Session, repository: str, digest: Digest) -> Opener:
    name = session.repository(repository)
    purpose = Purpose.pull(name, f"the blob {digest} of {name}")

    def open_from(offset: int) -> Answer:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        request = Request("GET", session.address(name, f"blobs/{digest}"), headers=headers)
        return session.send(request, purpose, 200, 206, 416)

    return open_from


@attrs.frozen
class _TagList:
    tags: tuple[str, ...] = ()  # null when there is none
    extra: FrozenMap[Json] = EMPTY


_TAGS: Final = object_of(_TagList, tags=optional("tags", TEXTS))


def _parse_tags(registry: str, content: bytes) -> tuple[str, ...]:
    try:
        return decode(_TAGS, content, "answer").tags
    except InvalidImage as error:
        raise RegistryError(f"{registry} sends no list of tags: {error}", registry=registry) from error
