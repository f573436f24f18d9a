"""One tree over another, as the compose-spec's "Merge and override" has it, and paths made absolute. Pure.

What may be written in two ways is brought into one before it is merged: ``environment`` as a list is the mapping that it means.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

from pycontain.compose.tree import Node, Rule

if TYPE_CHECKING:
    from collections.abc import Callable

Path = tuple[str, ...]

_MAPPINGS = {
    *("environment", "labels", "annotations", "sysctls"),
    *(
        "build.args",
        "build.labels",
        "build.additional_contexts",
        "deploy.labels",
        "extra_hosts",
        "build.extra_hosts",
    ),
}  # of a service, which may be lists of NAME=VALUE
_NAMES = {"depends_on", "networks"}  # which may be lists of names
_SEQUENCES = {
    "env_file",
    "label_file",
    "dns",
    "dns_search",
    "tmpfs",
    "build.ssh",
    "configs",
    "secrets",
}  # or one text
_REPLACED = {"command", "entrypoint", "healthcheck.test"}


def merged(base: Node, over: Node) -> Node:
    """The document *over* the document *base*. Neither changes."""
    return _merged(base, over, ())


def merged_service(base: Node, over: Node) -> Node:
    """The same for services, as ``extends`` merges them."""
    return _merged(base, over, ("services", ""))


def settled(node: Node) -> Node:
    """The document without what is tagged ``!reset``, and without tags."""
    match node.value:
        case dict() as parts:
            value: Any = {name: settled(part) for name, part in parts.items() if part.rule is not Rule.RESET}
        case list() as items:
            value = [settled(item) for item in items if item.rule is not Rule.RESET]
        case value:
            pass
    return Node(value, node.file, node.line)


def _merged(base: Node, over: Node, path: Path) -> Node:
    if over.rule is not Rule.MERGE:
        return over
    if over.value is None:
        return base
    key = ".".join(path[2:]) if path[:1] == ("services",) and len(path) > 2 else ""
    if base.rule is Rule.RESET or base.value is None or key in _REPLACED:
        return over
    base, over = (_canonical(node, key) for node in (base, over))
    match base.value, over.value:
        case dict() as before, dict() as after:
            parts = dict(before)
            for name, part in after.items():
                parts[name] = _merged(parts[name], part, (*path, name)) if name in parts else part
            return over.like(parts)
        case list() as before, list() as after:
            return over.like(_joined(before, after, _IDENTITIES.get(key, _as_it_is)))
    return over


def _canonical(node: Node, key: str) -> Node:
    if key == "build" and isinstance(node.value, str):
        return node.like({"context": node})
    if key in _MAPPINGS and isinstance(node.value, list):
        return node.like(
            dict(_pair(item, ":=" if key.endswith("extra_hosts") else "=") for item in node.value)
        )
    if key in _NAMES and isinstance(node.value, list):
        unsaid = {"condition": node.like("service_started")} if key == "depends_on" else None
        return node.like({str(item.value): item.like(unsaid) for item in node.value})
    if key in _SEQUENCES and isinstance(node.value, str | dict):
        return node.like([node])
    return node


def _pair(item: Node, signs: str) -> tuple[str, Node]:
    """A text as NAME=VALUE, with the first of *signs* that is in it between; without one its value is nothing."""
    text = str(item.value)
    place = min((at for sign in signs if (at := text.find(sign)) >= 0), default=-1)
    return (text, item.like(None)) if place < 0 else (text[:place], item.like(text[place + 1 :]))


def _joined(before: list[Node], after: list[Node], identity: Callable[[Node], object]) -> list[Node]:
    """Both, where an item of *after* takes the place of the one with the same identity."""
    joined: dict[object, Node] = {}
    for item in (*before, *after):
        joined[_hashable(identity(item))] = item
    return list(joined.values())


def _hashable(value: object) -> object:
    return value if isinstance(value, str | int | float | tuple | None) else repr(value)


def _as_it_is(item: Node) -> object:
    return item.plain()


def _mount_target(item: Node) -> object:
    if isinstance(item.value, dict):
        target = item.get("target")
        return target.value if target is not None else item.plain()
    parts = str(item.value).split(":")
    return parts[min(1, len(parts) - 1)]


def _grant_target(item: Node) -> object:
    if isinstance(item.value, dict):
        named = item.get("target") or item.get("source")
        return named.value if named is not None else item.plain()
    return item.value


_IDENTITIES: dict[str, Callable[[Node], object]] = {
    "volumes": _mount_target,
    "secrets": _grant_target,
    "configs": _grant_target,
}


# --- paths ----------------------------------------------------------------------------------------------


def with_absolute_paths(document: Node, folder: str, home: str) -> Node:  # noqa: C901 - a table of the keys that are paths
    """The document with each path of the host made absolute: from *folder*, the one that it is relative to."""

    def absolute(node: Node) -> Node:
        if isinstance(node.value, list):
            return node.like([absolute(item) for item in node.value])
        if not isinstance(node.value, str) or not node.value or "://" in node.value:
            return node
        return node.like(absolute_path(node.value, folder, home))

    def mount(node: Node) -> Node:
        if isinstance(node.value, str) and node.value.startswith((".", "~")):
            source, colon, rest = node.value.partition(":")
            return node.like(f"{absolute_path(source, folder, home)}{colon}{rest}")
        kind = node.get("type")
        is_bind = kind is not None and kind.value == "bind"
        return _changed(node, "source", absolute) if is_bind else node

    def service(node: Node) -> Node:
        build = node.get("build")
        if build is not None and isinstance(build.value, dict):
            build = _changed(build, "context", absolute)
            node = node.with_part("build", _changed(build, "additional_contexts", _each(absolute)))
        elif build is not None:
            node = node.with_part("build", absolute(build))
        for name, change in (("env_file", env_file), ("label_file", absolute), ("volumes", _items(mount))):
            node = _changed(node, name, change)
        return node

    def env_file(node: Node) -> Node:
        if isinstance(node.value, list):
            return node.like([env_file(item) for item in node.value])
        return _changed(node, "path", absolute) if isinstance(node.value, dict) else absolute(node)

    def source(node: Node) -> Node:
        return _changed(node, "file", absolute)

    document = _changed(document, "services", _each(service))
    for name in ("secrets", "configs"):
        document = _changed(document, name, _each(source))
    return document


def absolute_path(path: str, folder: str, home: str) -> str:
    """*path* as it is from *folder*; ``~`` is *home*."""
    if path == "~" or path.startswith("~/"):
        path = home + path[1:]
    return posixpath.normpath(posixpath.join(folder, path))


def _changed(node: Node, name: str, change: Callable[[Node], Node]) -> Node:
    part = node.get(name)
    return node if part is None else node.like({**node.value, name: change(part)})


def _each(change: Callable[[Node], Node]) -> Callable[[Node], Node]:
    def changed(node: Node) -> Node:
        if not isinstance(node.value, dict):
            return node
        return node.like({name: change(part) for name, part in node.value.items()})

    return changed


def _items(change: Callable[[Node], Node]) -> Callable[[Node], Node]:
    def changed(node: Node) -> Node:
        return node.like([change(item) for item in node.value]) if isinstance(node.value, list) else node

    return changed
