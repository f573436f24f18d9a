"""``run("true")`` as an ordinary user with subordinate ids, against the same as root."""

from __future__ import annotations

import os
import pwd
import shutil
from typing import TYPE_CHECKING

import attrs

from benchmarks.measure import Unavailable, compare
from benchmarks.owner import open_owner
from benchmarks.results import Goal, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench
    from benchmarks.measure import Once
    from benchmarks.remote import Remote


def measure(bench: Bench) -> Iterator[Row]:
    row = Row("rootless", "run as a user", "run as root", goal=Goal(1.5, 1.2))
    try:
        user = _user_with_subordinate_ids()
        rootfs = _owned_by(user, bench)
        with open_owner(rootfs) as root, open_owner(rootfs, prefix=_becoming(user)) as ordinary:
            yield compare(row, _asking(ordinary), _asking(root), bench.rounds)
    except Unavailable as reason:
        yield attrs.evolve(row, missing=str(reason))


def _user_with_subordinate_ids() -> pwd.struct_passwd:
    """subuid(5): the first user that has some and exists."""
    if os.geteuid() != 0:
        raise Unavailable("started as an ordinary user: there is no root to compare with")
    if shutil.which("setpriv") is None:
        raise Unavailable("setpriv is not installed (Debian: util-linux)")
    users = {user.pw_name: user for user in pwd.getpwall() if user.pw_uid != 0}
    try:
        with open("/etc/subuid", encoding="utf-8") as file:
            names = [line.partition(":")[0] for line in file]
    except FileNotFoundError:
        names = []
    found = [users[name] for name in names if name in users]
    if not found:
        raise Unavailable("no user has subordinate ids in /etc/subuid")
    return found[0]


def _owned_by(user: pwd.struct_passwd, bench: Bench) -> str:
    """The same root file system, as the user would have unpacked it: root's files cannot be changed by his containers."""
    rootfs = f"{bench.folder}/rootfs-of-a-user"
    shutil.copytree(bench.rootfs, rootfs)
    for path, folders, files in os.walk(rootfs):
        for name in (".", *folders, *files):
            os.chown(f"{path}/{name}", user.pw_uid, user.pw_gid)
    return rootfs


def _becoming(user: pwd.struct_passwd) -> tuple[str, ...]:
    """setpriv(1): as the user would have logged in."""
    return (
        *("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups", "--reset-env"),
        *("env", f"HOME={user.pw_dir}", "PYTHONDONTWRITEBYTECODE=1"),
    )


def _asking(owner: Remote) -> Once:
    return lambda: float(owner.ask("run"))
