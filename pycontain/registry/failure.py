"""What a refusal means: a registry's status and error body as an error of ours (distribution-spec, "Error Codes")."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Final

from pycontain.errors import Denied, ImageNotFound, InvalidImage, RegistryError, TooManyRequests, Unauthorized
from pycontain.oci.codec import FrozenMap, Json, parse_json
from pycontain.registry.transport import TransferInterrupted, host_of

if TYPE_CHECKING:
    from pycontain.registry.transport import Answer

MAX_ERROR_BYTES: Final = 2**16

_MAX_MESSAGE = 200
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")

_KINDS: Final[dict[int, type[RegistryError]]] = {401: Unauthorized, 403: Denied, 429: TooManyRequests}
