"""What the image `host:` shows of this machine, described first and then written as a bare tree.

The root of a `host:` container is put together from two things. Directories of the machine (`/usr`, the running
Python) are bound read-only where they are: nothing is copied, and a package installed a second ago is there. All
the rest is a *skeleton*: empty directories, a few links, and an `/etc` of our own making.

Both are lists of what may be seen, never lists of what may not. A name in `/etc` is copied when
:data:`ETC_NAMES` holds it, everybody on the machine can read it, and no private key is inside. A Python project
that is installed in place shows its packages and not the folder around them. Whatever is refused is named in
`left_out` with the reason.

Links are what makes the Python part hard: `/bin` leads into `/usr`, a virtual environment to an interpreter, and
that one perhaps through `~/.local/bin`. So every bind sits at the *real* path, and each link met on the way there
becomes a link of the skeleton. A path then works inside however it was spelled, and nothing is bound twice.
"""

from __future__ import annotations

import ast
import contextlib
import fnmatch
import os
import re
import stat
import sys
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from typing import TYPE_CHECKING

import attrs

from pycontain.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

SYSTEM_DIRECTORIES = (
    *("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"),
    *("nix/store", "gnu/store"),  # NixOS and Guix: everybody may read the store, and /usr only points into it
    "var/lib/ca-certificates",  # openSUSE: where the links in /etc/ssl lead
)

HIDDEN_IN_USR = ("usr/local/etc", "usr/local/var", "usr/local/ssl/private")
"""Where programs installed by hand keep what distributions keep in `/etc` and `/var`."""

PRIVATE_NAMES = (".aws", ".condarc", ".env", ".git", ".netrc", ".pypirc", ".ssh", "pip.conf")
"""What may lie in a Python prefix or package and hold a token: a private index in `pip.conf`, say."""

ETC_NAMES = (
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld-musl-*.path", "alternatives"),
    *("host.conf", "gai.conf", "services", "protocols", "mime.types", "magic", "magic.mime", "shells"),
    *("localtime", "timezone", "locale.alias", "locale.conf", "default/locale", "terminfo"),
    *("*-release", "debian_version", "bash.bashrc", "bashrc", "profile"),
    *("ssl/certs", "ssl/cert.pem", "ssl/ca-bundle.pem", "ssl/openssl.cnf", "ca-certificates.conf"),
    *("ca-certificates/extracted", "pki/tls/certs", "pki/tls/cert.pem", "pki/tls/openssl.cnf"),
    *("pki/ca-trust/extracted", "pki/java", "crypto-policies"),
    # Debian keeps sitecustomize.py and jvm.cfg here; without the latter no JVM starts.
    *("python3*", "java", "java-*-openjdk"),
    "static",  # NixOS: the link into the store through which the rest of /etc goes
)

CERTIFICATE_TREES = ("ssl/certs/", "ca-certificates/", "pki/")

LARGEST_ETC_FILE = 4 << 20
"""Bytes; the largest file met in practice is a bundle of certificates of 0.2 MB."""

MOST_LINKS = 40
"""path_resolution(7): the kernel follows as many."""

ETC_CONTENT: Mapping[str, bytes] = {
    "passwd": (
        b"root:x:0:0:root:/root:/bin/sh\n"
        b"daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
        b"bin:x:2:2:bin:/bin:/usr/sbin/nologin\n"
        b"sys:x:3:3:sys:/dev:/usr/sbin/nologin\n"
        b"mail:x:8:8:mail:/var/mail:/usr/sbin/nologin\n"
        b"www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n"
        b"nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "group": (
        b"root:x:0:\ndaemon:x:1:\nbin:x:2:\nsys:x:3:\nadm:x:4:\ntty:x:5:\ndisk:x:6:\nmail:x:8:\n"
        b"www-data:x:33:\nutmp:x:43:\nstaff:x:50:\nusers:x:100:\nnogroup:x:65534:\n"
    ),
    "nsswitch.conf": (
        b"passwd: files\ngroup: files\nhosts: files dns\nnetworks: files\n"
        b"protocols: files\nservices: files\nethers: files\nrpc: files\n"
    ),
    # Empty: the container's own are mounted over them.
    **dict.fromkeys(("hosts", "hostname", "resolv.conf"), b""),
}

SKELETON_MODES: Mapping[str, int] = {
    **dict.fromkeys(("/dev", "/etc", "/home", "/mnt", "/opt", "/run", "/srv", "/usr", "/var"), 0o755),
    **dict.fromkeys(("/var/cache", "/var/lib", "/var/log", "/var/spool"), 0o755),
    **dict.fromkeys(("/proc", "/sys"), 0o555),
    **dict.fromkeys(("/tmp", "/var/tmp"), 0o1777),
    "/root": 0o700,
}

SKELETON_LINKS: Mapping[str, str] = {"/etc/mtab": "../proc/self/mounts", "/var/run": "../run"}

PATH_DIRECTORIES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

TOO_BROAD = frozenset(
    (
        *("/", "/boot", "/dev", "/etc", "/home", "/lost+found", "/media", "/mnt", "/opt", "/proc", "/root"),
        *("/run", "/srv", "/sys", "/tmp", "/var", "/var/lib", "/var/tmp"),
    )
)

PROJECT_NAMES = (".env", ".git", ".hg", "pyproject.toml", "setup.py")
"""What shows that a prefix is a project's own folder too (`python -m venv .`)."""

CONTAINERS_OWN = ("/dev/", "/etc/", "/proc/", "/sys/")

SITE_NAMES = ("site-packages", "dist-packages")

NOT_MODULES = frozenset({"setup.py", "conftest.py", "noxfile.py"})
"""Python files at the top of a project that its tools run and nobody imports."""


@attrs.frozen
class HostFile:
    """A regular file of the skeleton, mode 0644; its content was read and checked when the tree was described."""

    path: str
    content: bytes = attrs.field(repr=lambda content: f"<{len(content)} bytes>")


@attrs.frozen
class HostTree:
    """The root of a `host:` container: what to bind, and what to write below the binds.

    All paths inside are absolute, and no component of a bind's path is a link. Whoever mounts the binds makes them
    read-only with everything mounted below them, and covers each path of `hidden`, as masked paths are.
    """

    binds: tuple[tuple[str, str], ...]
    """(host path, path inside), parents first, none inside another. A source is a directory, or one module's file."""
    symlinks: tuple[tuple[str, str], ...]
    """(path inside, target)"""
    files: tuple[HostFile, ...]
    hidden: tuple[str, ...]
    """Directories and files that lie inside a bind and must not be seen."""
    path: tuple[str, ...]
    """The directories for PATH, the running Python's first."""
    environment: tuple[tuple[str, str], ...]
    """Variables without which the packages of the owner would not be found."""
    left_out: tuple[tuple[str, str], ...]
    """(host path, why): what belongs here and is not shown."""


def describe_host(
    *,
    prefix: str = sys.prefix,
    base_prefix: str = sys.base_prefix,
    executable: str = sys.executable,
    sys_path: Sequence[str] | None = None,
    home: str | None = None,
    user_base: str | None = None,
    root: str = "/",
    etc: str = "/etc",
) -> HostTree:
    """Say what `host:` shows of this machine to the current user; read much, change nothing.

    The keywords describe the running Python; *sys_path* None means `sys.path` as it is now. *root* is where the system
    directories are looked for and *etc* where the sources of the clean `/etc` are.
    """
    home = os.path.realpath(home or os.path.expanduser("~"))
    user_base = user_base or os.environ.get("PYTHONUSERBASE") or os.path.expanduser("~/.local")
    sites = site_directories(sys.path if sys_path is None else sys_path)

    survey = _Survey(home=home)
    survey.show_system(root)
    for directory in (base_prefix, prefix):
        survey.show_prefix(directory)
    survey.show(executable)
    for site in sites:
        survey.show(site)
    for site in sites:
        survey.show_editable_installs(site)

    binds = without_nested(survey.binds)
    visible = tuple(f"{inside}/" for _, inside in binds)
    survey.read_etc(etc, visible)
    symlinks = {link: to for link, to in survey.symlinks.items() if not link.startswith(visible)}
    mount_points = [HostFile(inside, b"") for source, inside in binds if not os.path.isdir(source)]
    return HostTree(
        binds=binds,
        symlinks=tuple(symlinks.items()),
        files=(*survey.files, *mount_points),
        hidden=tuple(survey.hidden_below(binds, root)),
        path=path_directories(prefix, base_prefix, _nixos_profile(root)),
        environment=environment_of(prefix, base_prefix, user_base, sites),
        left_out=tuple(survey.left_out.items()),
    )


def write_skeleton(tree: HostTree, directory: str) -> None:
    """Fill the existing, empty *directory* with the part of *tree* that is not bound: the lower layer of a root.

    Root and an ordinary user get the same tree, whatever their umask. On failure part of it may be there, and the
    caller removes *directory*. Nothing that exists is overwritten, and no link is followed.
    """
    try:
        with contextlib.ExitStack() as stack:
            top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, top)
            os.fchmod(top, 0o755)
            for path, mode in directories_of(tree).items():
                os.mkdir(path[1:], dir_fd=top)
                os.chmod(path[1:], mode, dir_fd=top)  # mkdir(2): the umask takes bits away
            for path, target in tree.symlinks:
                os.symlink(target, path[1:], dir_fd=top)
            for file in tree.files:
                _write_file(top, file)
    except OSError as error:
        raise SandboxError(
            f"the root of the image host: cannot be written below {directory}: {error.strerror}",
            hint="It needs an empty directory that you own, on a file system with room for a megabyte.",
        ) from error


def _write_file(top: int, file: HostFile) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(file.path[1:], flags, 0o600, dir_fd=top)
    with open(descriptor, "wb", buffering=0) as target:
        target.write(file.content)
        os.fchmod(descriptor, 0o644)


# --- what follows from plain values ---------------------------------------------------------------------


def directories_of(tree: HostTree) -> dict[str, int]:
    """The directories of the skeleton with their modes, parents first."""
    links = {path for path, _ in tree.symlinks}
    files = {file.path for file in tree.files}
    modes = {path: mode for path, mode in SKELETON_MODES.items() if path not in links}
    mount_points = {inside for _, inside in tree.binds} - files
    needed = mount_points | {path.rpartition("/")[0] for path in (*links, *files, *mount_points)}
    for path in needed:
        while path:
            if path == "/root":
                modes[path] = 0o755  # so that the Python below it serves every user inside
            modes.setdefault(path, 0o755)
            path = path.rpartition("/")[0]  # noqa: PLW2901 - the climb is the loop
    return {path: modes[path] for path in sorted(modes)}


def without_nested(binds: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Turn {path inside: source} into (source, path inside) pairs, parents first, without what a parent shows anyway."""
    kept: list[tuple[str, str]] = []
    for inside in sorted(binds, key=lambda path: path.split("/")):
        if not kept or not inside.startswith(f"{kept[-1][1]}/"):
            kept.append((binds[inside], inside))
    return tuple(kept)


def site_directories(sys_path: Iterable[str]) -> tuple[str, ...]:
    """The entries of *sys_path* that installers fill. The working directory and the script's own are not among them."""
    return tuple(path for path in sys_path if path.startswith("/") and os.path.basename(path) in SITE_NAMES)


def path_directories(prefix: str, base_prefix: str, profile: str | None = None) -> tuple[str, ...]:
    """PATH inside: the virtual environment, the interpreter's own prefix, a NixOS *profile*, then the usual."""
    own = [f"{directory.rstrip('/')}/bin" for directory in (prefix, base_prefix, profile) if directory]
    return (*dict.fromkeys(path for path in own if path not in PATH_DIRECTORIES), *PATH_DIRECTORIES)


def environment_of(
    prefix: str, base_prefix: str, user_base: str, sites: Iterable[str]
) -> tuple[tuple[str, str], ...]:
    """Name the virtual environment and the user site, which Python would look for in another home inside."""
    variables = {}
    if prefix != base_prefix:
        variables["VIRTUAL_ENV"] = prefix
    if any(site.startswith(f"{user_base}/lib/") for site in sites):
        variables["PYTHONUSERBASE"] = user_base
    return tuple(variables.items())


def objection_to(real: str, home: str) -> str | None:
    """Why the directory or file at the path *real* may not be bound as a whole, or None."""
    if real in TOO_BROAD or os.path.dirname(real) == "/home" or f"{home}/".startswith(f"{real}/"):
        return "it holds more than Python"
    if real.startswith(CONTAINERS_OWN):
        return "the container has its own files there"
    return None


def directories_in_pth(text: str, site: str) -> Iterator[str]:
    """The directories that a `.pth` file in *site* puts on the path: lines that are no comment and no import.

    site(3): other lines are paths, relative ones counted from the directory of the file.
    """
    for line in text.splitlines():
        path = line.strip()
        if path and not path.startswith(("#", "import ", "import\t")):
            yield os.path.normpath(os.path.join(site, path))


def mapping_of_finder(text: str) -> tuple[str, ...]:
    """The paths of the packages and modules that a finder written by setuptools for an editable install knows."""
    found = re.search(r"^MAPPING\b[^=\n]*=\s*(\{.*\})\s*$", text, re.MULTILINE)
    try:
        mapping = ast.literal_eval(found[1]) if found else {}
    except (ValueError, SyntaxError):
        return ()  # not the shape that setuptools writes: then we know of no package
    return tuple(path for path in mapping.values() if isinstance(path, str) and path.startswith("/"))


def links_that_hold(
    links: Mapping[str, str], places: Iterable[str], visible: tuple[str, ...]
) -> dict[str, str]:
    """Those of *links* whose target can be seen: below *visible*, among *places*, or over another link that holds."""
    known = set(places)
    pending = {path: _target_of(path, target) for path, target in links.items()}
    kept: dict[str, str] = {}
    while found := [
        path for path, to in pending.items() if to.startswith(visible) or to in known or _passes(to, kept)
    ]:
        for path in found:
            del pending[path]
            kept[path] = links[path]
            known.add(path)
    return kept


def _target_of(path: str, target: str) -> str:
    return os.path.normpath(os.path.join(os.path.dirname(path), target))


def _passes(path: str, links: Mapping[str, str]) -> bool:
    """Whether a directory on the way to *path* is one of *links*."""
    while path := path.rpartition("/")[0]:
        if path in links:
            return True
    return False


# --- reading the machine --------------------------------------------------------------------------------


@attrs.define(eq=False)
class _Survey:
    """What was found so far; each `show_` method adds one part of the machine."""

    home: str
    binds: dict[str, str] = attrs.Factory(dict)
    symlinks: dict[str, str] = attrs.Factory(lambda: dict(SKELETON_LINKS))
    files: list[HostFile] = attrs.Factory(list)
    left_out: dict[str, str] = attrs.Factory(dict)

    def show_system(self, root: str) -> None:
        """Bind the system's directories, or link them as a merged `/usr` does."""
        linked = {}
        for name in SYSTEM_DIRECTORIES:
            source, inside = os.path.join(root, name), f"/{name}"
            if os.path.islink(source):
                linked[inside] = os.readlink(source)
            elif os.path.isdir(source):
                self.binds[inside] = source
        merged = links_that_hold(linked, self.binds, tuple(f"{inside}/" for inside in self.binds))
        self.symlinks |= merged
        self.binds |= {inside: os.path.join(root, inside[1:]) for inside in linked.keys() - merged.keys()}
        if os.path.islink(local := os.path.join(root, "usr/local")):
            self.show(local)

    def show_prefix(self, prefix: str) -> None:
        """Bind a prefix of Python, or only its parts when it is a directory that holds other things too."""
        real = os.path.realpath(prefix)
        why = objection_to(real, self.home) or _project_in(real)
        if not why:
            self.show(prefix)
        elif real != "/":  # of that one the system's directories are the parts
            self.left_out[prefix] = f"{why}; its bin, lib and pyvenv.cfg are shown"
            for part in ("bin", "lib", "lib64", "pyvenv.cfg"):
                self.show(f"{prefix}/{part}")

    def show(self, path: str) -> None:
        """Bind the directory or file *path* and link what leads to it; refuse what is too much or cannot be read."""
        if not os.path.lexists(path):
            return
        real, links = _follow(path)
        why = objection_to(real, self.home) or _unreadable(real)
        if why:
            self.left_out.setdefault(path, why)
            return
        self.binds.setdefault(real, real)
        self.symlinks |= links

    def show_editable_installs(self, site: str) -> None:
        """Bind the packages that are installed in *site* and live elsewhere."""
        for name, linked in _names_in(site):
            path = f"{site}/{name}"
            if linked:  # flit install --symlink
                self.show(path)
            elif name.endswith(".pth"):
                for directory in directories_in_pth(_read_text(path), site):
                    self.show_importable_in(directory)
            elif name.startswith("__editable___") and name.endswith("_finder.py"):
                for target in mapping_of_finder(_read_text(path)):
                    self.show_importable(target)

    def show_importable_in(self, directory: str) -> None:
        """Bind what can be imported from *directory*, and nothing else that lies in it."""
        real = os.path.realpath(directory)
        if os.path.basename(real) in SITE_NAMES:
            self.show(directory)
        elif why := objection_to(real, self.home):
            if os.path.isdir(real):
                self.left_out[directory] = why
        elif real not in self.binds and not _passes(real, self.binds):
            for name, _ in _names_in(directory):
                if _is_importable(directory, name):
                    self.show(f"{directory}/{name}")

    def show_importable(self, target: str) -> None:
        """Bind a package or module by the path in a finder, which names a module without its suffix."""
        for suffix in ("", *SOURCE_SUFFIXES, *EXTENSION_SUFFIXES):
            if os.path.exists(target + suffix):
                self.show(target + suffix)
                return

    def hidden_below(self, binds: Iterable[tuple[str, str]], root: str) -> Iterator[str]:
        """Find what lies inside the *binds* and has no business in a container."""
        yield from (f"/{name}" for name in HIDDEN_IN_USR if os.path.isdir(os.path.join(root, name)))
        for source, inside in binds:
            if inside[1:] not in SYSTEM_DIRECTORIES:
                yield from (
                    f"{inside}/{name}" for name in PRIVATE_NAMES if os.path.lexists(f"{source}/{name}")
                )

    def read_etc(self, etc: str, visible: tuple[str, ...]) -> None:
        """Collect the clean `/etc`: our own files, and what of the machine's is public."""
        contents = {f"/etc/{name}": content for name, content in ETC_CONTENT.items()}
        links = {}
        for name in _expand(etc, ETC_NAMES):
            for relative, linked in self._walk_etc(etc, _up_to_link(etc, name)):
                if linked:
                    links[f"/etc/{relative}"] = os.readlink(f"{etc}/{relative}")
                    continue
                content = _public_content(f"{etc}/{relative}", certificate=_holds_certificates(relative))
                if isinstance(content, bytes):
                    contents.setdefault(f"/etc/{relative}", content)
                else:
                    self.left_out[f"{etc}/{relative}"] = content
        self.files += [HostFile(path, content) for path, content in contents.items()]

        places = {*contents, *(os.path.dirname(path) for path in contents)}
        system_links = tuple(f"{link}/" for link in self.symlinks)  # /lib leads into /usr
        kept = links_that_hold(links, places, visible + system_links)
        self.symlinks |= kept
        self.left_out |= {
            etc + link[len("/etc") :]: f"its target {links[link]} is not visible"
            for link in links.keys() - kept
        }

    def _walk_etc(self, etc: str, relative: str) -> Iterator[tuple[str, bool]]:
        """Yield the files and links at or below *relative*, each with whether it is a link; never enter a link."""
        path = f"{etc}/{relative}"
        try:
            mode = os.lstat(path).st_mode
            if not stat.S_ISDIR(mode):
                yield relative, stat.S_ISLNK(mode)
            elif mode & 0o005 != 0o005:
                self.left_out[path] = "not everybody can read it"
            else:
                yield from self._walk_etc_directory(etc, relative)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self.left_out[path] = str(error.strerror)

    def _walk_etc_directory(self, etc: str, relative: str) -> Iterator[tuple[str, bool]]:
        with os.scandir(f"{etc}/{relative}") as entries:
            for entry in entries:
                if entry.name.endswith(".gz"):
                    continue  # four of five alternatives lead to a manual page
                below = f"{relative}/{entry.name}"
                if entry.is_symlink():
                    yield below, True
                else:
                    yield from self._walk_etc(etc, below)


def _follow(path: str) -> tuple[str, dict[str, str]]:
    """Resolve *path* and say which links it went through, each named by its own real path."""
    links: list[tuple[str, str]] = []
    here, parts = "/", path.split("/")[::-1]
    while parts and len(links) <= MOST_LINKS:
        place = os.path.normpath(os.path.join(here, parts.pop()))  # `here` is real, so ".." is its parent
        try:
            target = os.readlink(place)
        except OSError:
            here = place  # no link, or nothing that may be looked at: the caller asks next
            continue
        links.append((place, target))
        here = "/" if target.startswith("/") else here
        parts += target.split("/")[::-1]
    return (path, {}) if parts else (here, dict(links))


def _project_in(prefix: str) -> str | None:
    found = next((name for name in PROJECT_NAMES if os.path.lexists(f"{prefix}/{name}")), None)
    return f"it is a project's folder too and holds {found}" if found else None


def _unreadable(path: str) -> str | None:
    if not os.path.exists(path):
        return "it does not exist, or this user cannot reach it"
    wanted = os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK
    return None if os.access(path, wanted) else "this user cannot read it"


def _names_in(directory: str) -> list[tuple[str, bool]]:
    """The names in *directory* with whether each is a link; none where it cannot be read, as Python's import has it."""
    try:
        with os.scandir(directory) as entries:
            return sorted((entry.name, entry.is_symlink()) for entry in entries)
    except OSError:
        return []


def _is_importable(directory: str, name: str) -> bool:
    stem, dot, _ = name.partition(".")
    if not stem.isidentifier() or name in NOT_MODULES:
        return False
    path = f"{directory}/{name}"
    if dot:
        return name.endswith((*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)) and os.path.isfile(path)
    return os.path.isfile(f"{path}/__init__.py")


def _read_text(path: str) -> str:
    content = _regular_content(path, everybody=False)
    return content.decode(errors="replace") if isinstance(content, bytes) else ""


def _public_content(path: str, *, certificate: bool) -> bytes | str:
    """The content of a file that may be shown, or why it may not."""
    content = _regular_content(path, everybody=True)
    if isinstance(content, str):
        return content
    if b"PRIVATE KEY" in content:
        return "it holds a private key"
    if certificate and b"-----BEGIN CERTIFICATE-----" not in content and b"-----BEGIN TRUSTED" not in content:
        return "it is no certificate"  # DER, PKCS#12 and JKS have room for a key that no text gives away
    return content


def _regular_content(path: str, *, everybody: bool) -> bytes | str:
    try:
        # open(2): without O_NONBLOCK the open of a FIFO waits for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return str(error.strerror)
    with open(descriptor, "rb", buffering=0) as source:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return "it is no regular file"
        if everybody and not status.st_mode & 0o004:
            return "not everybody can read it"
        if status.st_size > LARGEST_ETC_FILE:
            return f"it is larger than {LARGEST_ETC_FILE} bytes"
        return source.read(status.st_size) or b""


def _holds_certificates(relative: str) -> bool:
    """Whether only certificates are expected at this path below `/etc`.

    Java's `cacerts` is trusted by its name: its format is binary.
    """
    return relative.startswith(CERTIFICATE_TREES) and not relative.endswith((".cnf", "/java/cacerts"))


def _expand(etc: str, names: Iterable[str]) -> Iterator[str]:
    """Replace the patterns among *names* by what *etc* holds."""
    present = [name for name, _ in _names_in(etc)]
    for name in names:
        if "*" in name:
            yield from fnmatch.filter(present, name)
        else:
            yield name


def _up_to_link(etc: str, name: str) -> str:
    """*name*, cut after its first component that is a link: what lies beyond is reached through that link."""
    parts = name.split("/")
    for count in range(1, len(parts)):
        if os.path.islink(f"{etc}/{'/'.join(parts[:count])}"):
            return "/".join(parts[:count])
    return name


def _nixos_profile(root: str) -> str | None:
    """The directory whose `bin` holds the system's programs on NixOS, where `/usr/bin` holds only `env`."""
    path = os.path.join(root, "run/current-system/sw")
    return os.path.realpath(path) if os.path.isdir(path) else None
