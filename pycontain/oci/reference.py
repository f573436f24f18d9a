"""A reference names an image in a registry, in the normal form that Docker gives it.

The written form leaves things out: ``alpine`` means ``docker.io/library/alpine:latest``. :meth:`Reference.parse`
fills them in, so that two references are equal exactly when they say the same. The grammar is the one of
distribution-spec ("Pulling manifests") with the registry that Docker and containerd put in front of it.
"""

from __future__ import annotations

import re
from typing import Final, Self

import attrs

from pycontain.errors import InvalidImage, InvalidReference
from pycontain.oci.digest import HEX_LENGTHS, Digest

DEFAULT_REGISTRY: Final = "docker.io"
DEFAULT_TAG: Final = "latest"

_OFFICIAL = "library/"  # where Docker Hub keeps the images whose names have one component
_LEGACY_REGISTRY = "index.docker.io"

# No two neighbouring repetitions share a character, so matching takes linear time.
_HOST = r"[a-zA-Z0-9]+(?:-+[a-zA-Z0-9]+)*"
_REGISTRY = re.compile(rf"(?:{_HOST}(?:\.{_HOST})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_IMAGE_ID = re.compile(r"[a-f0-9]{64}")

_MAX_REGISTRY = 253 + len(":65535")  # RFC 1035 limits a host name
_MAX_REPOSITORY = 255
_MAX_TEXT = 1024  # more than the longest registry, repository, tag and digest take together


@attrs.frozen(order=True, repr=False)
class Reference:
    """``registry/repository`` and a tag, a digest, or both.

    Each part obeys the grammar, so ``Reference.parse(str(x)) == x``. With both a tag and a digest, the digest
    says which bytes and the tag is kept for the reader.

    >>> Reference.parse("alpine")
    Reference(docker.io/library/alpine:latest)
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __attrs_post_init__(self) -> None:
        problem = (
            _problem_of_registry(self.registry)
            or _problem_of_repository(self.repository)
            or _problem_of_version(self.tag, self.digest)
        )
        if problem:
            raise InvalidReference(problem, text=str(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read *text* as Docker does.

        The first component is the registry when it could not be anything else: it is ``localhost``, or has a dot,
        a colon or an upper-case letter. Otherwise the registry is Docker Hub. Without tag and digest the tag is
        ``latest``.
        """
        try:
            return cls._parse(text)
        except (InvalidImage, InvalidReference) as error:
            raise InvalidReference(f"{_shorten(text)!r} is no image reference: {error}", text=text) from error

    @classmethod
    def _parse(cls, text: str) -> Self:
        if len(text) > _MAX_TEXT:
            raise InvalidReference(f"it has more than {_MAX_TEXT} characters")
        if _IMAGE_ID.fullmatch(text):
            raise InvalidReference("64 hex digits are the ID of an image")
        rest, at, digest = text.partition("@")
        name, tag = _split_tag(rest)
        if not at and tag is None:
            tag = DEFAULT_TAG
        return cls(*_split_name(name), tag, Digest.parse(digest) if at else None)

    @property
    def name(self) -> str:
        """``registry/repository``."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar_name(self) -> str:
        """The shortest text that means this registry and repository."""
        shorter = self.repository.removeprefix(_OFFICIAL)
        for text in (shorter, self.repository):
            if _split_name(text) == (self.registry, self.repository) and not _IMAGE_ID.fullmatch(text):
                return text
        return self.name

    @property
    def familiar(self) -> str:
        """The text that people write: as ``str()``, and without what :meth:`parse` fills in for the name."""
        return self.familiar_name + self._version

    @property
    def _version(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        return f"{tag}@{self.digest}" if self.digest else tag

    def __str__(self) -> str:
        return self.name + self._version

    def __repr__(self) -> str:
        return f"Reference({self})"

    def with_tag(self, tag: str) -> Self:
        """The same repository by *tag* alone: a digest belonged to what the old tag meant."""
        return attrs.evolve(self, tag=tag, digest=None)

    def with_digest(self, digest: Digest) -> Self:
        """The same repository by *digest* alone."""
        return attrs.evolve(self, tag=None, digest=digest)

    def matches(self, pattern: str) -> bool:
        """Whether the familiar form, or the familiar name alone, fits a shell pattern.

        ``*`` and ``?`` stay within one component of the path.
        """
        return _fits(self.familiar, pattern) or _fits(self.familiar_name, pattern)


def _problem_of_registry(registry: str) -> str | None:
    if len(registry) <= _MAX_REGISTRY and _REGISTRY.fullmatch(registry):
        return None
    return f"{_shorten(registry)!r} is no registry, which is a host name and maybe a port"


def _problem_of_repository(repository: str) -> str | None:
    if len(repository) > _MAX_REPOSITORY:
        return f"the repository has more than {_MAX_REPOSITORY} characters"
    written = repository.removeprefix(_OFFICIAL)
    if repository != repository.lower():
        return f"the repository {written!r} has upper-case letters"
    if not _REPOSITORY.fullmatch(repository):
        return f"{written!r} is no repository, which is lower-case words joined by dots, dashes, underscores or slashes"
    return None


def _problem_of_version(tag: str | None, digest: Digest | None) -> str | None:
    if tag is None and digest is None:
        return "it has neither tag nor digest"
    if tag is not None and not _TAG.fullmatch(tag):
        return (
            f"{_shorten(tag)!r} is no tag, which has up to 128 letters, digits, dots, dashes and underscores"
        )
    if digest is not None and not digest.is_supported:
        return f"the digest algorithm {digest.algorithm} is not one of {', '.join(HEX_LENGTHS)}"
    return None


def _split_tag(text: str) -> tuple[str, str | None]:
    """A colon after the last slash starts the tag; one before it starts a port."""
    name, colon, tag = text.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (text, None)


def _split_name(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not (slash and (first == "localhost" or {".", ":"} & set(first) or first != first.lower())):
        first, rest = DEFAULT_REGISTRY, name
    if first == _LEGACY_REGISTRY:
        first = DEFAULT_REGISTRY
    if first == DEFAULT_REGISTRY and "/" not in rest:
        rest = _OFFICIAL + rest
    return first, rest


def _fits(path: str, pattern: str) -> bool:
    from fnmatch import fnmatchcase  # noqa: PLC0415 - only listings need it

    names, patterns = path.split("/"), pattern.split("/")
    return len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
