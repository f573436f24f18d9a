"""A plan: the flat list of steps that starting a container would take. It can be read, compared and sent."""

from __future__ import annotations

import enum
import html
from typing import Any

import attrs

from pycontain.sandbox import capabilities
from pycontain.sandbox.host import HostFacts
from pycontain.sandbox.steps import (
    AllowLimit,
    CloneDevice,
    CloneTree,
    Execute,
    GivePipes,
    JoinCgroup,
    OpenTerminal,
    ResolveUser,
    SetResourceLimit,
    Step,
    UnshareCgroup,
)

WireStep = tuple[Any, ...]


def wire_of(step: Step) -> WireStep:
    """The step as the zygote reads it: class name, tolerated errno values, then the fields, all marshallable."""
    fields = [
        _plain(getattr(step, field.name))
        for field in attrs.fields(type(step))
        if field.name not in {"because", "tolerate"}
    ]
    return (type(step).__name__, step.tolerate, *fields)


def _plain(value: object) -> object:
    match value:
        case bool() | None | bytes():
            return value
        case enum.IntFlag():
            return int(value)
        case enum.Enum():
            return value.value
        case str():
            return str(value)  # marshal knows no subclasses
        case tuple():
            return tuple(_plain(item) for item in value)
        case frozenset():
            return capabilities.bits(value)  # the only sets in a step
        case int():
            return value
    raise TypeError(f"a step holds {value!r}, which cannot travel")


@attrs.frozen(repr=False)
class Plan:
    """The steps in order, and the host that they were compiled for. *left_out* names what it cannot keep of the spec,
    and *users* says in which user namespace the container is.

    ``print(plan)`` reads as strace(1) does, with the reason of each step; a notebook shows a table.
    """

    steps: tuple[Step, ...]
    host: HostFacts = attrs.field(factory=HostFacts)
    title: str = ""
    left_out: tuple[str, ...] = ()
    users: str = ""

    def wire(self) -> tuple[WireStep, ...]:
        """The steps as plain tuples, in the same order: a failure is an index into both."""
        return tuple(map(wire_of, self.steps))

    def trees(self) -> tuple[WireStep, ...]:
        """What the zygote clones for the child, as ``(index of the step, fields…)``."""
        cloned = CloneTree | CloneDevice
        steps = enumerate(self.steps)
        return tuple((index, *wire_of(step)[2:]) for index, step in steps if isinstance(step, cloned))

    def allowances(self) -> tuple[WireStep, ...]:
        """The hard limits on resources that the zygote gives the child, if it may: ``(resource, hard)``."""
        return tuple(wire_of(step)[2:] for step in self.steps if isinstance(step, AllowLimit))

    def prefix_length(self) -> int:
        """How many steps can be done in advance by a spare child, which does not know yet for which command.

        For a start those before the control group and the image matter, for an exec those before the group and the
        container's files do. Limits on resources are the payload's: a spare has descriptors to take first.
        """
        late = GivePipes | JoinCgroup | UnshareCgroup | SetResourceLimit | OpenTerminal | ResolveUser
        return next(place for place, step in enumerate(self.steps) if isinstance(step, late))

    def with_argv(self, argv: tuple[str, ...]) -> Plan:
        """The same plan for another command line."""
        last = self.steps[-1]
        if not isinstance(last, Execute):
            raise TypeError("a plan ends with Execute")
        return attrs.evolve(self, steps=(*self.steps[:-1], attrs.evolve(last, argv=argv)))

    def __str__(self) -> str:
        lines = [f"# {self._caption()}"]
        width = len(str(len(self.steps)))
        for number, step in enumerate(self.steps):
            reason = f"   # {step.because}" if step.because else ""
            lines.append(f"{number:>{width}} {step.role.value:<6} {step}{reason}")
        return "\n".join(lines)

    def _caption(self) -> str:
        users = f", {self.users}" if self.users else ""
        missing = f", left out: {', '.join(self.left_out)}" if self.left_out else ""
        return f"{self.title or 'plan'} on {self.host}{users}{missing}"

    def __repr__(self) -> str:
        return f"<Plan of {len(self.steps)} steps on {self.host}>"

    def __len__(self) -> int:
        return len(self.steps)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{number}</td><td>{step.role.value}</td>"
            f"<td style='text-align:left'><code>{html.escape(str(step))}</code></td>"
            f"<td style='text-align:left'>{html.escape(step.because)}</td></tr>"
            for number, step in enumerate(self.steps)
        )
        head = "<tr><th>#</th><th>who</th><th>act</th><th>because</th></tr>"
        caption = html.escape(self._caption())
        return f"<table><caption>{caption}</caption><thead>{head}</thead><tbody>{rows}</tbody></table>"
