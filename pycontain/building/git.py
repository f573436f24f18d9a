"""ADD of a git repository: what ``URL#REF:SUBDIRECTORY`` means, and the tree of its commit, fetched by git(1).

The URL, the ref and the repository come from strangers. So git is given none that it could read as an option or as another
transport, no configuration and no hooks of the owner, and no key of his but the agent that the build was given.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from typing import TYPE_CHECKING

import attrs

from pycontain.errors import BuildError, PycontainError
from pycontain.runtime.probe import find_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pycontain.building.session import Session

# Neither a user, a host nor a path may begin with a dash: ssh(1) would take it for an option (CVE-2017-1000117).
_HOST = r"[A-Za-z0-9_.][A-Za-z0-9_.-]*"
_URL = re.compile(
    rf"(?:(?:https?|git|ssh)://(?:[^\s/@-][^\s/@]*@)?(?:{_HOST}|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?/[^\s]+"
    rf"|git@{_HOST}:[^\s-][^\s]*)"
)
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@-]*")
_COMMIT = re.compile(r"[0-9a-f]{4,64}")
_FOLDER = re.compile(r"[^*?\[\]\\\0]*")
# git-config(1). No program is started for a file, and what is slower than this for a minute is given up.
_SETTINGS = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("credential.helper", ""),
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "60"),
    ("init.defaultBranch", "main"),
    ("advice.detachedHead", "false"),
)
_SSH = "ssh -F none -o BatchMode=yes -o IdentityFile=none -o ConnectTimeout=30 -o ServerAliveInterval=15"
_KEPT = (
    *("PATH", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
)
_TRANSPORTS = "git:http:https:ssh"


def is_git(text: str) -> bool:
    """Whether ADD means a repository."""
    location = text.partition("#")[0]
    return text.startswith(("git@", "git://", "ssh://")) or (
        text.startswith(("http://", "https://")) and location.endswith(".git")
    )


@attrs.frozen
class Repository:
    """``URL#REF:SUBDIRECTORY``; without a ref it is the branch that the server has chosen."""

    url: str
    ref: str = "HEAD"
    folder: str = ""

    @classmethod
    def parse(cls, text: str) -> Repository:
        """Read what stands in the file. :class:`ValueError`."""
        url, _, fragment = text.partition("#")
        ref, _, folder = fragment.partition(":")
        ref = ref or "HEAD"
        if not _URL.fullmatch(url):
            raise ValueError(f"{url!r} is no address of a git repository")
        if not _REF.fullmatch(ref) or ".." in ref or "@{" in ref or ref.endswith((".lock", "/", ".")):
            raise ValueError(f"{ref!r} is no branch, tag or commit")
        if not _FOLDER.fullmatch(folder) or ".." in folder.split("/"):
            raise ValueError(f"{folder!r} is no directory of a repository")
        return cls(url, ref, folder.strip("/"))


def check_commit(text: str) -> None:
    """Raise :class:`ValueError` unless *text* is the beginning of a commit's name, or nothing."""
    if text and not _COMMIT.fullmatch(text):
        raise ValueError(f"--checksum={text} is no commit; of a repository it is its hexadecimal digits")


def clone(repository: Repository, folder: str, session: Session, *, keep: bool, checksum: str) -> str:
    """Check the commit out in the empty directory *folder*, with its submodules; its name. Unless *keep* there is no ``.git``."""
    program = find_program("git")
    if program is None:
        raise BuildError("ADD of a git repository needs git, which is not in PATH", hint="apt install git")
    git = _Git(program, folder, session)
    git.run("init", "--quiet", ".")
    commit = git.fetch(repository)
    if checksum and not commit.startswith(checksum):
        raise BuildError(f"{repository.url} has the commit {commit}, and should have {checksum}")
    git.run("checkout", "--quiet", "--detach", commit)
    git.run("remote", "add", "origin", repository.url)  # what addresses of submodules may be relative to
    if os.path.lexists(f"{folder}/.gitmodules"):
        git.run("submodule", "--quiet", "update", "--init", "--recursive", "--depth=1")
    if not keep:
        for path in list(_git_folders(folder)):
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
    return commit


def _git_folders(top: str) -> Iterator[str]:
    for folder, folders, files in os.walk(top):
        if ".git" in folders or ".git" in files:
            yield f"{folder}/.git"
            if ".git" in folders:
                folders.remove(".git")


@attrs.frozen
class _Git:
    """The program, in the directory *folder*."""

    program: str
    folder: str
    session: Session

    def fetch(self, repository: Repository) -> str:
        """Bring the commit that *repository* means, and what it needs; its name."""
        url, ref = repository.url, repository.ref
        try:
            self.run("fetch", "--quiet", "--depth=1", "--no-tags", "--", url, ref)
            return self.run("rev-parse", "--verify", "FETCH_HEAD^{commit}").strip()
        except BuildError:
            # A server that does not give single commits, or cannot give a part; a commit that is named by its beginning.
            if not (_COMMIT.fullmatch(ref) or url.startswith("http")):
                raise
            branches = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
            self.run("fetch", "--quiet", "--", url, "HEAD", *branches)
            names = ("FETCH_HEAD",) if ref == "HEAD" else (f"refs/remotes/origin/{ref}", f"refs/tags/{ref}")
            for name in (*names, ref) if _COMMIT.fullmatch(ref) else names:
                found = self.run(
                    "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", check=False
                ).strip()
                if found:
                    return found
            raise

    def run(self, *arguments: str, check: bool = True) -> str:
        """What git prints. It ends with all that it has started when the build fails elsewhere, or is interrupted."""
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as printed:
            process = subprocess.Popen(
                [self.program, *arguments],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=said,
                start_new_session=True,
            )

            def end() -> None:
                os.killpg(process.pid, signal.SIGKILL)

            try:
                with self.session.stopping(end):
                    # It is reaped later, so that nobody else has its number as long as somebody might end it.
                    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            except BaseException:
                end()
                raise
            finally:
                process.wait()
            self.session.go_on()
            said.seek(0)
            printed.seek(0)
            if check and process.returncode:
                raise self._failed(arguments[0], said.read().decode(errors="replace"))
            return printed.read().decode(errors="replace")

    def _failed(self, act: str, text: str) -> PycontainError:
        lines = [line for line in text.splitlines() if line.strip()]
        problem = next((line for line in lines if line.startswith(("fatal:", "error:"))), "") or "".join(
            lines[-1:]
        )
        return BuildError(f"git {act} failed: {problem.removeprefix('fatal: ') or 'it says nothing'}")

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        agent = self.session.ssh.get("default")
        if agent is not None:
            kept["SSH_AUTH_SOCK"] = os.path.abspath(agent)
        settings = {"GIT_CONFIG_COUNT": str(len(_SETTINGS))}
        for number, (name, value) in enumerate(_SETTINGS):
            settings |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        return {
            **kept,
            **settings,
            "LC_ALL": "C",
            "HOME": "/dev/null",  # where libcurl would find the owner's passwords, netrc(5); ssh(1) goes by passwd(5)
            "GIT_ALLOW_PROTOCOL": _TRANSPORTS,  # no ext::, no file://, no paths; submodules too
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "GIT_SSH_COMMAND": _SSH,
            "GIT_LFS_SKIP_SMUDGE": "1",
        }
