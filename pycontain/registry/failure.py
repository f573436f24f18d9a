"""What a refusal means: a registry's status and error body as an error of ours (distribution-spec, "Error Codes")."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Final

from pycontain.errors import (
    Denied,
    ImageError,
    ImageNotFound,
    InvalidImage,
    RegistryError,
    TooManyRequests,
    TransferInterrupted,
    Unauthorized,
)
from pycontain.oci.codec import FrozenMap, Json, parse_json

if TYPE_CHECKING:
    from pycontain.registry.transport import Answer

MAX_ERROR_BYTES: Final = 2**16

_MAX_MESSAGE = 200
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_KINDS: Final[dict[int, type[RegistryError]]] = {401: Unauthorized, 403: Denied, 429: TooManyRequests}


def refusal(
    answer: Answer, *, registry: str, act: str, authorization: str = "", reference: str = ""
) -> RegistryError | ImageError:
    """The error to raise for *answer*, which is closed.

    *act* completes "cannot …". What *authorization* holds is struck out of the registry's
    words. With *reference*, a 404 means that no image has this name.
    """
    code, message = _first_error(answer, _secrets_of(authorization))
    if answer.status == 404 and reference:
        return ImageNotFound(f"{registry} has no image {reference}", reference=reference)
    said = f"says {message or code}" if message or code else "gives no reason"
    kind = _KINDS.get(answer.status, RegistryError)
    return kind(
        f"cannot {act}: {registry} {said} (HTTP {answer.status})",
        registry=registry,
        status=answer.status,
        code=code,
        hint=_hint(answer, registry, code),
    )


def _hint(answer: Answer, registry: str, code: str) -> str | None:
    match answer.status:
        case 401:
            return (
                "there is no such repository, or it needs other credentials:"
                f" log in to {registry}, or pass auth=Credentials(username, password)"
            )
        case 403:
            return "the registry knows who you are; ask its owner for the permission"
        case 429 if wait := answer.headers.get("Retry-After"):
            return f"the registry asks to come back after {wait[:40]!r}; credentials often raise the limit"
        case 400 if not code and answer.url.startswith("http:"):
            return "when the registry speaks TLS, use plain_http=False"
    return None


def _first_error(answer: Answer, secrets: tuple[str, ...]) -> tuple[str, str]:
    try:
        with answer:
            members = parse_json(answer.read_start(MAX_ERROR_BYTES), "error")
    except (InvalidImage, TransferInterrupted):
        return "", ""  # a page for people, or cut off; the status says enough
    match members:
        case {"errors": (FrozenMap() as first, *_)}:
            code, message = (_printable(first.get(key), secrets) for key in ("code", "message"))
            return code if _CODE.fullmatch(code) else "", message
    return "", ""


def _printable(value: Json, secrets: tuple[str, ...]) -> str:
    text = value if isinstance(value, str) else ""
    for secret in secrets:
        text = text.replace(secret, "***")
    return "".join(character if character.isprintable() else " " for character in text[:_MAX_MESSAGE])


def _secrets_of(authorization: str) -> tuple[str, ...]:
    """What must not be repeated of an Authorization header: the token, or the password in it."""
    scheme, _, token = authorization.partition(" ")
    password = base64.b64decode(token).decode().partition(":")[2] if scheme == "Basic" else ""
    return tuple(filter(None, (token, password)))
