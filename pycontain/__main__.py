"""The command line: ``python -m pycontain VERB …``, also installed as ``pycontain``.

Exit status: the payload's own, 128+n when signal n ended it, and of ours 125 for an error, 126 and 127 for a payload
that cannot be executed or found, as docker-run(1) has them, and 124 after a timeout, as timeout(1) has it.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys

from pycontain.errors import CommandNotExecutable, CommandNotFound, CommandTimeout, PycontainError

# Verb to module of pycontain.commands, imported when it is called, and what --help says of it.
VERBS = {
    "run": "run a command in a new container",
    "plan": "print the steps that would start a container",
    "explain": "print the walls that a container has on this host, and why not others",
    "build": "build an image from a Dockerfile",
    "compose": "config, up, run, build, pull: the services of a compose file together",
    "pull": "bring an image from its registry",
    "push": "send an image to a registry",
    "images": "list the images in the store",
    "tag": "give an image one more name",
    "rmi": "take names of images away, and free what nothing needs",
    "save": "write images into one file",
    "load": "bring the images of such a file into the store",
    "inspect": "print what images say about themselves",
    "history": "print how an image was made",
    "system": "df, prune, verify: what the store takes, less of it, whether it is sound",
    "volume": "ls, create, inspect, rm, prune: named volumes",
    "doctor": "say what this host can do, what is missing, why, and the fix",
    "version": "print the version",
}
_ALIASES = {"--version": "version", "-h": "help", "--help": "help"}
_ERROR = 125
_STATUSES = {CommandTimeout: 124, CommandNotExecutable: 126, CommandNotFound: 127}


def main(arguments: list[str] | None = None) -> int:
    """Do what *arguments* (default: those of this process) say, and return the exit status."""
    _occupy_standard_streams()
    verb, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    verb = _ALIASES.get(verb, verb)
    if verb == "help":
        print(usage())
        return 0
    if verb not in VERBS:
        return _complain(unknown(verb))
    try:
        return act(verb, rest)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output has left. Python would complain when it flushes the rest at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE


def act(verb: str, arguments: list[str]) -> int:
    """Call the verb's module; its errors become sentences and a status."""
    module = importlib.import_module(f"pycontain.commands.{verb}")
    debug = False
    try:
        options = module.parser().parse_args(arguments)
        debug = options.debug
        status: int = module.act(options)
        sys.stdout.flush()
    except SystemExit as end:  # argparse has printed --help
        return int(end.code or 0)
    except PycontainError as error:
        if debug:
            sys.excepthook(type(error), error, error.__traceback__)
            return _status_of(error)
        return _complain(error)
    return status


def usage() -> str:
    """The verbs."""
    lines = [f"  {verb:<8} {summary}" for verb, summary in VERBS.items()]
    return "\n".join(
        ("usage: pycontain VERB …", "", *lines, "", "pycontain VERB --help says what a verb takes.")
    )


def unknown(verb: str) -> PycontainError:
    """The error for a verb that there is not, with the one that was meant."""
    import difflib  # noqa: PLC0415 - only a slip of the fingers pays for it

    if not verb:
        return PycontainError("there is no verb", hint=usage())
    close = difflib.get_close_matches(verb, VERBS, 1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(VERBS)}"
    return PycontainError(f"{verb!r} is no verb of pycontain", hint=hint)


def _complain(error: PycontainError) -> int:
    print(f"pycontain: {error}", file=sys.stderr)
    for note in getattr(error, "__notes__", ()):
        for line in note.splitlines():
            print(f"  {line}", file=sys.stderr)
    return _status_of(error)


def _status_of(error: PycontainError) -> int:
    return next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), _ERROR)


def _occupy_standard_streams() -> None:
    """A standard stream that was closed becomes /dev/null, so that nothing that we open gets its number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    # Python looked before, and made of a closed one None.
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


if __name__ == "__main__":
    sys.exit(main())
