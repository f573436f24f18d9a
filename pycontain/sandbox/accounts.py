"""Users and groups as passwd(5) and group(5) of an image say: a pure function over two untrusted texts.

The zygote imports this module, so it needs nothing but the language.
"""

from __future__ import annotations

_LARGEST_ID = 2**32 - 2  # chown(2): the last one means "do not change"


class UnknownAccount(ValueError):
    """The files do not hold the name."""


def resolve_user(user: str, passwd: str, group: str) -> tuple[int, int, tuple[int, ...], str]:
    """``(uid, gid, supplementary gids, home)`` for *user*: ``name``, ``uid``, ``name:group`` or ``uid:gid``.

    As Docker does: a number need not be in the files; without a group it is the user's own, or 0; supplementary
    groups count only when no group is given. Malformed lines are skipped. The first match wins.
    """
    name, _, group_name = user.partition(":")
    entry = _entry(name or "0", passwd)
    if entry is None and _number(name or "0") is None:
        raise UnknownAccount(name)
    uid = entry[1] if entry else _number(name or "0") or 0
    gid = entry[2] if entry else 0
    groups: tuple[int, ...] = ()
    if group_name:
        gid = _group_id(group_name, group)
    elif entry:
        groups = _memberships(entry[0], group)
    return uid, gid, groups, entry[3] if entry and entry[3].startswith("/") else "/"


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and int(text) <= _LARGEST_ID else None


def _entry(name: str, passwd: str) -> tuple[str, int, int, str] | None:
    wanted = _number(name)
    for line in passwd.split("\n"):
        fields = line.split(":")
        if len(fields) < 6:
            continue
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is None or gid is None:
            continue
        if fields[0] == name or uid == wanted:
            return fields[0], uid, gid, fields[5]
    return None


def _group_id(name: str, group: str) -> int:
    number = _number(name)
    for line in group.split("\n"):
        fields = line.split(":")
        if len(fields) >= 3 and fields[0] == name and (gid := _number(fields[2])) is not None:
            return gid
    if number is None:
        raise UnknownAccount(name)
    return number


def _memberships(name: str, group: str) -> tuple[int, ...]:
    found = []
    for line in group.split("\n"):
        fields = line.split(":")
        if len(fields) >= 4 and name in fields[3].split(",") and (gid := _number(fields[2])) is not None:
            found.append(gid)
    return tuple(found)
