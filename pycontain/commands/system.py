"""``pycontain system``: what the store takes on the disk, whether it is sound, and less of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pycontain.commands.parser import Parser, UsageError
from pycontain.commands.tables import table
from pycontain.image import Store
from pycontain.image.progress import size_text
from pycontain.sandbox.size import parse_size

if TYPE_CHECKING:
    import argparse

_ACTS = {
    "df": "say what the store takes",
    "prune": "free what no image needs, and images to keep a limit",
    "verify": "read every byte again, and take away what has changed",
}
_DAY = 24 * 3600.0


def parser() -> Parser:
    """What it takes."""
    made = Parser(
        "system",
        usage="df | prune [OPTION…] | verify",
        description="; ".join(f"{name}: {what}" for name, what in _ACTS.items()) + ".",
    )
    made.add_argument("what", metavar="|".join(_ACTS), choices=tuple(_ACTS))
    prune = made.add_argument_group("prune")
    prune.add_argument("--max-bytes", metavar="SIZE", help="forget the least recently used above this")
    prune.add_argument(
        "--unused-for", metavar="DAYS", type=float, help="forget what was not used for so long"
    )
    prune.add_argument(
        "--build-caches", action="store_true", help="forget what RUN --mount=type=cache has kept"
    )
    prune.add_argument("--dry-run", action="store_true", help="only say what would go")
    return made


def act(options: argparse.Namespace) -> int:
    """Exit with 1 when ``verify`` leaves images that are not complete."""
    store = Store.default()
    match options.what:
        case "df":
            return _df(store)
        case "verify":
            return _verify(store)
        case _:
            return _prune(store, options)


def _df(store: Store) -> int:
    usage = store.usage()
    rows = [
        ("blobs of images", size_text(usage.blobs)),
        ("unpacked layers", size_text(usage.snapshots)),
        ("unfinished downloads", size_text(usage.partial)),
        ("together", size_text(usage.bytes)),
        ("could be freed", size_text(usage.reclaimable)),
    ]
    sys.stdout.write(f"{usage.images} images in {store.path}\n\n{table(('WHAT', 'SIZE'), rows)}")
    return 0


def _prune(store: Store, options: argparse.Namespace) -> int:
    try:
        limit = None if options.max_bytes is None else parse_size(options.max_bytes)
    except ValueError as error:
        raise UsageError(f"--max-bytes: {error}") from error
    unused = None if options.unused_for is None else options.unused_for * _DAY
    freed = store.gc(
        max_bytes=limit, unused_for=unused, build_caches=options.build_caches, dry_run=options.dry_run
    )
    would = "would be " if freed.dry_run else ""
    sys.stdout.writelines(f"{would}forgotten: {name}\n" for name in freed.images)
    sys.stdout.write(
        f"{would}freed: {size_text(freed.bytes)} in {len(freed.blobs)} blobs and {len(freed.snapshots)} layers\n"
    )
    if freed.build_caches:
        sys.stdout.write(f"{would}freed: {freed.build_caches} caches of builds\n")
    return 0


def _verify(store: Store) -> int:
    verified = store.verify()
    sys.stdout.write(f"read {verified.blobs} blobs, {size_text(verified.bytes)}\n")
    for damage in verified.removed:
        needed = f", needed by {', '.join(damage.images)}" if damage.images else ""
        sys.stdout.write(f"removed {damage.descriptor.digest}: {damage.problem}{needed}\n")
    return 0 if verified.ok else 1
