"""A platform says for which machines an image is, and which other platforms such a machine can run.

Normal forms and the order of preference are those of containerd, so that ``aarch64`` and ``arm64/v8`` mean the
same, and an ARM v7 machine takes v7, then v6, then v5.
"""

from __future__ import annotations

import re
from typing import Final, Self

import attrs

from pycontain.errors import InvalidImage
from pycontain.oci.codec import (
    EMPTY,
    FrozenMap,
    Json,
    array_of,
    frozen,
    object_of,
    optional,
    required,
    text_like,
)

_PART = r"[A-Za-z0-9_.-]{1,64}"
_WRITTEN = re.compile(rf"(?:({_PART})/)?({_PART})(?:/({_PART}))?")

# Names that kernels and distributions use (uname -m, dpkg, rpm), and what images call them.
_ARCHITECTURES: Final = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv5l": ("arm", "v5"),
    "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv8l": ("arm", "v8"),
    "loongarch64": ("loong64", ""),
    "ppc64el": ("ppc64le", ""),
}

# Spellings of a variant, and its normal form: only arm always has one.
_VARIANTS: Final = {
    "amd64": {"v1": "", "1": "", "2": "v2", "3": "v3", "4": "v4"},
    "arm": {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"},
    "arm64": {"v8": "", "8": "", "v8.0": "", "8.0": "", "9": "v9", "9.0": "v9", "v9.0": "v9"},
}

# What a machine also runs, one step down; the steps form chains.
_ALSO_RUNS: Final = {
    ("amd64", "v4"): ("amd64", "v3"),
    ("amd64", "v3"): ("amd64", "v2"),
    ("amd64", "v2"): ("amd64", ""),
    ("amd64", ""): ("386", ""),
    ("arm64", "v9"): ("arm64", ""),
    ("arm64", ""): ("arm", "v8"),
    ("arm", "v8"): ("arm", "v7"),
    ("arm", "v7"): ("arm", "v6"),
    ("arm", "v6"): ("arm", "v5"),
}

_SYSTEMS: Final = {"macos": "darwin"}


@attrs.frozen(repr=False)
class Platform:
    """An operating system and an architecture, and for some architectures a variant.

    >>> Platform.parse("aarch64")
    Platform(linux/arm64)
    """

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    extra: FrozenMap[Json] = attrs.field(default=EMPTY, converter=frozen)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``os/architecture[/variant]``, or an architecture alone for Linux, and give its normal form."""
        found = _WRITTEN.fullmatch(text)
        if not found or found[2] == "linux":
            raise InvalidImage(f"{text!r} is no platform", hint="write one like linux/arm64 or linux/arm/v7")
        return cls(found[1] or "linux", found[2], found[3] or "").normal()

    def normal(self) -> Self:
        """The same platform by the names that images use; normal forms are equal when platforms are."""
        system, written = self.os.lower(), self.architecture.lower()
        architecture, variant = _ARCHITECTURES.get(written, (written, ""))
        variant = variant or self.variant.lower()
        return attrs.evolve(
            self,
            os=_SYSTEMS.get(system, system),
            architecture=architecture,
            variant=_VARIANTS.get(architecture, {}).get(variant, variant),
        )

    def runnable(self) -> tuple[Self, ...]:
        """Every platform whose programs this one runs, in normal form: itself first, the least wanted last."""
        best = self.normal()
        found = [best]
        step = _ALSO_RUNS.get((best.architecture, best.variant))
        while step:
            found.append(attrs.evolve(best, architecture=step[0], variant=step[1]))
            step = _ALSO_RUNS.get(step)
        return tuple(found)

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def __repr__(self) -> str:
        return f"Platform({self})"


#: One part of a platform; messages print it, so it must be printable.
PART: Final = text_like(r"[!-~]{0,64}", "a short name")

PLATFORM: Final = object_of(
    Platform,
    os=required("os", PART),
    architecture=required("architecture", PART),
    variant=optional("variant", PART),
    os_version=optional("os.version", PART),
    os_features=optional("os.features", array_of(PART)),
)
