"""Who we are at a registry: given by the caller, or found in the files that Docker and the containers tools share.

Found means: in the first of these that has an entry for the registry. Nothing is ever written.

1. the file that ``REGISTRY_AUTH_FILE`` names; when it is set, no other file is read
2. ``$XDG_RUNTIME_DIR/containers/auth.json``
3. ``${XDG_CONFIG_HOME:-~/.config}/containers/auth.json``
4. ``${DOCKER_CONFIG:-~/.docker}/config.json``

Within a file, a credential program of ``credHelpers`` goes before ``credsStore``, and both before ``auths``; an
entry for a repository goes before one for its registry (containers-auth.json(5)).
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from typing import TYPE_CHECKING, Any, Final

import attrs

from pycontain.errors import InvalidImage, RegistryError
from pycontain.oci.codec import FrozenMap, Json, parse_json
from pycontain.oci.reference import DEFAULT_REGISTRY

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How Docker spells Docker Hub in its files and to credential programs.
DOCKER_HUB_KEY: Final = "https://index.docker.io/v1/"

_DOCKER_HUB_NAMES = {DEFAULT_REGISTRY, "index.docker.io", "registry-1.docker.io"}
_PROGRAM = re.compile(r"[A-Za-z0-9._-]+")
_PROGRAM_TIMEOUT = 60.0  # it may ask the user to unlock a key ring

# docker-credential-helpers: how a program says that it has no entry, on standard output with exit code 1.
_NOTHING_STORED = b"credentials not found in native keychain"
# docker-credential-helpers: the user name that marks the secret as an identity token.
_NO_USER = "<token>"


def _masked(value: str) -> str:
    return "***" if value else "''"


@attrs.frozen
class Credentials:
    """A user name with a password, or a token. Its repr shows what is set and no value.

    ``identity_token`` is what ``docker login`` keeps for single sign-on; it is exchanged for bearer tokens.
    ``registry_token`` is such a bearer token.
    """

    username: str = attrs.field(default="", repr=_masked)
    password: str = attrs.field(default="", repr=_masked)
    identity_token: str = attrs.field(default="", repr=_masked)
    registry_token: str = attrs.field(default="", repr=_masked)

    def basic(self) -> str:
        """The value of an Authorization header with user name and password (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def find_credentials(registry: str, repository: str) -> Credentials | None:
    """What the files say for *repository* of *registry*; None when none of them has an entry."""
    for path in _files():
        found = _search(path, _read_members(path), registry, repository)
        if found:
            return found
    return None


def _files() -> Iterator[str]:
    chosen = os.environ.get("REGISTRY_AUTH_FILE")
    if chosen:
        yield chosen
        return
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield os.path.join(runtime, "containers", "auth.json")
    home = os.path.expanduser("~")
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    yield os.path.join(config, "containers", "auth.json")
    yield os.path.join(os.environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker"), "config.json")


def _read_members(path: str) -> FrozenMap[Json]:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return FrozenMap()
    except OSError as error:
        raise RegistryError(f"the credentials in {path} cannot be read: {error.strerror}") from error
    try:
        members = parse_json(content or b"{}", "credential file")
    except InvalidImage:
        # The cause could quote the file, which holds secrets.
        raise RegistryError(f"the credential file {path} is not sound JSON") from None
    if not isinstance(members, FrozenMap):
        raise _malformed(path)
    return members


def _malformed(path: str) -> RegistryError:
    return RegistryError(
        f"the credential file {path} has an entry that cannot be read", hint="log in again to write it anew"
    )


def _search(path: str, members: FrozenMap[Json], registry: str, repository: str) -> Credentials | None:
    programs, store, entries = (members.get(key) for key in ("credHelpers", "credsStore", "auths"))
    if isinstance(programs, FrozenMap):
        for key, program in programs.items():
            if _normal(key) == registry:
                return _ask_program(path, program, registry)
    if store:
        found = _ask_program(path, store, registry)
        if found:
            return found
    if isinstance(entries, FrozenMap):
        normal = {_normal(key): entry for key, entry in entries.items()}
        for name in _names(registry, repository):
            if found := _parse_entry(path, normal.get(name)):
                return found
    return None


def _normal(key: str) -> str:
    """The registry, or registry and repository, that a key of a file means."""
    name = re.sub(r"^https?://", "", key)
    host, _, rest = name.partition("/")
    if host in _DOCKER_HUB_NAMES:
        host = DEFAULT_REGISTRY
    rest = rest.strip("/")
    # Docker once wrote the address of the API.
    return host if name != key or rest in ("", "v1", "v2") else f"{host}/{rest}"


def _names(registry: str, repository: str) -> Iterator[str]:
    name = f"{registry}/{repository}"
    while name != registry:
        yield name
        name = name.rpartition("/")[0]
    yield registry


def _parse_entry(path: str, entry: Any) -> Credentials | None:
    if not entry:
        return None
    if not isinstance(entry, FrozenMap) or not all(isinstance(value, str | None) for value in entry.values()):
        raise _malformed(path)
    username, password = _parse_auth(path, entry.get("auth") or "")
    found = Credentials(
        entry.get("username") or username,
        entry.get("password") or password,
        entry.get("identitytoken") or "",
        entry.get("registrytoken") or "",
    )
    return None if found == Credentials() else found


def _parse_auth(path: str, text: str) -> tuple[str, str]:
    try:
        username, _, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise _malformed(path) from None  # the cause would quote the secret
    return username, password.rstrip("\0")  # Docker pads with NUL


# --- credential programs --------------------------------------------------------------------------------


def _ask_program(path: str, program: Json, registry: str) -> Credentials | None:
    if not isinstance(program, str) or not _PROGRAM.fullmatch(program):
        raise _malformed(path)
    name = f"docker-credential-{program}"
    key = DOCKER_HUB_KEY if registry == DEFAULT_REGISTRY else registry
    exit_code, output = _run(name, key, registry)
    if exit_code:
        if output.strip() == _NOTHING_STORED:
            return None
        raise RegistryError(
            f"{name}, which {path} names, failed with exit code {exit_code}",
            registry=registry,
            hint=f"try it: echo {key} | {name} get",
        )
    return _parse_output(name, registry, output)


def _run(name: str, key: str, registry: str) -> tuple[int, bytes]:
    import subprocess  # noqa: PLC0415 - only for those who use such a program

    try:
        result = subprocess.run(
            [name, "get"],
            input=key.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PROGRAM_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RegistryError(
            f"{name} gave no answer within {_PROGRAM_TIMEOUT:.0f} s", registry=registry
        ) from None
    except OSError as error:
        raise RegistryError(
            f"{name} cannot be run: {error.strerror}", registry=registry, hint="install it, or pass auth="
        ) from error
    return result.returncode, result.stdout


def _parse_output(name: str, registry: str, output: bytes) -> Credentials | None:
    try:
        members = parse_json(output, "answer")
    except InvalidImage:
        members = None  # the cause would quote the secret
    match members:
        case {"Username": str(username), "Secret": str(secret)}:
            if username == _NO_USER:
                return Credentials(identity_token=secret)
            found = Credentials(username, secret)
            return None if found == Credentials() else found
        case _:
            raise RegistryError(f"{name} gave an answer that cannot be read", registry=registry)
