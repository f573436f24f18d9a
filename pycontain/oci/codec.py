"""JSON documents as frozen values, and back: what a document says that we do not know survives the round trip.

A *shape* reads and writes one kind of JSON value. The shape of a document is a table of its members
(:func:`object_of`), so what is read and what is written cannot drift apart. Three promises hold for every document:

* ``decode(shape, encode(shape, x), ...) == x``.
* Members that the table does not name are kept in ``extra``, at every level, and written again.
* Text out is canonical (image-spec, considerations.md): keys sorted, no spaces, UTF-8. So equal values have
  equal digests. The text that came in may differ from it; its digest belongs to its own bytes, keep those.

``null`` means absent, as Go programs write it. Input is hostile: size, nesting, duplicate keys, numbers outside
JSON and broken Unicode are refused with a sentence that names the place.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Generic, TypeAlias, TypeVar, Union

import attrs

from pycontain.errors import InvalidImage
from pycontain.oci.digest import Digest

#: The largest document that is read, as registries and other clients have it (distribution-spec: at least 4 MiB).
MAX_DOCUMENT_BYTES: Final = 4 * 2**20

_MAX_NESTING = 64  # documents of the specification need 6

V_co = TypeVar("V_co", covariant=True)
V = TypeVar("V")
T = TypeVar("T")


class FrozenMap(Mapping[str, V_co]):
    """A mapping that cannot change, and can be hashed when its values can."""

    __slots__ = ("_members",)

    def __init__(self, members: Mapping[str, V_co] | None = None) -> None:
        self._members = dict(members or {})

    def __getitem__(self, key: str) -> V_co:
        return self._members[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __hash__(self) -> int:
        return hash(frozenset(self._members.items()))

    def __repr__(self) -> str:
        return repr(self._members)


Json: TypeAlias = Union[bool, int, float, str, "tuple[Json, ...]", FrozenMap["Json"], None]


EMPTY: Final[FrozenMap[Any]] = FrozenMap()


def frozen(members: Mapping[str, V]) -> FrozenMap[V]:
    """*members* as a :class:`FrozenMap`; the converter of attrs fields."""
    return members if isinstance(members, FrozenMap) else FrozenMap(members)


# --- shapes ---------------------------------------------------------------------------------------------


@attrs.frozen
class Shape(Generic[T]):
    """How one kind of JSON value is read and written.

    ``read`` takes the value and its place in the document, for the sentence of :class:`InvalidImage`.
    """

    read: Callable[[Json, str], T]
    write: Callable[[T], Json]


@attrs.frozen
class Member:
    """One row of a document's table: its JSON key, its shape, whether it must be there."""

    key: str
    shape: Shape[Any]
    required: bool = False


def required(key: str, shape: Shape[Any]) -> Member:
    """A member that must be there, and is always written."""
    return Member(key, shape, required=True)


def optional(key: str, shape: Shape[Any]) -> Member:
    """A member that is written unless it has the default of its attribute."""
    return Member(key, shape)


def object_of(cls: type[T], **members: Member) -> Shape[T]:
    """The shape of a document or a part of one: attribute names of *cls*, and the members they stand for.

    *cls* is an attrs class that also has ``extra``.
    """
    make: Callable[..., T] = cls
    known = frozenset(member.key for member in members.values())
    defaults = {name: attrs.fields_dict(cls)[name].default for name in members}  # type: ignore[arg-type]

    def read(value: Json, place: str) -> T:
        if not isinstance(value, FrozenMap):
            raise _wrong(place, "an object", value)
        fields = {}
        for name, member in members.items():
            found = value.get(member.key)
            if found is not None:
                fields[name] = member.shape.read(found, f"{place}.{member.key}")
            elif member.required:
                raise InvalidImage(f"{place} has no {member.key}")
        return make(**fields, extra=FrozenMap({key: kept for key, kept in value.items() if key not in known}))

    def write(value: T) -> Json:
        written = dict(value.extra)  # type: ignore[attr-defined]
        for name, member in members.items():
            found = getattr(value, name)
            if member.required or found != defaults[name]:
                written[member.key] = member.shape.write(found)
        return FrozenMap(written)

    return Shape(read, write)


def array_of(item: Shape[T]) -> Shape[tuple[T, ...]]:
    """An array whose items have one shape."""

    def read(value: Json, place: str) -> tuple[T, ...]:
        if not isinstance(value, tuple):
            raise _wrong(place, "an array", value)
        return tuple(item.read(found, f"{place}[{index}]") for index, found in enumerate(value))

    return Shape(read, lambda items: tuple(map(item.write, items)))


def map_of(item: Shape[T]) -> Shape[FrozenMap[T]]:
    """An object with any keys, whose values have one shape."""

    def read(value: Json, place: str) -> FrozenMap[T]:
        if not isinstance(value, FrozenMap):
            raise _wrong(place, "an object", value)
        return FrozenMap({key: item.read(found, f"{place}[{_shorten(key)}]") for key, found in value.items()})

    return Shape(read, lambda members: FrozenMap({key: item.write(found) for key, found in members.items()}))


def text_like(pattern: str, wanted: str) -> Shape[str]:
    """A string that fits *pattern* as a whole; *wanted* says in words what that is."""
    compiled = re.compile(pattern, re.DOTALL | re.ASCII)

    def read(value: Json, place: str) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise _wrong(place, wanted, value)
        return value

    return Shape(read, lambda text: text)


def _read_integer(value: Json, place: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        raise _wrong(place, "a 64-bit integer", value)
    return value


def _read_size(value: Json, place: str) -> int:
    size = _read_integer(value, place)
    if size < 0:
        raise _wrong(place, "a number of bytes", value)
    return size


def _read_schema_version(value: Json, place: str) -> int:
    if value != 2:
        raise _wrong(place, "2", value)
    return 2


def _read_flag(value: Json, place: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(place, "true or false", value)
    return value


def _read_digest(value: Json, place: str) -> Digest:
    try:
        return Digest.parse(TEXT.read(value, place))
    except InvalidImage as error:
        raise InvalidImage(f"{place} must be a digest: {error}") from error


def _read_base64(value: Json, place: str) -> bytes:
    try:
        return base64.b64decode(TEXT.read(value, place), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _wrong(place, "base64 text", value) from error


def _read_key_set(value: Json, place: str) -> tuple[str, ...]:
    members = map_of(_NOTHING).read(value, place)
    return tuple(sorted(members))


def _read_nothing(value: Json, place: str) -> None:
    if value is not None and value != FrozenMap():
        raise _wrong(place, "an empty object", value)


TEXT: Final = text_like(r".*", "a string")
TEXTS: Final = array_of(TEXT)
TEXT_MAP: Final = map_of(TEXT)
INTEGER: Final[Shape[int]] = Shape(_read_integer, lambda number: number)
SCHEMA_VERSION: Final[Shape[int]] = Shape(_read_schema_version, lambda version: version)
SIZE: Final[Shape[int]] = Shape(_read_size, lambda size: size)
FLAG: Final[Shape[bool]] = Shape(_read_flag, lambda flag: flag)
DIGEST: Final[Shape[Digest]] = Shape(_read_digest, str)
BASE64: Final[Shape[bytes]] = Shape(_read_base64, lambda content: base64.b64encode(content).decode())
#: RFC 3339, kept as text: Python's datetime would lose the nanoseconds.
TIME: Final = text_like(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", "a time as in RFC 3339"
)
#: RFC 6838, 4.2
MEDIA_TYPE: Final = text_like(
    r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}", "a media type"
)
_NOTHING: Final[Shape[None]] = Shape(_read_nothing, lambda _: FrozenMap())
#: Go's ``map[string]struct{}``: only the keys say something.
KEY_SET: Final[Shape[tuple[str, ...]]] = Shape(
    _read_key_set, lambda keys: FrozenMap(dict.fromkeys(keys, FrozenMap()))
)


# --- text -----------------------------------------------------------------------------------------------


def decode(shape: Shape[T], content: bytes, what: str) -> T:
    """Read a document; *what* names it in messages: ``manifest``, ``config``."""
    return shape.read(parse_json(content, what), what)


def encode(shape: Shape[T], value: T) -> bytes:
    """Write a document as canonical JSON."""
    text = json.dumps(
        shape.write(value),
        default=dict,
        ensure_ascii=False,
        allow_nan=False,
        sort_keys=True,
        separators=(",", ":"),
    )
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidImage(f"the document holds text that is not Unicode: {error}") from error


def parse_json(content: bytes, what: str) -> Json:
    """Read any JSON text, with arrays as tuples and objects as :class:`FrozenMap`."""
    if len(content) > MAX_DOCUMENT_BYTES:
        raise InvalidImage(
            f"the {what} has {len(content)} bytes, and no document may have more than {MAX_DOCUMENT_BYTES}"
        )
    try:
        return _freeze(
            json.loads(
                content.decode(),
                object_pairs_hook=_unique,
                parse_float=_finite,
                parse_constant=_refuse_constant,
            )
        )
    except RecursionError as error:
        raise InvalidImage(f"the {what} is nested more than {_MAX_NESTING} levels deep") from error
    except ValueError as error:  # also what json and the Unicode decoder raise
        raise InvalidImage(f"the {what} is not sound JSON: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Readers disagree on which of two equal keys counts, so a document that has them means two things.
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:
            raise ValueError(f"the key {_shorten(key)} is there twice")
        members[key] = value
    return members


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"the number {_shorten(text)} is too large")
    return number


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")


def _freeze(value: Any, room: int = _MAX_NESTING) -> Json:
    match value:
        case str():
            return _encodable(value)
        case dict() | list() if not room:
            raise ValueError(f"it is nested more than {_MAX_NESTING} levels deep")
        case dict():
            return FrozenMap({_encodable(key): _freeze(found, room - 1) for key, found in value.items()})
        case list():
            return tuple(_freeze(found, room - 1) for found in value)
    return value  # type: ignore[no-any-return]


def _encodable(text: str) -> str:
    text.encode()  # half of a surrogate pair may be escaped in JSON, and could never be written again
    return text


def _wrong(place: str, wanted: str, value: Json) -> InvalidImage:
    return InvalidImage(f"{place} must be {wanted}, not {_describe(value)}")


def _describe(value: Json) -> str:
    match value:
        case FrozenMap():
            return "an object"
        case tuple():
            return "an array"
        case bool():
            return str(value).lower()
        case None:
            return "null"
        case _:
            return _shorten(value)


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
