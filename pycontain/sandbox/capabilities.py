"""The capabilities of capabilities(7), by name and number, and the set that a container gets by default."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# <linux/capability.h>: the place in this list is the number.
NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip

# What podman grants (containers-common, default_capabilities): Docker's set without AUDIT_WRITE, MKNOD, NET_RAW.
DEFAULT = frozenset({
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP",
    "SETUID", "SYS_CHROOT",
})  # fmt: skip


def parse_capability(text: str) -> str:
    """Read ``NET_RAW``, ``net_raw`` or ``CAP_NET_RAW`` as the name without its prefix."""
    name = text.upper().removeprefix("CAP_") if isinstance(text, str) else ""
    if name != "ALL" and name not in NAMES:
        raise ValueError(f"{text!r} is no capability; capabilities(7) lists them")
    return name


def granted(before: frozenset[str], add: Iterable[str], drop: Iterable[str]) -> frozenset[str]:
    """What is left of the set *before* after *drop* and then *add*; ``ALL`` in either means all."""
    added, dropped = frozenset(add), frozenset(drop)
    if "ALL" in added:
        return frozenset(NAMES) - dropped
    kept = frozenset() if "ALL" in dropped else before - dropped
    return kept | (added - {"ALL"})


def bits(names: Iterable[str]) -> int:
    """The set as a mask in which bit N is capability number N."""
    return sum(1 << NAMES.index(name) for name in names)
