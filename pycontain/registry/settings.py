"""What a program may say about a registry, as values: where, how safely, as whom, how patiently. Pure."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final

import attrs

from pycontain.errors import RegistryError
from pycontain.oci.reference import DEFAULT_REGISTRY, Reference

if TYPE_CHECKING:
    from pycontain.registry.credentials import Credentials


@attrs.frozen
class Retries:
    """How often a request is made, and how long to wait in between.

    The wait doubles from ``first_wait`` to ``longest_wait`` seconds, with jitter. A server may ask for a longer
    one (Retry-After); when it asks for more than ``longest_wait``, the caller hears of it at once.
    """

    attempts: int = 5
    first_wait: float = 0.5
    longest_wait: float = 30.0

    def wait_after(self, attempt: int, chance: float, asked: float = 0.0) -> float | None:
        """Seconds to wait after failed attempt number *attempt*, or None to give up.

        *chance*, from 0 to 1, places the wait in the upper half of its range; *asked* is the server's wish.
        """
        if attempt >= self.attempts or asked > self.longest_wait:
            return None
        longest = min(self.first_wait * 2.0 ** min(attempt - 1, 32), self.longest_wait)
        return max(asked, longest * (1 + chance) / 2)


@attrs.frozen
class RegistrySettings:
    """How to talk to one registry.

    ``plain_http``: True speaks HTTP without TLS, False never does. None, the default, means TLS, except for
    loopback addresses, which are first asked over HTTP; one that answers there that it wants TLS gets TLS.
    ``ca``: a file or folder of certificates to trust beside the system's; it implies TLS.
    ``mirrors``: asked first, in this order, when pulling: ``host[:port][/prefix]``, or with ``http://`` in front
    for plain HTTP. A mirror never gets ``auth``; credentials for it come from the files, under its own name. All
    other settings hold for mirrors too.
    ``auth``: who we are; without it, the files of Docker and of the containers tools are read when the registry
    asks.
    """

    plain_http: bool | None = None
    tls_verify: bool = True
    ca: str | None = None
    mirrors: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    auth: Credentials | None = None
    retries: Retries = Retries()
    connect_timeout: float = 10.0
    read_timeout: float = 60.0


_configured: dict[str, RegistrySettings] = {}


def configure_registry(registry: str, settings: RegistrySettings | None) -> None:
    """From now on this process talks to *registry* as *settings* say; None forgets what was said.

    It holds for every pull and push, also for those that starting a container makes; what is given to a call goes
    before it. *registry* is written as in references: ``docker.io``, ``127.0.0.1:5000``; :class:`InvalidReference` otherwise.

    >>> import pycontain
    >>> pycontain.configure_registry("docker.io", pycontain.RegistrySettings(mirrors=("mirror.example",)))
    >>> pycontain.configure_registry("docker.io", None)
    """
    Reference(registry, "library/any", "latest")  # which raises for what is no registry
    if settings is None:
        _configured.pop(registry, None)
        return
    mirrors_of(settings)  # which raises for one that is none
    _configured[registry] = settings


def settings_of(registry: str) -> RegistrySettings:
    """What this process has said about *registry*."""
    return _configured.get(registry, RegistrySettings())


# Docker Hub's API does not live where its references say.
_API_HOSTS: Final = {DEFAULT_REGISTRY: "registry-1.docker.io"}

_MIRROR = re.compile(
    r"(?:(https?)://)?([A-Za-z0-9.-]+(?::[0-9]+)?|\[[A-Fa-f0-9:]+\](?::[0-9]+)?)((?:/[a-z0-9._-]+)*)/?"
)


@attrs.frozen
class Endpoint:
    """Where a registry's API is reached.

    ``name`` is the registry in references and in credential files, ``prefix`` what a mirror puts before each
    repository. ``scheme`` is ``http``, ``https``, or empty: ask over HTTP whether TLS is wanted.
    """

    name: str
    host: str
    scheme: str
    prefix: str = ""


def endpoint_of(registry: str, settings: RegistrySettings) -> Endpoint:
    """The registry itself."""
    host = _API_HOSTS.get(registry, registry)
    return Endpoint(registry, host, _scheme_of(host, settings))


def mirrors_of(settings: RegistrySettings) -> tuple[Endpoint, ...]:
    """The mirrors, in the order in which they are asked."""
    return tuple(_parse_mirror(text, settings) for text in settings.mirrors)


def _parse_mirror(text: str, settings: RegistrySettings) -> Endpoint:
    found = _MIRROR.fullmatch(text)
    if not found:
        raise RegistryError(
            f"{text!r} is no mirror", registry=text, hint="write it as host:port, or http://host:port/prefix"
        )
    scheme, host, prefix = found.groups()
    inherited = attrs.evolve(settings, plain_http=None)
    return Endpoint(host, host, scheme or _scheme_of(host, inherited), prefix.strip("/"))


def _scheme_of(host: str, settings: RegistrySettings) -> str:
    if settings.plain_http is not None:
        return "http" if settings.plain_http else "https"
    return "" if is_loopback(host) and settings.ca is None else "https"


def is_loopback(host: str) -> bool:
    """Whether *host*, maybe with a port, is this machine by its loopback address or as ``localhost``."""
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"
