"""``pycontain build``: an image from a Dockerfile and a build context."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from pycontain.building.build import build
from pycontain.commands.given import read_secret
from pycontain.commands.parser import Parser, UsageError
from pycontain.commands.registries import add_access_options, use_registry

if TYPE_CHECKING:
    import argparse


def parser() -> Parser:
    """What it takes; options are called as for ``docker build``."""
    made = Parser("build", description="Build an image from a Dockerfile, and print its id.")
    made.add_argument("context", metavar="DIR", help="the directory that COPY reads")
    made.add_argument("-f", "--file", metavar="PATH", help="the Dockerfile (default: DIR/Dockerfile)")
    made.add_argument("-t", "--tag", action="append", default=[], metavar="NAME", help="name the image")
    made.add_argument("--target", metavar="STAGE", help="build up to this stage")
    made.add_argument("--build-arg", action="append", default=[], metavar="NAME[=VALUE]")
    made.add_argument("--label", action="append", default=[], metavar="NAME=VALUE")
    made.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="id=ID,src=PATH|env=NAME",
        help="for RUN --mount=type=secret",
    )
    made.add_argument("--ssh", action="append", default=[], metavar="ID[=SOCKET]", help="an agent's socket")
    made.add_argument("--platform", metavar="OS/ARCH[/VARIANT]")
    made.add_argument("--cache-from", action="append", default=[], metavar="IMAGE")
    made.add_argument("--no-cache", action="store_true", help="do every step again")
    made.add_argument(
        "--network", default="none", metavar="MODE", help="what RUN reaches: none, private, host"
    )
    made.add_argument("-m", "--memory", metavar="SIZE", help="the most that a RUN may use, such as 1G")
    made.add_argument("--cpus", type=float, metavar="NUMBER", help="the processors that a RUN may use")
    made.add_argument(
        "--pids-limit", type=int, metavar="NUMBER", help="the most processes and threads of a RUN"
    )
    made.add_argument("--run-timeout", type=float, metavar="SECONDS", help="kill a RUN that takes longer")
    made.add_argument(
        "--pull", action="store_true", help="ask the registry for base images that are here already"
    )
    made.add_argument("-q", "--quiet", action="store_true", help="print nothing but the id")
    made.add_argument(
        "--registry",
        action="append",
        default=[],
        metavar="NAME",
        help="what --mirror, --ca and such are about",
    )
    add_access_options(made)
    return made


def act(options: argparse.Namespace) -> int:
    """Print the id of the image; how it goes is on standard error."""
    for registry in options.registry or ["docker.io"]:
        use_registry(options, registry)
    image = build(
        options.context,
        dockerfile=options.file,
        target=options.target,
        args=dict(filter(None, map(_argument, options.build_arg))),
        secrets=dict(map(read_secret, options.secret)),
        ssh=dict(map(_ssh, options.ssh)),
        tags=options.tag,
        platform=options.platform,
        cache_from=options.cache_from,
        no_cache=options.no_cache,
        network=options.network,
        progress=not options.quiet,
        pull="always" if options.pull else "missing",
        labels=dict(map(_label, options.label)),
        memory=options.memory,
        cpus=options.cpus,
        pids=options.pids_limit,
        run_timeout=options.run_timeout,
    )
    sys.stdout.write(f"{image.id}\n")
    return 0


def _argument(text: str) -> tuple[str, str] | None:
    """Without a value it is that of the environment, if there is one."""
    name, equals, value = text.partition("=")
    if equals:
        return name, value
    return (name, os.environ[name]) if name in os.environ else None


def _label(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _ssh(text: str) -> tuple[str, str]:
    ident, _, path = text.partition("=")
    path = path or os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise UsageError("there is no agent: SSH_AUTH_SOCK is not set", hint="write --ssh ID=SOCKET")
    return ident, path
