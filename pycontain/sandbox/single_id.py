"""Calls that succeed without doing anything, where a user namespace has one id only.

An ordinary user without subordinate ids can give a file to nobody and become nobody: chown(2) to another id and setgroups(2)
fail. Package managers do both and give up, though for one user it makes no difference whose a file is. So a filter says 0 for
such calls, in place of the kernel. It is what Charliecloud does (its documentation, "--seccomp"); unlike there capset(2) is real,
for in a user namespace it works.

A program that drops its rights this way believes that it did. It loses nothing by that here: whoever it would have become would
have been the same user outside. apt-get(8) does not believe it, and is told in a
file of its own to become nobody (``Content.APT``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pycontain.kernel.syscall_tables import Abi
from pycontain.sandbox.seccomp import Action, Answer, Arg, Op, Profile, Rule
from pycontain.sandbox.seccomp_filter import compile_profile

if TYPE_CHECKING:
    from pycontain.sandbox.host import HostFacts

NAME = "pretending"
"""How the filter is called in a plan."""

OWNERS = ("chown", "chown32", "fchown", "fchown32", "fchownat", "lchown", "lchown32")
IDENTITIES = (
    *("setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32"),
    *(
        "setregid",
        "setregid32",
        "setresgid",
        "setresgid32",
        "setresuid",
        "setresuid32",
        "setreuid",
        "setreuid32",
    ),
    *("setuid", "setuid32"),
)
NODES = {"mknod": 1, "mknodat": 2}
"""mknod(2) by the place of its mode; of a device only, since the others work."""

_S_IFMT, _S_IFCHR, _S_IFBLK = 0o170000, 0o020000, 0o060000


_DONE = Answer(Action.ERRNO, 0)
_PROFILE = Profile(
    Answer(Action.ALLOW),
    tuple(Abi),
    (
        Rule((*OWNERS, *IDENTITIES), _DONE),
        *(
            Rule((name,), _DONE, (Arg(place, Op.MASKED_EQ, _S_IFMT, kind),))
            for name, place in NODES.items()
            for kind in (_S_IFCHR, _S_IFBLK)
        ),
    ),
)


def pretending_filter(host: HostFacts) -> bytes:
    """The program for seccomp(2). What it does not name is allowed; put before the real filter, it takes nothing from it."""
    return compile_profile(_PROFILE, capabilities=frozenset(), architecture=host.machine, kernel=host.kernel)
