"""A digest names bytes by their hash: ``sha256:…`` or ``sha512:…`` (image-spec, descriptor.md, "Digests")."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, Self, cast

import attrs

from pycontain.errors import DigestMismatch, InvalidImage

if TYPE_CHECKING:
    from hashlib import _Hash

Algorithm = Literal["sha256", "sha512"]

#: The registered algorithms that pycontain computes, and how many hex digits each yields.
HEX_LENGTHS: Final[dict[str, int]] = {"sha256": 64, "sha512": 128}

# The grammar of descriptor.md; it allows algorithms that nobody has registered yet.
_ALGORITHM = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*")
_ENCODED = re.compile(r"[a-zA-Z0-9=_-]+")
_HEX = re.compile(r"[a-f0-9]+")


@attrs.frozen(order=True, repr=False)
class Digest:
    """An algorithm and the encoded hash.

    Both parts obey the grammar of the specification, so they are safe as path components. An algorithm that is
    not supported may be held and printed, as the specification asks; only :meth:`hasher` refuses it.
    """

    algorithm: str
    hex: str

    def __attrs_post_init__(self) -> None:
        if not _ALGORITHM.fullmatch(self.algorithm) or not _ENCODED.fullmatch(self.hex):
            raise InvalidImage(f"{str(self)!r} is no digest", hint=_SHAPE)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``algorithm:encoded``; for a supported algorithm, also hold it to its length and alphabet."""
        algorithm, colon, encoded = text.partition(":")
        if not colon or len(text) > _MAX_LENGTH:
            raise InvalidImage(f"{text[:_MAX_LENGTH]!r} is no digest", hint=_SHAPE)
        digest = cls(algorithm, encoded)
        length = HEX_LENGTHS.get(algorithm)
        if length and not (len(encoded) == length and _HEX.fullmatch(encoded)):
            raise InvalidImage(f"{text!r} is no digest: {algorithm} has {length} lower-case hex digits")
        return digest

    @classmethod
    def of(cls, content: bytes, algorithm: Algorithm = "sha256") -> Self:
        """Hash *content*."""
        hasher = _hasher(algorithm)
        hasher.update(content)
        return cls(algorithm, hasher.hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    def __repr__(self) -> str:
        return f"Digest({self})"

    @property
    def is_supported(self) -> bool:
        """Whether pycontain can compute this algorithm."""
        return self.algorithm in HEX_LENGTHS

    def hasher(self) -> _Hash:
        """Start a hash of this digest's algorithm, for content that comes in pieces."""
        if not self.is_supported:
            raise InvalidImage(
                f"the digest algorithm {self.algorithm} is not supported",
                hint="pycontain verifies " + " and ".join(HEX_LENGTHS),
            )
        return _hasher(cast("Algorithm", self.algorithm))

    def check(self, content: bytes) -> None:
        """Raise :class:`DigestMismatch` unless *content* has this digest."""
        hasher = self.hasher()
        hasher.update(content)
        self.check_hex(hasher.hexdigest())

    def check_hex(self, found: str) -> None:
        """Raise :class:`DigestMismatch` unless *found*, the result of :meth:`hasher`, is this digest's."""
        if found != self.hex:
            raise DigestMismatch(
                f"the content is not what its digest says: expected {self}, found {self.algorithm}:{found}",
                expected=str(self),
                found=f"{self.algorithm}:{found}",
            )


_SHAPE = "a digest is written like sha256: and 64 lower-case hex digits"
_MAX_LENGTH = 512  # no limit in the specification; sha512 needs 135


def _hasher(algorithm: Algorithm) -> _Hash:
    import hashlib  # noqa: PLC0415 - loads OpenSSL, which a program that only reads references never needs

    return hashlib.new(algorithm)
