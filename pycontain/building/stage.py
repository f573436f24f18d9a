"""One stage, instruction by instruction: each makes a new :class:`State`, from the cache when it can."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs

from pycontain.building import copy as copies
from pycontain.building import mounting, parameters
from pycontain.building.fetch import check_checksum, fetched, is_url
from pycontain.building.git import Repository, check_commit, clone, is_git
from pycontain.building.run import container_of, run
from pycontain.building.session import BuildProgress, refuse_platform
from pycontain.building.state import State
from pycontain.dockerfile import instructions as said
from pycontain.dockerfile.graph import SCRATCH
from pycontain.dockerfile.instructions import instruction_of
from pycontain.dockerfile.modes import check_mode
from pycontain.dockerfile.parser import parse
from pycontain.dockerfile.scope import PROXIES, Scope
from pycontain.errors import (
    BuildError,
    CommandNotFound,
    DockerfileError,
    InstructionFailed,
    PycontainError,
)
from pycontain.oci.config import History
from pycontain.runtime.copying import Copying

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pycontain.building.session import Session
    from pycontain.container import Container
    from pycontain.dockerfile.graph import Recipe, Stage
    from pycontain.process import Completed
    from pycontain.store.builds import Built

_NAME = "pycontain.build.v1"
_BILLION = 10**9
_FETCHED = 0o600  # as for Docker


@attrs.define(eq=False)
class Site:
    """Where one stage is built. *other* gives the result of another stage."""

    session: Session
    recipe: Recipe
    stage: Stage
    platforms: Mapping[str, str]
    other: Callable[[int], State]
    state: State = attrs.field(init=False)
    scope: Scope = attrs.field(init=False)
    step: int = 0
    steps: int = 0
    cmd_is_own: bool = False
    now: int = attrs.field(factory=time.time_ns)

    def build(self) -> State:
        """The state after the last instruction."""
        stage = self.stage
        self.steps = len(stage.instructions) + 1
        self._begin()
        for one in stage.instructions:
            self._instruction(one)
        return self.state

    def _begin(self) -> None:
        stage, session = self.stage, self.session
        self._tell(stage.begin, "begin")
        defaults = {**self.platforms, **self.recipe.arguments}
        if stage.base is not None:
            self.state = self.other(stage.base)
        elif stage.image == SCRATCH:
            self.state = State.empty(session.platform)
        else:
            try:
                self.state = State.on(session.image(stage.image, stage.platform))
            except PycontainError as error:
                raise self._failed(stage.begin, f"the base image cannot be had: {error}", error) from error
        self.scope = Scope(self.recipe.document, session.args, defaults).with_env(self.state.said.env)
        triggers = self.state.said.on_build
        if triggers:
            self.state = self.state.saying(on_build=())
            self.steps += len(triggers)
            for trigger in triggers:
                self._triggered(trigger)
        self._tell(stage.begin, "end")

    def _triggered(self, text: str) -> None:
        """An ONBUILD of the base image. What is wrong in it is shown with the line of FROM."""
        document = parse(text)
        for node in document.nodes:
            one = instruction_of(node, document)
            self._instruction(attrs.evolve(one, lines=self.stage.begin.lines))

    def _instruction(self, one: said.Instruction) -> None:
        self.session.go_on()
        self.step += 1
        self._tell(one, "begin")
        try:
            self._perform(one)
        except InstructionFailed:
            raise
        except DockerfileError:
            raise
        except BuildError as error:
            raise self._failed(one, str(error), error) from error
        except (PycontainError, OSError) as error:
            raise self._failed(one, str(error), error) from error
        self._tell(one, "end")

    def _perform(self, one: said.Instruction) -> None:
        match one:
            case said.Arg():
                self.scope = self.scope.declared(one)
                self._note(f"ARG {' '.join(self._argument(name) for name, _ in one.pairs)}")
            case said.Run():
                self._run(one)
            case said.Copy():
                self._copy(one)
            case said.Workdir():
                self._workdir(one)
            case _:
                parameter: Any = one
                self.state = parameters.changed(self.state, parameter, self.scope, cmd_is_own=self.cmd_is_own)
                self.cmd_is_own = self.cmd_is_own or isinstance(one, said.Cmd)
                self.scope = self.scope.with_env(self.state.said.env)
                self._note(one.text)

    def _argument(self, name: str) -> str:
        value = self.scope.args.get(name)
        return name if value is None or name in PROXIES else f"{name}={value}"

    # --- history ----------------------------------------------------------------------------------------

    def _tell(self, one: said.Instruction, event: str, text: str = "") -> None:
        shown = " ".join(one.text.split())
        self.session.tell(BuildProgress(self.stage.name, self.step + 1, self.steps, shown, event, text))

    def _history(self, text: str, comment: str = _NAME) -> History:
        seconds = self.now / _BILLION if self.session.epoch is None else self.session.epoch
        created = datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
        return History(created, text, "", comment)

    def _note(self, text: str) -> None:
        self.state = self.state.noted(self._history(text))

    def _failed(
        self,
        one: said.Instruction,
        problem: str,
        cause: BaseException | None = None,
        result: Completed[str] | None = None,
    ) -> InstructionFailed:
        first, last = one.lines
        where = f"line {first}" if first == last else f"lines {first} to {last}"
        output = result.tail() if result is not None else ""
        error = InstructionFailed(
            f"{where} of the Dockerfile: {problem}",
            line=first,
            last_line=last,
            instruction=one.text,
            stage=self.stage.name,
            output=output,
            result=result,
        )
        source = self.recipe.document.source
        for number in range(first, min(last, len(source)) + 1):
            error.add_note(f"{number:4} | {source[number - 1]}")
        if output:
            error.add_note(f"it printed last:\n{output}")
        for note in getattr(cause, "__notes__", ()):
            error.add_note(note)
        return error

    # --- layers -----------------------------------------------------------------------------------------

    def _key(self, *parts: Any) -> str:
        """What a layer is known by: what it stands on, and all that it depends on. No secret is in it."""
        chain = str(self.state.chain_id or "")
        text = json.dumps([_NAME, chain, self.session.epoch, *parts], sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    def _cached(self, one: said.Instruction, key: str, text: str) -> bool:
        built = self.session.cached(key)
        if built is None:
            return False
        self.state = self.state.with_layer(built, self._history(text, f"{_NAME} {key}"))
        self._tell(one, "cached")
        return True

    def _add(self, key: str, built: Built, text: str) -> None:
        self.session.keep(key, built)
        self.state = self.state.with_layer(built, self._history(text, f"{_NAME} {key}"))

    # --- WORKDIR ----------------------------------------------------------------------------------------

    def _workdir(self, one: said.Workdir) -> None:
        path = parameters.workdir_of(self.state, self.scope.text(one, one.path))
        text = f"WORKDIR {path}"
        if path != "/":
            user = self.state.said.user  # to whom it belongs, as for BuildKit
            key = self._key("workdir", path, user)
            if not self._cached(one, key, text):
                order = self.order((), destination=os.fsencode(path) + b"/", keep_owners=True, owner=user)
                built, _ = copies.layer(
                    self.session, attrs.evolve(order, folder=True), copies.Origin(), self.state
                )
                self._add(key, built, text)
        else:
            self._note(text)
        self.state = self.state.saying(working_dir=path)

    def order(self, sources: tuple[bytes, ...], **more: Any) -> Copying:
        """What is to be copied, with the times of this build."""
        epoch = self.session.epoch
        given: dict[str, Any] = {
            "sources": sources,
            "texts": (),
            "ignored": (),
            "exclude": (),
            "keep_owners": False,
            "owner": "",
            "mode": "",
            "parents": False,
            "unpack": False,
            "made": self.now if epoch is None else epoch * _BILLION,
            "newest": None if epoch is None else epoch * _BILLION,
        }
        return Copying(**given | more)

    # --- COPY and ADD -----------------------------------------------------------------------------------

    def _copy(self, one: said.Copy) -> None:
        scope = self.scope
        sources = [scope.text(one, source) for source in one.sources]
        target = scope.text(one, one.destination)
        if len(sources) + len(one.contents) > 1 and not target.endswith("/") and target not in {".", ".."}:
            raise scope.document.error(
                f"{one.keyword} has several sources, so its destination is a directory and ends with a slash",
                one.lines,
                f"write {target}/",
            )
        chmod = scope.text(one, one.chmod)
        if chmod:
            try:
                check_mode(chmod)
            except ValueError as error:
                raise scope.document.error(str(error), one.lines) from None
        order = self.order(
            (),
            texts=tuple((each.name, self._content(one, each), 0o644) for each in one.contents),
            destination=copies.destination(target, self.state.said.working_dir or "/"),
            exclude=tuple(scope.text(one, each) for each in one.exclude),
            owner=scope.text(one, one.chown),
            mode=chmod,
            parents=one.parents,
        )
        if isinstance(one, said.Add):
            if any(map(is_git, sources)):
                self._add_repository(one, sources, order)
                return
            order, sources = self._with_urls(one, sources, order)
        origin, keep = self.origin(one.origin)
        if sources and not keep and not self.session.context.path:
            raise scope.document.error(
                "there is no build context to copy from", one.lines, "name a directory: build(context)"
            )
        order = attrs.evolve(
            order,
            sources=tuple(copies.source_pattern(each, parents=one.parents) for each in sources),
            ignored=() if keep else self.session.context.ignored,
            keep_owners=keep,
        )
        self._copied(one, order, origin if sources else copies.Origin())

    def _with_urls(self, one: said.Add, sources: list[str], order: Copying) -> tuple[Copying, list[str]]:
        """*order* with what is fetched, and what is left of *sources*."""
        checksum = self.scope.text(one, one.checksum)
        urls = [source for source in sources if is_url(source)]
        if checksum:
            try:
                check_checksum(checksum)
            except ValueError as error:
                raise self.scope.document.error(str(error), one.lines) from None
            if not len(urls) == len(sources) == 1:
                raise self.scope.document.error("ADD --checksum is for a single URL", one.lines)
        given = tuple((*fetched(url, checksum, self.session), _FETCHED) for url in urls)
        unpack = not urls if one.unpack is None else one.unpack
        rest = [source for source in sources if source not in urls]
        return attrs.evolve(order, texts=(*order.texts, *given), unpack=unpack), rest

    def _add_repository(self, one: said.Add, sources: list[str], order: Copying) -> None:
        document, session = self.scope.document, self.session
        if len(sources) + len(one.contents) > 1:
            raise document.error(
                "ADD takes a git repository alone", one.lines, "write an ADD for each source"
            )
        checksum = self.scope.text(one, one.checksum)
        try:
            repository = Repository.parse(sources[0])
            check_commit(checksum)
        except ValueError as error:
            raise document.error(str(error), one.lines, "write URL, URL#REF or URL#REF:DIRECTORY") from None
        with ExitStack() as stack:
            folder = session.engine.new_tree()
            stack.callback(session.unpacking.unpacker.remove_tree, folder)
            commit = clone(repository, folder, session, keep=one.keep_git_dir, checksum=checksum)
            order = attrs.evolve(order, sources=(copies.source_pattern(repository.folder),))
            # What git writes down beside a commit is never the same twice.
            known = f"{commit} {repository.url} {repository.folder}" if one.keep_git_dir else ""
            self._copied(one, order, copies.Origin(folder), known)

    def _copied(self, one: said.Copy, order: Copying, origin: copies.Origin, known: str = "") -> None:
        """Make the layer, or find it. *known* is what the sources are known by, when it is not their content."""
        text = " ".join(one.text.split("\n")[0].split())
        parts = (
            *(one.keyword, os.fsdecode(order.destination), order.owner, order.mode, order.parents),
            *(order.unpack, list(order.exclude), order.keep_owners),
        )
        if not self.session.no_cache:
            key = self._key(*parts, known or copies.digest(self.session, order, origin))
            if self._cached(one, key, text):
                return
        built, found = copies.layer(self.session, order, origin, self.state)
        # By what was copied, which may not be what was there when it was looked at first.
        self._add(self._key(*parts, known or found), built, text)

    def _content(self, one: said.Copy, heredoc: Any) -> bytes:
        text = heredoc.text()
        return (self.scope.text(one, text, quotes=False) if heredoc.expand else text).encode(
            "utf-8", "surrogateescape"
        )

    def origin(self, name: str) -> tuple[copies.Origin, bool]:
        """Where COPY copies from, and whether what is there has owners of its own."""
        if not name:
            return copies.Origin(self.session.context.path), False
        return copies.Origin(trees=self.session.trees(self.tree_of(name))), True

    def tree_of(self, name: str) -> State:
        """The stage or the image that *name* means."""
        index = self.recipe.find(name, self.stage.index)
        if index is None:
            return State.on(self.session.image(name))
        if index == self.stage.index:
            raise BuildError(f"the stage {name} cannot copy from itself")
        return self.other(index)

    # --- RUN --------------------------------------------------------------------------------------------

    def _run(self, one: said.Run) -> None:
        session, scope = self.session, self.scope
        if one.security != "sandbox":
            raise scope.document.error(
                "RUN --security=insecure is not permitted",
                one.lines,
                "leave it out: there is no way to allow it yet",
            )
        argv, scripts = self._argv(one)
        with mounting.mounts_of(self, one) as mounts:
            network = one.network if one.network not in {"", "default"} else session.network
            if one.network == "host" and session.network != "host":
                raise scope.document.error(
                    "RUN --network=host is not permitted", one.lines, 'allow it for the build: network="host"'
                )
            arguments = scope.arguments
            said_now = self.state.said
            key = self._key(
                *("run", argv, scripts, sorted(arguments.items()), list(said_now.env), said_now.user),
                *(said_now.working_dir, network, mounts.key),
            )
            text = _run_text(argv, arguments)
            if self._cached(one, key, text):
                return
            refuse_platform(self.state.config.platform)
            box = container_of({**arguments, **scope.proxies, **mounts.env}, network, session.limits)
            for path, content in scripts:
                box = box.file(path, content, mode=0o755)
            box = mounts.add_to(box)
            self._add(key, self._ran(one, box, argv), text)

    def _ran(self, one: said.Run, box: Container, argv: tuple[str, ...]) -> Built:
        try:
            completed, store = run(
                self.session, self.state, box, argv, lambda line: self._tell(one, "output", line)
            )
        except CommandNotFound as error:
            hint = f"the image has no {argv[0]}"
            raise self._failed(one, f"{error}", error.with_hint(hint)) from error
        if completed.timed_out:
            took = f"RUN did not end within {self.session.timeout:g} s and was killed"
            raise self._failed(one, took, None, completed)
        if not completed.ok:
            how = (
                f"exit code {completed.exit_code}"
                if completed.signal is None
                else f"signal {completed.signal}"
            )
            failed = self._failed(one, f"RUN ended with {how}", None, completed)
            if completed.oom_killed:
                failed.add_note("it reached the limit on memory; give it more: build(…, memory=…)")
            if box.spec.networking.mode == "none":
                failed.add_note('it could reach no network; when it needs one, build with network="private"')
            raise failed
        return store()

    def _argv(self, one: said.Run) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
        """The command line, and files that it needs: heredocs that say themselves what runs them."""
        command = one.command
        if not command.heredocs:
            return parameters.words_of(self.state, command), []
        line = command.words[0]
        first = command.heredocs[0]
        alone = (
            len(command.heredocs) == 1
            and line.strip().lstrip("0123456789").lstrip("<-").strip().strip("'\"") == first.name
        )
        if not alone:
            text = line + "".join(f"\n{each.content}{each.name}" for each in command.heredocs)
            return parameters.words_of(self.state, attrs.evolve(command, words=(text,))), []
        content = first.text()
        if content.startswith("#!"):
            path = f"/dev/pipes/{first.name}"
            return (path,), [(path, content)]
        return parameters.words_of(self.state, attrs.evolve(command, words=(content,))), []


def _run_text(argv: tuple[str, ...], arguments: Mapping[str, str]) -> str:
    given = "".join(f"{name}={value} " for name, value in sorted(arguments.items()))
    return f"RUN {f'|{len(arguments)} {given}' if arguments else ''}{' '.join(argv)}"
