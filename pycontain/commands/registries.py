"""The options of every verb that talks to a registry."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypedDict

from pycontain.commands.parser import UsageError
from pycontain.oci.source import RegistrySource, parse_source

if TYPE_CHECKING:
    import argparse

    from pycontain.commands.parser import Parser


class RegistryOptions(TypedDict):
    """The keywords of ``Image.pull`` and ``Image.push`` that say how to talk to a registry."""

    auth: tuple[str, str] | None
    tls_verify: bool
    plain_http: bool | None
    ca: str | None


def add_registry_options(parser: Parser) -> None:
    """Say what they are."""
    how = parser.add_argument_group("the registry")
    # A password on the command line is seen by every user of the machine: ps(1).
    how.add_argument("--username", metavar="NAME", help="instead of what docker login or podman login noted")
    how.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    how.add_argument("--plain-http", action="store_true", default=None, help="without TLS")
    how.add_argument("--no-tls-verify", action="store_true", help="trust any certificate")
    how.add_argument("--ca", metavar="FILE", help="trust this authority, too")


def add_access_options(parser: Parser) -> None:
    """The same for verbs that may pull: without a user, since standard input is not theirs to read."""
    how = parser.add_argument_group("the registry")
    how.add_argument(
        "--mirror", action="append", default=[], metavar="HOST[/PREFIX]", help="ask it first; may be repeated"
    )
    how.add_argument("--plain-http", action="store_true", default=None, help="without TLS")
    how.add_argument("--no-tls-verify", action="store_true", help="trust any certificate")
    how.add_argument("--ca", metavar="FILE", help="trust this authority, too")


def use_registry(options: argparse.Namespace, registry: str) -> None:
    """Have this process talk to *registry* as the options of :func:`add_access_options` say, when one is given."""
    if not (options.mirror or options.plain_http or options.no_tls_verify or options.ca):
        return
    from pycontain.registry.settings import RegistrySettings, configure_registry  # noqa: PLC0415 - few need it

    settings = RegistrySettings(
        plain_http=options.plain_http,
        tls_verify=not options.no_tls_verify,
        ca=options.ca,
        mirrors=options.mirror,
    )
    configure_registry(registry, settings)


def use_registry_of(options: argparse.Namespace) -> None:
    """The same for the registry of the image that a container is made from."""
    words = [word for word in options.words if word != "--"]
    source = parse_source(words[0]) if words else None
    if isinstance(source, RegistrySource):
        use_registry(options, source.reference.registry)


def read_registry_options(options: argparse.Namespace) -> RegistryOptions:
    """Read what was given."""
    if bool(options.username) != options.password_stdin:
        raise UsageError("--username and --password-stdin belong together")
    auth = (options.username, sys.stdin.readline().rstrip("\n")) if options.username else None
    return RegistryOptions(
        auth=auth, tls_verify=not options.no_tls_verify, plain_http=options.plain_http, ca=options.ca
    )
