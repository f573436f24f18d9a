"""Stages and what they need of each other: only what the target needs is built, and nothing needs itself."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import attrs

from pycontain.dockerfile.instructions import Arg, Copy, From, Run, parse_instructions
from pycontain.dockerfile.words import WordError, expand

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pycontain.dockerfile.instructions import Instruction
    from pycontain.dockerfile.parser import Document
    from pycontain.errors import DockerfileError

SCRATCH = "scratch"


@attrs.frozen
class Stage:
    """FROM, and what follows up to the next one. *base* is the stage that it stands on, if it does; *image* otherwise."""

    index: int
    begin: From
    instructions: tuple[Instruction, ...]
    image: str
    platform: str = ""
    base: int | None = None

    @property
    def name(self) -> str:
        """Its name, or its number."""
        return self.begin.name or str(self.index)


@attrs.frozen
class Recipe:
    """All stages of a Dockerfile, with FROM expanded. *arguments* are those before the first FROM, with their values."""

    document: Document
    arguments: Mapping[str, str]
    stages: tuple[Stage, ...]

    def find(self, name: str, before: int | None = None) -> int | None:
        """The stage that is called *name*, or has this number; the last one *before* a stage, if there is one."""
        found = [stage.index for stage in self.stages if stage.begin.name == name.lower()]
        if not found and name.isdigit() and int(name) < len(self.stages):
            return int(name)
        earlier = [index for index in found if before is None or index < before]
        return next(reversed(earlier or found), None)

    def needs(self, index: int) -> tuple[int, ...]:
        """The stages that the stage *index* needs directly."""
        stage = self.stages[index]
        named = (self.find(name, index) for name in _origins(stage.instructions))
        return tuple(dict.fromkeys(found for found in (stage.base, *named) if found is not None))

    def target(self, name: str | None) -> int:
        """The stage to build. :class:`DockerfileError` when there is none of this name."""
        if name is None:
            return len(self.stages) - 1
        found = self.find(name)
        if found is None:
            names = [stage.begin.name for stage in self.stages if stage.begin.name]
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names) or 'only numbers'}"
            raise self.document.error(f"there is no stage {name!r}", self.stages[-1].begin.lines, hint)
        return found

    def order(self, target: int) -> tuple[int, ...]:
        """The target and what it needs, each after what it needs itself. :class:`DockerfileError` for a circle."""
        done: list[int] = []
        open_: list[tuple[int, Iterator[int]]] = [(target, iter(self.needs(target)))]
        while open_:
            index, rest = open_[-1]
            following = next(rest, None)
            if following is None:
                done.append(open_.pop()[0])
            elif following in (path := [each for each, _ in open_]):
                circle = " → ".join(
                    self.stages[each].name for each in (*path[path.index(following) :], following)
                )
                raise self.document.error(
                    f"stages need each other in a circle: {circle}", self.stages[index].begin.lines
                )
            elif following not in done:
                open_.append((following, iter(self.needs(following))))
        return tuple(done)


def _origins(instructions: Iterable[Instruction]) -> Iterator[str]:
    for one in instructions:
        if isinstance(one, Copy) and one.origin:
            yield one.origin
        elif isinstance(one, Run):
            yield from filter(None, (mount.get("from") for mount in one.mounts))


def recipe_of(document: Document, given: Mapping[str, str], platforms: Mapping[str, str]) -> Recipe:
    """Divide *document* into stages. *given* are build arguments, *platforms* those that are always there."""
    instructions = parse_instructions(document)
    first = next(
        (number for number, one in enumerate(instructions) if isinstance(one, From)), len(instructions)
    )
    for one in instructions[:first]:
        if not isinstance(one, Arg):
            raise document.error(
                f"{one.keyword} is before the first FROM",
                one.lines,
                "begin with FROM; only ARG may be before it",
            )
    if first == len(instructions):
        raise document.error(
            "there is no FROM", instructions[-1].lines, "begin with FROM IMAGE, or FROM scratch"
        )
    arguments = _arguments(document, instructions[:first], given, platforms)
    recipe = Recipe(document, arguments, ())
    for number in range(first, len(instructions)):
        one = instructions[number]
        if isinstance(one, From):
            following = (
                end for end in range(number + 1, len(instructions)) if isinstance(instructions[end], From)
            )
            own = instructions[number + 1 : next(following, len(instructions))]
            stage = _stage(recipe, one, own, {**platforms, **arguments})
            recipe = attrs.evolve(recipe, stages=(*recipe.stages, stage))
    return recipe


def _stage(recipe: Recipe, begin: From, own: tuple[Instruction, ...], variables: Mapping[str, str]) -> Stage:
    document = recipe.document
    image = _expanded(document, begin, begin.image, variables)
    platform = _expanded(document, begin, begin.platform, variables)
    if not image:
        raise document.error(
            f"the base {begin.image!r} is empty when it is expanded",
            begin.lines,
            "only ARG before the first FROM, and build arguments for it, count here",
        )
    base = next((one.index for one in reversed(recipe.stages) if one.begin.name == image.lower()), None)
    return Stage(len(recipe.stages), begin, own, image, platform, base)


def _arguments(
    document: Document, lines: Iterable[Instruction], given: Mapping[str, str], platforms: Mapping[str, str]
) -> dict[str, str]:
    values: dict[str, str] = {}
    for one in lines:
        assert isinstance(one, Arg)
        for name, default in one.pairs:
            if name in given:
                values[name] = given[name]
            elif default is not None:
                values[name] = _expanded(document, one, default, {**platforms, **values})
            elif name in platforms:
                values[name] = platforms[name]
    return values


def _expanded(document: Document, one: Instruction, text: str, variables: Mapping[str, str]) -> str:
    try:
        return expand(text, variables, document.escape).text
    except WordError as error:
        raise _refused(document, one, text, error) from None


def _refused(document: Document, one: Instruction, text: str, error: WordError) -> DockerfileError:
    return document.error(f"{text!r} cannot be expanded: {error}", one.lines)
