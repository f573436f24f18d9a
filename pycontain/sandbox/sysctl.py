"""The settings of sysctl(8) that belong to a container's own namespaces, and so may be set for it alone.

The others are the whole machine's: namespaces(7), and the list that runc and Docker keep.
"""

from __future__ import annotations

import re

NAMESPACED = (
    "fs.mqueue.*",
    "kernel.domainname",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "net.*",
)
"""ipc_namespaces(7) for fs.mqueue and kernel.msg, sem and shm; uts_namespaces(7) for the domain; network_namespaces(7)."""

_PART = r"[A-Za-z0-9_-][A-Za-z0-9_.:-]*"
_DOTTED = re.compile(r"[A-Za-z0-9_-]+([./][A-Za-z0-9_:-]+)+", re.ASCII)
_SLASHED = re.compile(rf"{_PART}(/{_PART})+", re.ASCII)


def parse_sysctl(name: str) -> str:
    """Read the name of a setting of a container's own, in either form of sysctl.d(5); the dotted form comes back."""
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is no name of a kernel setting; write 'net.ipv4.ip_forward'")
    slashed = re.search("[./]", name)
    dotted = swapped(name) if slashed is not None and slashed[0] == "/" else name
    if not _DOTTED.fullmatch(dotted) or not _SLASHED.fullmatch(swapped(dotted)):
        raise ValueError(f"{name!r} is no name of a kernel setting; write 'net.ipv4.ip_forward'")
    if dotted == "kernel.hostname":
        raise ValueError("kernel.hostname is set by .hostname()")
    if not any(
        dotted == known or (known[-1] == "*" and dotted.startswith(known[:-1])) for known in NAMESPACED
    ):
        raise ValueError(
            f"{dotted} is the whole machine's and not a container's; there are {', '.join(NAMESPACED)}"
        )
    return dotted


def parse_value(value: str | int) -> str:
    """The text to write, of one line."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError(f"{value!r} is no value of a kernel setting; write a text or a number")
    text = str(value)
    if not text or not text.isascii() or not text.isprintable():
        raise ValueError(f"{value!r} is no value of a kernel setting; write one line of ASCII")
    return text


def swapped(name: str) -> str:
    """The other form of a name: sysctl.d(5) swaps dots and slashes, so that net.ipv4.conf.eth0/1 is eth0.1."""
    return name.translate({ord("."): "/", ord("/"): "."})
