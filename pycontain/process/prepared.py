"""What a start needs and the zygote is asked for: a compiled plan, a command line, and how the command is fed and read."""

from __future__ import annotations

import marshal
import os
from typing import TYPE_CHECKING, Any

import attrs

from pycontain.errors import InvalidSpec
from pycontain.runtime.exchange import Exchange
from pycontain.runtime.loading import loading
from pycontain.sandbox.network import NO_NETWORKING, Networking
from pycontain.sandbox.size import parse_size

if TYPE_CHECKING:
    from pycontain.network.wiring import Wiring
    from pycontain.process.popen import Plumbing
    from pycontain.runtime.engine import Engine
    from pycontain.runtime.log import Log
    from pycontain.sandbox.image import RunnableImage
    from pycontain.sandbox.plan import Plan
    from pycontain.sandbox.spec import SandboxSpec
    from pycontain.store.locks import Lock


@attrs.frozen
class Run:
    """How a command is fed, bounded and read."""

    input: bytes | None
    timeout: float | None
    text: bool
    max_output: int
    profile: bool = False

    @classmethod
    def parse(
        cls,
        *,
        input_: str | bytes | None,
        timeout: float | None,
        text: bool,
        max_output: str | int,
        profile: bool = False,
        most: int | None = None,
    ) -> Run:
        """Read the arguments of ``run``, ``start`` and ``exec``; raise :class:`InvalidSpec` with all that is wrong.

        *most* is what the container keeps of a stream whatever *max_output* says.
        """
        problems = []
        try:
            fed = _input_bytes(input_)
        except (TypeError, ValueError) as error:
            problems.append(str(error))
        if timeout is not None and not (is_number(timeout) and timeout >= 0):
            problems.append(f"timeout={timeout!r} is no number of seconds")
        try:
            limit = parse_size(max_output)
        except ValueError as error:
            problems.append(f"max_output: {error}")
        if problems:
            raise InvalidSpec(tuple(problems))
        return cls(fed, timeout, text, limit if most is None else min(limit, most), profile)

    def deadline(self, began: float) -> float | None:
        """The moment of time.monotonic() when the time is up."""
        return None if self.timeout is None else began + self.timeout


def _input_bytes(given: object) -> bytes | None:
    if given is None or isinstance(given, bytes):
        return given
    if isinstance(given, bytearray | memoryview):
        return bytes(given)
    if not isinstance(given, str):
        raise TypeError(f"input is neither str nor bytes but {type(given).__name__}")
    try:
        return given.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError("input holds half a surrogate pair; give it as bytes") from None


def is_number(given: object) -> bool:
    """Whether it can be seconds: a bool is a number to Python, and a mistake here."""
    return isinstance(given, int | float) and not isinstance(given, bool)


@attrs.frozen
class Compiled:
    """A plan and its wire form without the last step: what is the same for every command of one spec."""

    sandbox: SandboxSpec
    plan: Plan
    image: RunnableImage
    prefix: bytes
    steps: bytes
    contents: tuple[bytes, ...]
    trees: tuple[tuple[Any, ...], ...]
    allowances: tuple[tuple[Any, ...], ...]

    @classmethod
    def of(cls, sandbox: SandboxSpec, plan: Plan, image: RunnableImage) -> Compiled:
        """Translate *plan* once."""
        wire, prefix = plan.wire(), plan.prefix_length()
        contents = sandbox.contents()
        steps = marshal.dumps(wire[prefix:-1])
        begin, trees = marshal.dumps(wire[:prefix]), plan.trees()
        return cls(sandbox, plan, image, begin, steps, contents, trees, plan.allowances())

    def prepare(
        self,
        engine: Engine,
        argv: tuple[str, ...],
        networking: Networking = NO_NETWORKING,
        name: str = "",
    ) -> Prepared:
        """Join with a command line, and for a start with its networks."""
        return Prepared(self, engine, argv, networking, name)


@attrs.frozen
class Prepared:
    """All that a start needs: what was compiled, for which zygote, and the command line."""

    compiled: Compiled
    engine: Engine
    argv: tuple[str, ...]
    networking: Networking = NO_NETWORKING
    name: str = ""

    @property
    def plan(self) -> Plan:
        """The plan, with whatever command line it was compiled for."""
        return self.compiled.plan

    def wire(self) -> tuple[Any, ...]:
        """The plan in its parts with this command line, and the contents of files, as a request carries them."""
        compiled, sandbox = self.compiled, self.compiled.sandbox
        execute = ("Execute", (), self.argv, sandbox.env, sandbox.init, sandbox.restart)
        return (
            *(compiled.prefix, compiled.steps, execute, compiled.contents),
            *(compiled.trees, compiled.allowances),
        )

    @property
    def has_terminal(self) -> bool:
        """Whether it has a terminal in the place of pipes."""
        return self.compiled.sandbox.terminal is not None

    @property
    def limited(self) -> bool:
        """Whether the container has a control group, whose counts are worth waiting for."""
        return bool(self.compiled.sandbox.cgroup.controllers)

    def request(self, ident: str, options: int) -> tuple[Any, ...]:
        """What the zygote is asked for a start; when it needs room for a control group, that is made."""
        group: tuple[Any, ...] = ()
        if self.limited:
            cgroup = self.compiled.sandbox.cgroup
            self.engine.make_room(cgroup.controllers)
            group = (cgroup.controllers, cgroup.writes)
        return ("start", ident, options, *self.wire(), group)

    def volumes(self) -> tuple[Lock, ...]:
        """Have the named volumes, which are in use until the locks are released."""
        if not any(mount.volume for mount in self.compiled.sandbox.mounts):
            return ()
        with loading:
            from pycontain.volume import hold  # noqa: PLC0415 - who has none pays nothing

        return hold(self.compiled, self.engine)

    def wiring(self, ident: str) -> Wiring | None:
        """What the start needs on the host beside the container; nothing, mostly. The caller closes it."""
        if self.networking.mode in {"none", "host"} and not self.networking.published:
            return None
        with loading:
            from pycontain.network.wiring import Wiring  # noqa: PLC0415 - who has no networks pays nothing

        hostname = self.compiled.sandbox.hostname
        return Wiring.prepare(self.networking, self.engine, ident, self.name or ident[:12], hostname)

    def begin(
        self, run: Run, options: int, ident: str, log: Log | None = None, streams: Plumbing | None = None
    ) -> Exchange:
        """Ask the zygote for a container; the caller closes the exchange.

        Its output goes to *log* if there is one, and its input comes from *streams*, which it is no more to close.
        """
        exchange = Exchange(
            input_=run.input,
            limit=run.max_output,
            options=options,
            counted=self.limited,
            feed=streams.given.pop() if streams is not None and streams.has_input else -1,
            sinks=log.streams if log is not None else None,
            terminal=self.has_terminal,
        )
        try:
            exchange.held = self.volumes()
            send(self.engine, self.request(ident, exchange.options), exchange)
        except BaseException:
            exchange.close()
            raise
        return exchange


def new_id() -> str:
    """64 hexadecimal digits, as Docker's ids."""
    return os.urandom(32).hex()


def send(engine: Engine, request: tuple[Any, ...], exchange: Exchange) -> None:
    """Ask the zygote, and let go of the far ends."""
    try:
        engine.request(request, exchange.fds_to_send())
    finally:
        exchange.sent()
