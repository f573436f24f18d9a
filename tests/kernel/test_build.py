"""``pycontain.build``: Dockerfiles carried out, as root and as ordinary users."""

import hashlib
import http.server
import io
import json
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import tarfile
import threading

import control_groups
import pytest
from trees import busybox_tree

import pycontain
from pycontain import Container, Image
from pycontain.errors import BuildError, DockerfileError, HostUnsupported, InstructionFailed, InvalidSpec
from pycontain.testing import temporary_store

TOOLS = ("chmod", "chown", "cp", "find", "grep", "head", "id", "ln", "md5sum", "mkdir", "mv", "pwd", "readlink", "rm", "sort", "stat", "test", "touch", "tr", "wc", "xargs")  # fmt: skip


@pytest.fixture(scope="module")
def store():
    """A store for all tests here."""
    with temporary_store() as made:
        yield made


@pytest.fixture(scope="module")
def base(store, tmp_path_factory):
    top = busybox_tree(tmp_path_factory.mktemp("base") / "root")
    for name in TOOLS:
        if not (top / "bin" / name).is_symlink():
            os.symlink("busybox", top / "bin" / name)
    (top / "etc").mkdir(exist_ok=True)
    (top / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nme:x:7:8::/home/me:/bin/sh\n")
    (top / "etc/group").write_text("root:x:0:\nus:x:8:\n")
    (top / "tmp").mkdir(exist_ok=True)
    (top / "run/there").mkdir(parents=True)
    os.symlink("/run", top / "link")
    top.chmod(0o755)
    made = Image.from_rootfs(
        top, tag="base:1", config=pycontain.ExecutionParameters(env=("PATH=/bin",), cmd=("sh",))
    )
    Container(made).run("true", check=True)  # from now on this process holds a lease on it
    return made


class Project:
    """A build context on disk."""

    def __init__(self, folder):
        self.folder = folder
        self.said = []

    def write(self, files):
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return self

    def build(self, dockerfile, **more):
        (self.folder / "Dockerfile").write_text(dockerfile)
        self.said = []
        return pycontain.build(self.folder, progress=self.said.append, **more)

    @property
    def cached(self):
        return [news.instruction.split()[0] for news in self.said if news.event == "cached"]

    @property
    def output(self):
        return [news.text for news in self.said if news.event == "output"]


@pytest.fixture
def project(tmp_path, base):
    folder = tmp_path / "context"
    folder.mkdir()
    return Project(folder)


def shown(image, script):
    return Container(image).run("sh", "-c", script, check=True).stdout


def test_run_makes_a_layer(project):
    image = project.build(
        "FROM base:1\nRUN echo hello > /greeting; mkdir -p /a/b\nRUN cat /greeting; rm /greeting"
    )
    assert project.output == ["hello"]
    assert shown(image, "ls /; ls -d /a/b").split()[-1] == "/a/b"
    assert "greeting" not in shown(image, "ls /")


def test_what_a_start_makes_for_its_mounts_is_in_no_layer(project, store):
    project.build("FROM base:1\nRUN true", tags="nothing:1")
    assert Image.find("nothing:1").history()[0].size < 100


def test_copy_from_the_context(project):
    project.write({"a": "A", "dir/b": "B", "dir/sub/c": "C"})
    image = project.build("FROM base:1\nCOPY a dir /there/\nCOPY a /renamed\nWORKDIR /w\nCOPY a .\n")
    assert shown(image, "cat /there/a /there/b /there/sub/c /renamed /w/a; pwd") == "ABCAA/w\n"
    assert shown(image, "stat -c %u:%g /there/a /there/sub /there") == "0:0\n" * 3


def test_copy_follows_links_of_the_image(project):
    image = project.write({"a": "A"}).build("FROM base:1\nCOPY a /link/there/\nCOPY a /link/new/\n")
    assert shown(image, "cat /run/there/a /run/new/a; readlink /link") == "AA/run\n"


def test_chown_and_chmod(project):
    project.write({"a": "A"})
    image = project.build(
        "FROM base:1\nCOPY --chown=me:us --chmod=640 a /a\nCOPY --chown=5 --chmod=u=rw,go= a /b\n"
    )
    found = shown(image, "stat -c '%u:%g %a' /a /b").split("\n")
    single = pycontain.runtime.engine.engine().facts.single_id
    assert found[:2] == (["0:0 640", "0:0 600"] if single else ["7:8 640", "5:5 600"])


def test_a_working_directory_belongs_to_the_user(project):
    image = project.build("FROM base:1\nUSER me\nWORKDIR /mine/own\n")
    single = pycontain.runtime.engine.engine().facts.single_id
    owner = Container(image).user("0").run("stat", "-c", "%u:%g", "/mine/own", check=True).stdout
    assert owner == ("0:0\n" if single else "7:8\n")


def test_what_is_ignored_is_not_copied(project):
    project.write(
        {".dockerignore": "*.o\n!keep.o\nsecret/\n", "a.o": "", "keep.o": "", "secret/s": "", "d/b.o": ""}
    )
    image = project.build("FROM base:1\nCOPY . /src\n")
    assert set(shown(image, "cd /src; find . -type f | sort").split()) == {"./.dockerignore", "./Dockerfile", "./d/b.o", "./keep.o"}  # fmt: skip


def test_what_is_not_there_is_told_with_its_line(project):
    with pytest.raises(InstructionFailed) as caught:
        project.build("FROM base:1\n\nCOPY nothing /\n")
    assert str(caught.value) == "line 3 of the Dockerfile: 'nothing' is not there"
    assert caught.value.line == 3


def test_a_run_that_fails_has_its_output_and_its_result(project):
    with pytest.raises(InstructionFailed) as caught:
        project.build("FROM base:1\nRUN echo oh no >&2; exit 3\n")
    error = caught.value
    assert (error.result.exit_code, error.output, error.line) == (3, "oh no", 2)
    assert str(error) == "line 2 of the Dockerfile: RUN ended with exit code 3"


def test_a_second_build_is_cached(project):
    dockerfile = "FROM base:1\nARG X=1\nRUN echo $X > /x\nWORKDIR /w\nCOPY a .\n"
    first = project.write({"a": "A"}).build(dockerfile)
    os.utime(project.folder / "a", (1, 1))
    second = project.build(dockerfile)
    assert project.cached == ["RUN", "WORKDIR", "COPY"]
    assert [layer.diff_id for layer in first.layers] == [layer.diff_id for layer in second.layers]


def test_another_content_argument_or_mode_is_another_layer(project):
    dockerfile = "FROM base:1\nARG X\nCOPY a /\nRUN echo $X > /x\n"
    project.write({"a": "A"}).build(dockerfile, args={"X": "1"})
    project.build(dockerfile, args={"X": "2"})
    assert project.cached == ["COPY"]
    (project.folder / "a").chmod(0o700)
    project.build(dockerfile, args={"X": "2"})
    assert project.cached == []
    project.write({"a": "B"}).build(dockerfile, args={"X": "2"})
    assert project.cached == []


def test_without_the_cache_all_is_done_again(project):
    project.build("FROM base:1\nRUN echo again\n")
    project.build("FROM base:1\nRUN echo again\n", no_cache=True)
    assert project.output == ["again"]


def test_another_process_finds_the_cache(project):
    project.build("FROM base:1\nRUN echo shared\n")
    command = [sys.executable, "-m", "pycontain", "build", str(project.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cached" in done.stderr
    assert done.stdout.startswith("sha256:")


def test_an_image_can_be_the_cache(project, base):
    made = project.build("FROM base:1\nRUN echo cached from\n", tags="before:1")
    shutil.rmtree(f"{base.store.path}/pycontain/builds")
    project.build("FROM base:1\nRUN echo cached from\n", cache_from="before:1")
    assert project.cached == ["RUN"]
    assert made.layers


def test_stages(project):
    project.write({"a": "A"})
    image = project.build(
        "FROM base:1 AS one\nRUN echo 1 > /1; chown 7:8 /1 || true\n"
        "FROM base:1 AS unused\nRUN exit 1\n"
        "FROM base:1\nCOPY --from=one /1 /here/\nCOPY --from=0 /1 /there\n"
    )
    assert shown(image, "cat /here/1 /there") == "1\n1\n"


def test_from_scratch(project):
    project.write({"a": "A"})
    image = project.build('FROM scratch\nCOPY a /\nCMD ["/a"]\n')
    assert image.config.config.cmd == ("/a",)
    assert len(image.layers) == 1


def test_what_the_image_says(project):
    image = project.build(
        'FROM base:1\nARG V=1\nENV A=$V B="x y" C=$A\nLABEL l=$V\nEXPOSE 80 90/udp\nVOLUME /v\nUSER me\n'
        'ENTRYPOINT ["e"]\nSTOPSIGNAL SIGINT\nHEALTHCHECK --retries=2 CMD true\nSHELL ["/bin/sh", "-ec"]\nCMD c\n'
        "MAINTAINER somebody\n"
    )
    said = image.config.config
    assert said.env == ("PATH=/bin", "A=1", "B=x y", "C=")
    assert (dict(said.labels), said.exposed_ports, said.volumes) == (
        {"l": "1"},
        ("80/tcp", "90/udp"),
        ("/v",),
    )
    assert (said.user, said.entrypoint, said.cmd) == ("me", ("e",), ("/bin/sh", "-ec", "c"))
    assert (said.stop_signal, said.healthcheck.retries, image.config.author) == ("SIGINT", 2, "somebody")


def test_each_step_is_in_the_history(project):
    image = project.build("FROM base:1\nENV A=b\nARG X=1\nRUN true\n")
    steps = [(step.created_by, step.empty_layer) for step in image.config.history[-3:]]
    assert steps == [("ENV A=b", True), ("ARG X=1", True), ("RUN |1 X=1 /bin/sh -c true", False)]


def test_a_trigger_of_the_base_is_done(project):
    project.build("FROM base:1\nONBUILD RUN echo triggered > /t\n", tags="trigger:1")
    image = project.build("FROM trigger:1\n")
    assert shown(image, "cat /t") == "triggered\n"
    assert image.config.config.on_build == ()


def test_heredocs(project):
    image = project.build(
        "FROM base:1\nARG X=1\nRUN <<EOF\necho a > /a\necho b >> /a\nEOF\n"
        'COPY <<one <<"two" /there/\n$X\none\n$X\ntwo\nRUN cat <<E > /c\nc\nE\n'
        "RUN <<EOF\n#!/bin/sh\necho $0 > /d\nEOF\n"
    )
    assert shown(image, "cat /a /there/one /there/two /c /d") == "a\nb\n1\n$X\nc\n/dev/pipes/EOF\n"


def test_a_build_can_be_repeated(project):
    project.write({"a": "A"})
    dockerfile = "FROM base:1\nRUN echo > /x; mkdir /y\nCOPY a /z/\nWORKDIR /w\n"
    made = [
        project.build(dockerfile, args={"SOURCE_DATE_EPOCH": "1000000000"}, no_cache=True) for _ in range(2)
    ]
    assert made[0].digest == made[1].digest


def test_archives_are_unpacked_by_add_and_not_by_copy(project):
    project.write({"tree/in/f": "F"})
    subprocess.run(["tar", "-C", project.folder / "tree", "-czf", project.folder / "t.tgz", "in"], check=True)
    image = project.build("FROM base:1\nADD t.tgz /added\nCOPY t.tgz /copied\nADD t.tgz /link/\n")
    assert shown(image, "cat /added/in/f /run/in/f; test -f /copied") == "FF"


def test_a_cache_outlives_builds_and_is_in_no_layer(project):
    dockerfile = "FROM base:1\nRUN --mount=type=cache,target=/cache ls /cache; echo > /cache/%s\n"
    project.build(dockerfile % "one")
    image = project.build(dockerfile % "two")
    assert project.output == ["one"]
    assert shown(image, "ls -d /cache 2>&1 || true").startswith("ls:")


def test_caches_are_collected_when_they_are_asked_for(project, store):
    dockerfile = "FROM base:1\nRUN --mount=type=cache,target=/cache,id=old ls /cache; mkdir /cache/%s\n"
    project.build(dockerfile % "one")
    assert store.gc().build_caches == store.gc(unused_for=3600).build_caches == 0
    found = store.gc(build_caches=True, dry_run=True).build_caches
    project.build(dockerfile % "two")
    assert project.output == ["one"]
    assert store.gc(unused_for=0).build_caches == found > 0
    project.build(dockerfile % "three")
    assert project.output == []


def test_a_cache_that_is_used_is_not_collected(project, store):
    def collect(news):
        if news.event == "output":
            assert store.gc(build_caches=True).build_caches == 0

    store.gc(build_caches=True)
    (project.folder / "Dockerfile").write_text(
        "FROM base:1\nRUN --mount=type=cache,target=/cache,id=used "
        "echo > /cache/a; echo here; sleep 0.1; ls /cache > /found\n"
    )
    image = pycontain.build(project.folder, progress=collect, no_cache=True)
    assert shown(image, "cat /found") == "a\n"


def test_caches_that_are_locked_do_not_wait_for_each_other(project):
    """Twice in one RUN, and in two stages in another order."""
    mount = "--mount=type=cache,sharing=locked,id=%s,target=/%s"
    one, two, again = mount % ("x", "a"), mount % ("y", "b"), mount % ("x", "c")
    project.build(
        f"FROM base:1 AS a\nRUN {one} {two} {again} touch /1\nFROM base:1 AS b\nRUN {two} {one} touch /2\n"
        "FROM base:1\nCOPY --from=a /1 /\nCOPY --from=b /2 /\n"
    )


@pytest.mark.parametrize("sharing", ["locked", "private"])
def test_caches_that_are_not_shared(project, sharing):
    project.build(
        f"FROM base:1\nRUN --mount=type=cache,id={sharing},sharing={sharing},target=/cache echo > /cache/a\n"
    )
    project.build(
        f"FROM base:1\nRUN --mount=type=cache,id={sharing},sharing={sharing},target=/cache ls /cache\n"
    )
    assert project.output == ["a"]


def test_a_bind_shows_the_context_or_a_stage_and_what_is_written_is_thrown_away(project):
    image = project.write({"dir/a": "A"}).build(
        "FROM base:1 AS one\nRUN echo 1 > /1\nFROM base:1\n"
        "RUN --mount=target=/src,source=dir,rw --mount=type=bind,from=one,source=/1,target=/one "
        "cat /src/a /one > /both; echo > /src/b\n"
    )
    assert shown(image, "cat /both; ls /src 2>/dev/null || true") == "A1\n"
    assert not (project.folder / "dir/b").exists()


def test_a_bind_that_changes_is_another_layer(project):
    dockerfile = "FROM base:1\nRUN --mount=target=/src,source=dir cat /src/a > /copy\n"
    project.write({"dir/a": "A"}).build(dockerfile)
    project.build(dockerfile)
    assert project.cached == ["RUN"]
    image = project.write({"dir/a": "B"}).build(dockerfile)
    assert shown(image, "cat /copy") == "B"


def test_a_secret_is_there_for_its_run_only_and_nowhere_else(project, store):
    """Neither in the image, nor in its history, nor in the cache or anywhere in the store, nor in what is told."""
    image = project.build(
        "FROM base:1\nRUN --mount=type=secret,id=token test $(wc -c < /run/secrets/token) = 11\n"
        "RUN --mount=type=secret,id=token,env=TOKEN test ${#TOKEN} = 11\n"
        "RUN --mount=type=secret,id=token,target=/t,required test -f /t\n",
        secrets={"token": "hunter2-own"},
    )
    assert "/t" not in shown(image, "ls -d /run/secrets /t 2>/dev/null || true")
    assert b"hunter2-own" not in image.config.encode()
    assert not any("hunter2-own" in str(news) for news in project.said)
    found = subprocess.run(["grep", "-rl", "hunter2-own", store.path], check=False, capture_output=True)
    assert found.stdout == b""


def test_a_secret_that_is_required_and_not_given_is_told(project):
    with pytest.raises(DockerfileError, match="the secret token was not given"):
        project.build("FROM base:1\nRUN --mount=type=secret,id=token,required true\n")


def test_a_tmpfs_is_in_no_layer(project):
    image = project.build(
        "FROM base:1\nRUN --mount=type=tmpfs,target=/mem,size=1M echo > /mem/a; cat /proc/mounts | grep -c /mem\n"
    )
    assert project.output == ["1"]
    assert shown(image, "ls -d /mem 2>&1 || true").startswith("ls:")


def test_a_build_that_is_interrupted_ends_its_containers(project):
    """What is told raises, as KeyboardInterrupt would: the container is killed, and nothing is visible."""

    def interrupt(news):
        if news.event == "output":
            raise KeyboardInterrupt

    (project.folder / "Dockerfile").write_text("FROM base:1\nRUN echo here; sleep 1000\n")
    with pytest.raises(KeyboardInterrupt):
        pycontain.build(project.folder, progress=interrupt, no_cache=True)


def test_a_stage_that_fails_ends_the_others(project):
    with pytest.raises(InstructionFailed, match="exit code 5"):
        project.build(
            "FROM base:1 AS long\nRUN sleep 1000\nFROM base:1 AS bad\nRUN exit 5\n"
            "FROM base:1\nCOPY --from=long / /\nCOPY --from=bad / /\n"
        )


def test_a_run_that_takes_too_long_is_killed(project):
    with pytest.raises(InstructionFailed, match=r"line 2 .* did not end within 0\.3 s") as caught:
        project.build("FROM base:1\nRUN sleep 1000\n", run_timeout=0.3)
    assert caught.value.result.timed_out


@pytest.mark.parametrize("wrong", [{"run_timeout": -1}, {"memory": "much"}, {"cpus": 0}, {"pids": -5}])
def test_limits_that_are_none_are_refused_at_once(project, wrong):
    with pytest.raises(InvalidSpec):
        project.build("FROM base:1\n", **wrong)


def test_a_limit_holds_for_a_run_or_is_refused_at_once(project):
    dockerfile = "FROM base:1\nRUN for i in $(seq 20); do sleep 0.1 & done; wait\n"
    if "pids" not in control_groups.limitable():
        with pytest.raises(HostUnsupported):
            project.build("FROM nowhere.invalid/there-is-none:1\n", pids=8)
        return
    with pytest.raises(InstructionFailed, match="line 2"):
        project.build(dockerfile, pids=8)
    project.build(dockerfile)  # which is the same to the cache, and was not stored


def test_a_run_that_needs_too_much_memory_is_told_so(project):
    if "memory" not in control_groups.limitable():
        pytest.skip("no memory controller can be set here")
    with pytest.raises(InstructionFailed) as caught:
        project.build(
            "FROM base:1\nRUN x=$(head -c 60000000 /dev/zero | tr '\\0' a); echo ${#x}\n", memory="32M"
        )
    assert caught.value.result.oom_killed
    assert any("limit on memory" in note for note in caught.value.__notes__)


class Server:
    """Files over HTTP, on loopback."""

    def __init__(self, files):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                content = files.get(self.path)
                self.send_response(404 if content is None else 200)
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server():
    opened = Server({"/dir/file.txt": b"content", "/a.tar": tar_of("inside", b"I")})
    yield opened
    opened.close()


def tar_of(name, content):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def test_add_fetches_a_url(project, server):
    """Not unpacked, unless that is asked for, and of mode 600 as for Docker."""
    image = project.build(
        f"FROM base:1\nADD {server.url}/dir/file.txt /x/\nADD {server.url}/a.tar /y/\nADD --unpack {server.url}/a.tar /z/\n"
    )
    assert shown(image, "cat /x/file.txt /z/inside; stat -c %a /x/file.txt; ls /y") == "contentI600\na.tar\n"


@pytest.mark.parametrize("name", ["sha256", "sha384", "sha512"])
def test_add_checks_what_it_fetches(project, server, name):
    good = hashlib.new(name, b"content").hexdigest()
    dockerfile = f"FROM base:1\nARG SUM\nADD --checksum={name}:$SUM {server.url}/dir/file.txt /x\n"
    assert shown(project.build(dockerfile, args={"SUM": good}), "cat /x") == "content"
    with pytest.raises(InstructionFailed, match=f"line 3 .*{good}, and should be"):
        project.build(dockerfile, args={"SUM": hashlib.new(name, b"other").hexdigest()})


@pytest.mark.parametrize("wrong", ["sha256:ab", "md5:00", "nothing", "sha256:" + "g" * 64])
def test_a_checksum_that_is_none_is_told_before_anything_is_fetched(project, wrong):
    with pytest.raises(DockerfileError, match="no digest"):
        project.build(f"FROM base:1\nADD --checksum={wrong} http://127.0.0.1:1/x /x\n")


def test_a_url_that_is_not_there_is_told(project, server):
    with pytest.raises(InstructionFailed, match="status 404"):
        project.build(f"FROM base:1\nADD {server.url}/nothing /x\n")


GIT_ENV = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    **{f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


class Repositories:
    """Git repositories that git itself serves, on loopback."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                command = ["git", "daemon", "--inetd", "--export-all", f"--base-path={folder}", str(folder)]
                subprocess.run(
                    command, stdin=self.request, stdout=self.request, check=False, stderr=subprocess.DEVNULL
                )

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"git://127.0.0.1:{self._server.server_address[1]}"

    def git(self, name, *command):
        env = {**os.environ, **GIT_ENV}
        return subprocess.run(
            ["git", "-C", self.folder / name, *command], check=True, capture_output=True, text=True, env=env
        ).stdout.strip()

    def commit(self, name, files):
        """Commit *files*; texts, or functions that make something at the path."""
        top = self.folder / name
        if not top.exists():
            top.mkdir()
            self.git(name, "init", "-q", "-b", "main")
        for path, content in files.items():
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                content(top / path)
            else:
                (top / path).write_text(content)
        self.git(name, "add", "-A")
        self.git(name, "commit", "-q", "-m", "x")
        return self.git(name, "rev-parse", "HEAD")

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.mark.parametrize("path", ["", "a%00b", ".."])
def test_a_url_without_a_file_name_is_refused(project, server, path):
    with pytest.raises(InstructionFailed, match="has no file name"):
        project.build(f"FROM base:1\nADD {server.url}/{path} /x\n")


@pytest.fixture
def repositories(tmp_path):
    if not shutil.which("git"):
        pytest.skip("git is not there")
    opened = Repositories(tmp_path / "repositories")
    yield opened
    opened.close()


def test_add_takes_a_git_repository(project, repositories):
    first = repositories.commit("r", {"a": "1", "dir/b": "B"})
    repositories.git("r", "tag", "v1")
    repositories.commit("r", {"a": "2"})
    url = f"{repositories.url}/r"
    image = project.build(
        f"FROM base:1\nADD {url} /new/\nADD {url}#v1 /old\nADD {url}#main:dir /dir\nADD {url}#{first[:10]} /short\n"
        f"ADD --checksum={first} {url}#{first} /full\nADD --keep-git-dir {url} /kept\n"
    )
    files = "/new/a /old/a /dir/b /short/a /full/a /kept/.git/HEAD"
    assert shown(image, f"cat {files} | tr -d '\\n'; ls -A /new; stat -c %u /kept/.git").startswith("21B11")
    assert shown(image, "ls -A /new") == "a\ndir\n"
    project.build(f"FROM base:1\nADD {url} /new/\nADD --keep-git-dir {url} /kept\n")
    project.build(f"FROM base:1\nADD {url} /new/\nADD --keep-git-dir {url} /kept\n")
    assert project.cached == ["ADD", "ADD"]


def test_a_commit_that_is_another_or_not_there_is_told(project, repositories):
    repositories.commit("r", {"a": "1"})
    with pytest.raises(InstructionFailed, match=r"line 2 .*and should have"):
        project.build(f"FROM base:1\nADD --checksum={'0' * 40} {repositories.url}/r /x\n")
    with pytest.raises(InstructionFailed, match=r"line 2 .*git fetch failed"):
        project.build(f"FROM base:1\nADD {repositories.url}/r#nothing /x\n")


def test_the_owners_passwords_are_not_for_repositories(project, repositories, monkeypatch, tmp_path):
    """netrc(5): curl would send them to whatever host the Dockerfile names."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers.get("Authorization"))
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="here"')
            self.end_headers()

        def log_message(self, *_):
            pass

    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        try:
            with pytest.raises(InstructionFailed, match="git fetch failed"):
                project.build(f"FROM base:1\nADD http://127.0.0.1:{served.server_port}/r.git /x\n")
        finally:
            served.shutdown()
            thread.join()
    assert set(asked) == {None}


def test_links_of_a_repository_lead_nowhere_outside(project, repositories):
    repositories.commit("r", {"out": lambda path: path.symlink_to("/etc")})
    with pytest.raises(InstructionFailed, match="is not there"):
        project.build(f"FROM base:1\nADD {repositories.url}/r#main:out /x\n")


def test_a_submodule_is_fetched_and_leads_to_no_other_transport(project, repositories, tmp_path):
    repositories.commit("inner", {"deep": "D"})
    add = ("-c", "protocol.file.allow=always", "submodule", "add", "-q")
    repositories.commit("r", {"a": "1"})
    repositories.git("r", *add, "../inner", "sub")
    repositories.commit("r", {})
    image = project.build(f"FROM base:1\nADD {repositories.url}/r /x\n")
    assert shown(image, "cat /x/sub/deep; ls -A /x/sub") == "Ddeep\n"
    for url in (
        str(repositories.folder / "inner"),
        f"ext::touch {tmp_path}/run",
        f"--upload-pack=touch {tmp_path}/run",
    ):
        repositories.git("r", "config", "-f", ".gitmodules", "submodule.sub.url", url)
        repositories.commit("r", {})
        with pytest.raises(InstructionFailed):
            project.build(f"FROM base:1\nADD {repositories.url}/r /x\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "url",
    [
        "git@-oProxyCommand=touch:x",
        "ssh://-oProxyCommand=x/y",
        "ssh://user@-oProxyCommand=x/y",
        "git@host:-x",
        "https://host/x.git#--upload-pack=x",
        "https://host/x.git#-x",
        "https://host/x.git#a..b",
        "https://host/x.git#refs/heads/a:refs/heads/b/../../..",
        "https://host/x.git#+a",
        "git://-host/x",
    ],
)
def test_a_hostile_address_of_a_repository_is_refused(project, url):
    with pytest.raises(DockerfileError, match="line 2"):
        project.build(f"FROM base:1\nADD {url} /x\n")


@pytest.mark.parametrize("url", ["ext::sh", "file:///etc", "/nowhere"])
def test_other_addresses_are_paths_of_the_context(project, url):
    with pytest.raises(InstructionFailed, match="is not there"):
        project.build(f"FROM base:1\nADD {url} /x\n")


def test_git_that_is_not_there_is_named(project, monkeypatch, tmp_path):
    monkeypatch.setattr("pycontain.building.git.find_program", lambda name: None)
    with pytest.raises(InstructionFailed) as caught:
        project.build("FROM base:1\nADD git://127.0.0.1:1/x /x\n")
    assert "apt install git" in caught.value.__notes__[-1]


def test_a_server_that_does_not_answer_ends_with_the_build(project):
    """What fetches is killed when another stage fails."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"git://127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(InstructionFailed, match="exit code 5"):
            project.build(
                f"FROM base:1 AS long\nADD {url} /x\nFROM base:1 AS bad\nRUN exit 5\n"
                "FROM base:1\nCOPY --from=long / /\nCOPY --from=bad / /\n"
            )


# --- attacks --------------------------------------------------------------------------------------------


def test_links_of_the_context_lead_nowhere_outside(project, tmp_path):
    (tmp_path / "outside").write_text("secret")
    os.symlink(tmp_path / "outside", project.folder / "absolute")
    os.symlink("../outside", project.folder / "relative")
    os.symlink("..", project.folder / "up")
    os.symlink("/", project.folder / "root")
    for source in ("absolute", "relative", "up/outside", f"root{tmp_path}/outside", "../outside"):
        with pytest.raises(InstructionFailed, match="is not there"):
            project.build(f"FROM base:1\nCOPY {source} /stolen\n")


def test_links_in_what_is_copied_stay_links(project, tmp_path):
    (tmp_path / "outside").write_text("secret")
    project.write({"dir/a": "A"})
    os.symlink(tmp_path / "outside", project.folder / "dir" / "link")
    image = project.build("FROM base:1\nCOPY dir /dir\n")
    assert shown(image, "readlink /dir/link") == f"{tmp_path}/outside\n"


def test_a_stage_cannot_lead_copy_out_of_it(project):
    """Its /etc is a link to that of the host, and so are others; all of it means the stage's own root."""
    with pytest.raises(InstructionFailed, match="is not there"):
        project.build(
            "FROM base:1 AS bad\nRUN ln -s /../../../../root/.ssh /way; ln -s /proc/1/root /proc-root\n"
            "FROM base:1\nCOPY --from=bad /way/authorized_keys /proc-root/etc/shadow /x/\n"
        )


def test_a_destination_leads_to_no_place_outside(project):
    image = project.write({"a": "A"}).build(
        "FROM base:1\nRUN ln -s ../../../../../../../tmp /out; ln -s /proc/self/cwd /cwd\nCOPY a /out/escaped-a\n"
    )
    assert shown(image, "cat /tmp/escaped-a") == "A"
    assert not os.path.exists("/tmp/escaped-a")


def test_a_link_that_leads_to_itself_is_told(project):
    with pytest.raises(InstructionFailed, match="too many links"):
        project.write({"a": "A"}).build("FROM base:1\nRUN ln -s loop /loop\nCOPY a /loop/a\n")


def test_arguments_cannot_grow_without_end(project):
    lines = ["ARG A0=xxxxxxxxxx"] + [
        f"ARG A{n + 1}=$A{n}$A{n}$A{n}$A{n}$A{n}$A{n}$A{n}$A{n}" for n in range(12)
    ]
    with pytest.raises(DockerfileError, match="cannot be expanded"):
        project.build("\n".join([*lines, "FROM base:1"]))


def test_an_archive_cannot_write_out_of_the_image(project):
    import io
    import tarfile

    with tarfile.open(project.folder / "bad.tar", "w") as tar:
        link = tarfile.TarInfo("way")
        link.type, link.linkname = tarfile.SYMTYPE, "/tmp"
        tar.addfile(link)
        for name in ("../../../../tmp/escaped-b", "way/escaped-c"):
            entry = tarfile.TarInfo(name)
            entry.size = 1
            tar.addfile(entry, io.BytesIO(b"x"))
    project.build("FROM base:1\nADD bad.tar /\n")
    assert not os.path.exists("/tmp/escaped-b")
    assert not os.path.exists("/tmp/escaped-c")


def test_links_of_an_archive_lead_on_in_it(project):
    """The destination is its root: nothing of it is above."""
    import io
    import tarfile

    with tarfile.open(project.folder / "t.tar", "w") as tar:
        link = tarfile.TarInfo("up")
        link.type, link.linkname = tarfile.SYMTYPE, "../.."
        tar.addfile(link)
        entry = tarfile.TarInfo("up/etc/f")
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"x"))
    image = project.build("FROM base:1\nADD t.tar /a/b\n")
    assert shown(image, "cat /a/b/etc/f; readlink /a/b/up") == "x../..\n"


def test_a_context_that_changes_meanwhile_never_leads_out(project, tmp_path):
    """Somebody swaps a directory of it for a link out of it, all the time."""
    import threading

    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").write_text("secret")
    (project.folder / "d").mkdir()
    (project.folder / "d" / "f").write_text("own")
    os.symlink(tmp_path / "outside", project.folder / "away")
    ended = threading.Event()

    def swap():
        while not ended.is_set():
            for source, target in (("d", "kept"), ("away", "d"), ("d", "away"), ("kept", "d")):
                os.rename(project.folder / source, project.folder / target)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(8):
            try:
                image = project.build("FROM base:1\nCOPY d/f /f\n", no_cache=True)
            except InstructionFailed:  # it was away just then
                continue
            assert shown(image, "cat /f") == "own"
    finally:
        ended.set()
        thread.join()


def test_a_whiteout_in_the_context_is_refused(project):
    """In a layer it would hide what is below."""
    with pytest.raises(InstructionFailed, match="whiteout"):
        project.write({"dir/.wh.bin": ""}).build("FROM base:1\nCOPY dir /\n")


def test_circles_are_refused(project):
    with pytest.raises(DockerfileError) as caught:
        project.build("FROM base:1 AS a\nCOPY --from=b /x /\nFROM base:1 AS b\nCOPY --from=a /x /\n")
    assert "circle: b → a → b" in str(caught.value)


def test_a_build_that_fails_leaves_no_name_and_no_partial_blob(project, store):
    names = store.names.list()
    with pytest.raises(InstructionFailed):
        project.build("FROM base:1\nRUN echo new > /new\nRUN exit 1\n", tags="failed:1", no_cache=True)
    assert store.names.list() == names
    assert os.listdir(store.folder.partial) == []


def test_a_build_that_is_killed_leaves_nothing_and_the_next_one_goes_on(project, store):
    names = store.names.list()
    (project.folder / "Dockerfile").write_text(
        "FROM base:1\nRUN echo done > /done\nRUN echo here; sleep 1000\n"
    )
    command = [sys.executable, "-m", "pycontain", "build", "-t", "killed:1", str(project.folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as building:
        while "| here" not in building.stderr.readline():
            pass
        building.kill()
    assert store.names.list() == names
    project.build("FROM base:1\nRUN echo done > /done\n")
    assert project.cached == ["RUN"]


def test_records_of_layers_that_are_collected_go(project, store):
    project.build("FROM base:1\nRUN echo once\n", tags="once:1")
    folder = f"{store.path}/pycontain/builds"
    before = set(os.listdir(folder))
    Image.find("once:1").untag("once:1")
    store.gc(remove_tree=lambda _: None)
    assert set(os.listdir(folder)) <= before


@pytest.mark.parametrize("target", ["/", "/proc/self", "/sys", "../../x", "/a/../.."])
def test_a_mount_cannot_take_the_place_of_the_containers_own(project, target):
    with pytest.raises(DockerfileError):
        project.build(f"FROM base:1\nRUN --mount=type=cache,target={target} true\n")


def test_a_network_that_there_is_not_is_refused_at_once(project):
    with pytest.raises(InvalidSpec):
        project.build("FROM base:1\n", network="moon")


def test_an_agent_that_is_not_there_is_told_with_its_line(project):
    with pytest.raises(InstructionFailed) as caught:
        project.build("FROM base:1\nRUN --mount=type=ssh true\n", ssh={"default": "/nonexistent"})
    assert caught.value.line == 2


@pytest.fixture
def agent(tmp_path):
    path = tmp_path / "agent"
    with subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as running:
        running.stdout.readline()  # it says where it listens
        yield {"default": str(path)}
        running.terminate()


@pytest.mark.skipif(not shutil.which("ssh-agent"), reason="ssh-agent is not there")
def test_an_agent_answers_in_its_run(project, agent):
    """A real one, which talks to nobody but its own user."""
    for path in {line.split()[-2] for line in ldd("ssh-add") if "/" in line}:
        target = project.folder / "tree" / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shutil.copy(shutil.which("ssh-add"), project.folder / "tree" / "ssh-add")
    project.build("FROM base:1\nCOPY tree /\nRUN --mount=type=ssh /ssh-add -l || test $? = 1\n", ssh=agent)
    assert project.output == ["The agent has no identities."]


def ldd(program):
    found = subprocess.run(["ldd", shutil.which(program)], check=True, capture_output=True, text=True)
    return found.stdout.splitlines()


@pytest.mark.skipif(not shutil.which("ssh-agent"), reason="ssh-agent is not there")
def test_an_agent_belongs_to_whom_the_mount_says(project, agent, privilege):
    stat = "FROM base:1\nRUN --mount=type=ssh%s stat -c '%%u %%g %%a' $SSH_AUTH_SOCK\n"
    project.build(stat % "", ssh=agent)
    assert project.output == ["0 0 600"]
    if privilege != "single":
        project.build(stat % ",uid=7,gid=8,mode=0660", ssh=agent)
        assert project.output == ["7 8 660"]


@pytest.mark.parametrize("kind", ["secret,id=t,target=/x", "cache,target=/x"])
def test_a_mount_belongs_to_whom_it_says(project, kind, privilege):
    dockerfile = f"FROM base:1\nRUN --mount=type={kind},uid=7,gid=8,mode=0750 stat -c '%u %g %a' /x\n"
    if privilege == "single":
        with pytest.raises(DockerfileError, match="this user has one id"):
            project.build(dockerfile, secrets={"t": "x"})
    else:
        project.build(dockerfile, secrets={"t": "x"})
        assert project.output == ["7 8 750"]


def test_a_secret_anywhere_is_the_users(project, privilege):
    """Also beside /run/secrets; it cannot be changed there either."""
    user = "" if privilege == "single" else "USER me\n"
    project.build(
        f"FROM base:1\n{user}RUN --mount=type=secret,id=t,target=/x cat /x; echo; echo no > /x || echo kept\n",
        secrets={"t": "value"},
    )
    assert [line for line in project.output if "sh:" not in line] == ["value", "kept"]


@pytest.mark.parametrize("options", ["uid=-1", "gid=x", "mode=9", "uid=99999999999", "mode=77777"])
def test_owners_and_modes_that_there_are_not_are_told_with_their_line(project, options):
    with pytest.raises(DockerfileError, match="line 2"):
        project.build(f"FROM base:1\nRUN --mount=type=secret,id=t,{options} true\n", secrets={"t": "x"})


def test_a_proxy_is_there_for_run_and_in_no_image(project):
    image = project.build(
        "FROM base:1\nARG HTTP_PROXY\nRUN echo $HTTP_PROXY | wc -c\n",
        args={"HTTP_PROXY": "http://me:pw@proxy"},
    )
    assert project.output == ["19"]
    assert b"pw@" not in image.config.encode()


def test_a_run_without_a_network_says_so_when_it_fails(project):
    with pytest.raises(InstructionFailed) as caught:
        project.build("FROM base:1\nRUN exit 1\n")
    assert any('network="private"' in note for note in caught.value.__notes__)


def test_umoci_unpacks_what_was_built(project, store, tmp_path, privilege):
    if not shutil.which("umoci") or privilege != "root":
        pytest.skip("umoci is not there, or not as root")
    project.write({"a": "A"}).build("FROM base:1\nCOPY a /x/\nRUN rm -r /run/there\n", tags="umoci:1")
    command = [
        "umoci",
        "unpack",
        "--image",
        f"{store.path}:docker.io/library/umoci:1",
        str(tmp_path / "bundle"),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:  # a tag of umoci's has no slashes; then by a copy
        subprocess.run(
            ["skopeo", "copy", "-q", f"oci:{store.path}:docker.io/library/umoci:1", f"oci:{tmp_path}/copy:x"],
            check=True,
        )
        command[3] = f"{tmp_path}/copy:x"
        subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "bundle/rootfs/x/a").read_text() == "A"
    assert not (tmp_path / "bundle/rootfs/run/there").exists()


def test_a_context_that_is_none_is_refused(base, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    with pytest.raises(BuildError):
        pycontain.build(tmp_path / "nothing")


def test_other_programs_read_the_image(project, store):
    project.write({"a": "A"}).build("FROM base:1\nCOPY a /x/\nRUN rm -r /run/there\n", tags="read:1")
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not there")
    command = ["skopeo", "inspect", "--config", f"oci:{store.path}:docker.io/library/read:1"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["history"][-1]["created_by"] == "RUN /bin/sh -c rm -r /run/there"
