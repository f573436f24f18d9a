"""The config of an image: how to run it, and which layers it is made of (image-spec, config.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pycontain.oci.codec import (
    DIGEST,
    EMPTY,
    FLAG,
    INTEGER,
    KEY_SET,
    TEXT,
    TEXT_MAP,
    TEXTS,
    TIME,
    FrozenMap,
    Json,
    array_of,
    decode,
    encode,
    frozen,
    object_of,
    optional,
    required,
    text_like,
)
from pycontain.oci.platform import PART, Platform

if TYPE_CHECKING:
    from pycontain.oci.digest import Digest


def _as_set(keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(keys)))


@attrs.frozen
class Healthcheck:
    """How to find out whether the payload is well; Docker's addition to the specification.

    ``test`` starts with ``NONE``, ``CMD`` or ``CMD-SHELL``; empty inherits. Times are in nanoseconds, as the
    document has them, and 0 stands for the default.
    """

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0
    extra: FrozenMap[Json] = attrs.field(default=EMPTY, converter=frozen)


@attrs.frozen
class ExecutionParameters:
    """What a container made from the image starts with, unless the user says otherwise.

    ``env`` holds ``NAME=value`` texts in order. ``exposed_ports`` and ``volumes`` are sets, kept sorted.
    """

    user: str = ""
    exposed_ports: tuple[str, ...] = attrs.field(default=(), converter=_as_set)
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    volumes: tuple[str, ...] = attrs.field(default=(), converter=_as_set)
    working_dir: str = ""
    labels: FrozenMap[str] = attrs.field(default=EMPTY, converter=frozen)
    stop_signal: str = ""
    args_escaped: bool = False
    healthcheck: Healthcheck | None = None
    shell: tuple[str, ...] = ()
    on_build: tuple[str, ...] = ()
    extra: FrozenMap[Json] = attrs.field(default=EMPTY, converter=frozen)


@attrs.frozen
class RootFS:
    """The layers of the image as digests of their uncompressed tars, the lowest first."""

    diff_ids: tuple[Digest, ...]
    type: str = "layers"
    extra: FrozenMap[Json] = attrs.field(default=EMPTY, converter=frozen)


@attrs.frozen
class History:
    """How one layer came to be; with ``empty_layer`` the step made no layer."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False
    extra: FrozenMap[Json] = attrs.field(default=EMPTY, converter=frozen)


@attrs.frozen
class ImageConfig:
    """The document that a manifest calls ``config``; its digest is the image ID."""

    architecture: str
    os: str
    rootfs: RootFS
    config: ExecutionParameters = ExecutionParameters()
    history: tuple[History, ...] = ()
    created: str = ""
    author: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    extra: FrozenMap[Json] = attrs.field(default=EMPTY, converter=frozen)

    @staticmethod
    def parse(content: bytes) -> ImageConfig:
        """Read a config of OCI or of Docker."""
        return decode(_CONFIG, content, "config")

    def encode(self) -> bytes:
        """The config as canonical JSON."""
        return encode(_CONFIG, self)

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        """The digests of the uncompressed layers, the lowest first."""
        return self.rootfs.diff_ids

    @property
    def platform(self) -> Platform:
        """For which machines the image is, as written."""
        return Platform(self.os, self.architecture, self.variant, self.os_version, self.os_features)


_HEALTHCHECK: Final = object_of(
    Healthcheck,
    test=optional("Test", TEXTS),
    interval=optional("Interval", INTEGER),
    timeout=optional("Timeout", INTEGER),
    start_period=optional("StartPeriod", INTEGER),
    start_interval=optional("StartInterval", INTEGER),
    retries=optional("Retries", INTEGER),
)

_EXECUTION_PARAMETERS: Final = object_of(
    ExecutionParameters,
    user=optional("User", TEXT),
    exposed_ports=optional("ExposedPorts", KEY_SET),
    env=optional("Env", array_of(text_like(r"[^=]+=.*", "NAME=value"))),
    entrypoint=optional("Entrypoint", TEXTS),
    cmd=optional("Cmd", TEXTS),
    volumes=optional("Volumes", KEY_SET),
    working_dir=optional("WorkingDir", TEXT),
    labels=optional("Labels", TEXT_MAP),
    stop_signal=optional("StopSignal", TEXT),
    args_escaped=optional("ArgsEscaped", FLAG),
    healthcheck=optional("Healthcheck", _HEALTHCHECK),
    shell=optional("Shell", TEXTS),
    on_build=optional("OnBuild", TEXTS),
)

_ROOTFS: Final = object_of(
    RootFS,
    type=required("type", text_like("layers", "'layers'")),
    diff_ids=required("diff_ids", array_of(DIGEST)),
)

_HISTORY: Final = object_of(
    History,
    created=optional("created", TIME),
    created_by=optional("created_by", TEXT),
    author=optional("author", TEXT),
    comment=optional("comment", TEXT),
    empty_layer=optional("empty_layer", FLAG),
)

_CONFIG: Final = object_of(
    ImageConfig,
    architecture=required("architecture", PART),
    os=required("os", PART),
    rootfs=required("rootfs", _ROOTFS),
    config=optional("config", _EXECUTION_PARAMETERS),
    history=optional("history", array_of(_HISTORY)),
    created=optional("created", TIME),
    author=optional("author", TEXT),
    variant=optional("variant", PART),
    os_version=optional("os.version", PART),
    os_features=optional("os.features", array_of(PART)),
)
