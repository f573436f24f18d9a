"""``python -m pycontain`` as a shell sees it: streams, signals, exit status."""

import json
import os
import pty
import signal
import subprocess
import sys

import control_groups
import pytest

import pycontain
import pycontain.commands.options
import pycontain.commands.registries
import pycontain.commands.run
from pycontain.registry.settings import settings_of

CLI = (sys.executable, "-m", "pycontain")
LOOP = "trap 'echo got {0}; exit 9' {0}; echo ready; while :; do sleep 0.05; done"


def cli(*words, **options):
    """Run it to the end, with text on both streams."""
    return subprocess.run([*CLI, *words], capture_output=True, text=True, timeout=60, check=False, **options)


def run(*words, **options):
    return cli("run", *words, **options)


def started(*words):
    """A running one, whose payload has said that it is ready."""
    process = subprocess.Popen([*CLI, "run", *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


# --- streams --------------------------------------------------------------------------------------------


def test_both_streams_of_the_payload_are_ours():
    done = run("host:", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_output_arrives_while_the_payload_runs():
    """The payload goes on only when its first line was read."""
    with subprocess.Popen(
        [*CLI, "run", "-i", "host:", "sh", "-c", "echo first; read answer; echo $answer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "first\n"
        print("second", file=process.stdin, flush=True)
        assert process.stdout.readline() == "second\n"


def test_input_is_passed_on_when_asked_for():
    assert run("-i", "host:", "cat", input="hello").stdout == "hello"


def test_input_is_empty_when_not_asked_for():
    assert run("host:", "cat", input="hello").stdout == ""


def test_more_than_a_pipe_holds_passes_in_both_directions():
    text = "0123456789abcde\n" * 100_000
    assert run("-i", "host:", "cat", input=text).stdout == text


def test_a_payload_that_does_not_read_its_input_holds_nothing_up():
    assert run("-i", "host:", "true", input="x" * 1_000_000).returncode == 0


def test_a_reader_that_leaves_ends_the_payload():
    """The payload gets the SIGPIPE that it would have got without us."""
    with subprocess.Popen([*CLI, "run", "host:", "yes"], stdout=subprocess.PIPE) as process:
        process.stdout.read(2)
        process.stdout.close()
        assert process.wait(60) == 128 + signal.SIGPIPE


def test_a_slow_reader_loses_nothing():
    with subprocess.Popen(
        [*CLI, "run", "host:", "head", "-c", "300000", "/dev/zero"], stdout=subprocess.PIPE, bufsize=0
    ) as process:
        # Far less than was written: the payload has ended by now, or waits for us.
        first = process.stdout.read(10)
        rest = b"".join(iter(lambda: process.stdout.read(4096), b""))
    assert len(first + rest) == 300_000
    assert process.returncode == 0


def test_a_non_blocking_output_loses_nothing():
    """Some programs give their children such pipes; the last bytes come when the payload has gone."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    process = subprocess.Popen([*CLI, "run", "host:", "head", "-c", "300000", "/dev/zero"], stdout=theirs)
    os.close(theirs)
    with open(ours, "rb") as stream:
        assert len(stream.read()) == 300_000
    assert process.wait(60) == 0


def test_a_full_disk_is_an_error_of_ours():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*CLI, "run", "host:", "echo", "x"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 125
    assert done.stderr == "pycontain: standard output broke: No space left on device\n"


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_closed_stream_is_an_empty_one(closed):
    """Nothing that is opened later may take its number and get the payload's bytes."""
    words = [*CLI, "run", "-i", "host:", "sh", "-c", "cat; echo out; echo err >&2"]
    script = f'exec "$@" {closed}<&-'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *words], input="", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert done.stdout == ("" if closed == 1 else "out\n")
    assert done.stderr == ("" if closed == 2 else "err\n")


def test_the_payload_is_not_given_our_descriptors():
    """Each of its streams is a pipe, whatever ours are: a file could be opened anew through /proc/self/fd."""
    with open("/etc/hostname", "rb") as file:
        done = run("-i", "host:", "sh", "-c", "readlink /proc/self/fd/0", stdin=file)
    assert done.stdout.startswith("pipe:")


def test_a_terminal_of_ours_is_not_one_of_the_payload():
    """It could be made to type commands to our shell."""
    leader, follower = pty.openpty()
    with open(leader, "rb", buffering=0) as terminal:
        process = subprocess.Popen(
            [*CLI, "run", "-i", "host:", "sh", "-c", "tty; test -t 1 || echo no terminal"],
            stdin=follower,
            stdout=follower,
        )
        os.close(follower)
        assert process.wait(60) == 0
        assert terminal.read(100) == b"not a tty\r\nno terminal\r\n"


# --- how it ends ----------------------------------------------------------------------------------------


def test_the_exit_status_is_the_payload_s():
    assert run("host:", "sh", "-c", "exit 42").returncode == 42


def test_the_exit_status_without_an_init_is_the_payload_s():
    assert run("--no-init", "host:", "sh", "-c", "exit 42").returncode == 42


def test_a_payload_that_a_signal_ended_exits_with_128_and_its_number():
    assert run("host:", "sh", "-c", "kill -KILL $$").returncode == 137


def test_a_payload_that_is_not_there_exits_with_127():
    done = run("host:", "no-such-program")
    assert done.returncode == 127
    assert done.stderr.startswith("pycontain: no-such-program is not in the PATH of the container\n  ")


def test_a_payload_that_cannot_be_executed_exits_with_126():
    assert run("host:", "/etc/passwd").returncode == 126


def test_an_error_of_ours_exits_with_125_and_says_it_in_a_sentence():
    done = run("rootfs:/no/such/tree", "true")
    assert done.returncode == 125
    assert done.stderr.startswith("pycontain: there is nothing at /no/such/tree\n  ")
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback():
    done = run("--debug", "rootfs:/no/such/tree", "true")
    assert done.returncode == 125
    assert done.stderr.startswith("Traceback")


def test_a_timeout_kills_and_exits_with_124():
    done = run("--timeout", "0.5", "host:", "sleep", "60")
    assert done.returncode == 124
    assert "did not end within 0.5 s and was killed" in done.stderr


def test_a_timeout_does_not_wait_for_who_reads(tmp_path):
    """Our output is full and nobody reads it; that the payload was killed shows at the other end of its FIFO."""
    os.mkfifo(tmp_path / "fifo")
    words = (
        "--timeout",
        "0.5",
        "-v",
        f"{tmp_path}:/seen",
        "host:",
        "sh",
        "-c",
        "exec 3>/seen/fifo; exec yes",
    )
    with subprocess.Popen([*CLI, "run", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert (tmp_path / "fifo").read_bytes() == b""
        assert process.stdout.read().startswith(b"y\ny\n")
        assert b"was killed" in process.stderr.read()
    assert process.returncode == 124


# --- signals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2"])
def test_a_signal_goes_to_the_payload(name):
    with started("host:", "sh", "-c", LOOP.format(name)) as process:
        process.send_signal(signal.Signals[f"SIG{name}"])
        assert process.stdout.read() == f"got {name}\n"
    assert process.returncode == 9


def test_a_payload_that_takes_no_care_of_a_signal_ends_by_it():
    with started("host:", "sh", "-c", "echo ready; exec sleep 60") as process:
        process.terminate()
    assert process.returncode == 128 + signal.SIGTERM


def test_a_signal_that_is_ignored_here_stays_ignored():
    """As under nohup."""
    script = "trap '' HUP; exec \"$@\""
    payload = ("sh", "-c", "echo ready; read line; echo $line")
    words = ["sh", "-c", script, "sh", *CLI, "run", "-i", "host:", *payload]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        assert process.communicate("still here\n", timeout=60)[0] == "still here\n"
    assert process.returncode == 0


def test_killing_the_command_line_kills_the_container(tmp_path):
    """The other end of a FIFO says that nobody is left who has it open."""
    os.mkfifo(tmp_path / "fifo")
    payload = ("sh", "-c", "exec 3>/seen/fifo; echo ready; sleep 60 & wait")
    with (
        subprocess.Popen(
            [*CLI, "run", "-v", f"{tmp_path}:/seen", "host:", *payload], stdout=subprocess.PIPE, text=True
        ) as process,
        open(tmp_path / "fifo", "rb") as fifo,
    ):
        assert process.stdout.readline() == "ready\n"
        process.kill()
        assert fifo.read() == b""
    assert process.returncode == -signal.SIGKILL


# --- options --------------------------------------------------------------------------------------------


def test_options_end_at_the_image():
    done = run("host:", "printf", "%s.", "-e", "A=1", "--timeout", "--", "-i")
    assert done.stdout == "-e.A=1.--timeout.--.-i."


def test_two_dashes_after_the_image_are_the_payload_s():
    assert run("--entrypoint", "echo", "host:", "--", "x").stdout == "-- x\n"


def test_two_dashes_before_the_image_end_the_options():
    assert run("--", "host:", "echo", "x").stdout == "x\n"


def test_a_variable_with_a_value_is_set_and_one_without_is_passed_on():
    done = run(
        "-e", "A=1=2", "--env", "OURS", "-e", "ABSENT", "host:", "sh", "-c", "echo $A $OURS ${ABSENT-unset}",
        env=os.environ | {"OURS": "3"},
    )  # fmt: skip
    assert done.stdout == "1=2 3 unset\n"


def test_where_who_and_under_what_name():
    done = run(
        "-w", "/usr", "-u", "0:0", "--hostname", "box", "--name", "n", "-l", "a=b", "-l", "c",
        "--stop-signal", "INT", "--rm", "host:", "sh", "-c", "pwd; id -u; hostname",
    )  # fmt: skip
    assert done.stdout == "/usr\n0\nbox\n"


def test_a_volume_shows_a_folder_and_ro_protects_it(tmp_path):
    (tmp_path / "file").write_text("content")
    done = run("-v", f"{tmp_path}:/seen:ro", "host:", "sh", "-c", "cat /seen/file; touch /seen/new")
    assert done.stdout == "content"
    assert done.returncode == 1


def test_a_volume_may_be_relative_to_where_we_are(tmp_path):
    done = run("--volume", ".:/seen", "host:", "touch", "/seen/new", cwd=tmp_path)
    assert (done.returncode, (tmp_path / "new").exists()) == (0, True)


def test_a_tmpfs_has_its_size_and_mode():
    done = run(
        "--tmpfs", "/scratch:size=64k,mode=0700", "host:", "sh", "-c",
        "stat -c %a /scratch; head -c 100000 /dev/zero >/scratch/x",
    )  # fmt: skip
    assert done.stdout == "700\n"
    assert "No space left" in done.stderr


def test_a_read_only_root_cannot_be_written():
    assert "Read-only" in run("--read-only", "host:", "touch", "/x").stderr


def test_an_entrypoint_is_put_before_the_arguments():
    assert run("--entrypoint", "echo", "host:", "a", "b").stdout == "a b\n"


def test_an_empty_entrypoint_is_none():
    assert run("--entrypoint", "", "host:", "echo", "a").stdout == "a\n"


def test_capabilities_are_taken_away_and_granted():
    done = run(
        "--cap-drop",
        "ALL",
        "--cap-add",
        "KILL",
        "--cap-add",
        "net_raw",
        "host:",
        "grep",
        "CapBnd",
        "/proc/self/status",
    )
    assert int(done.stdout.split()[1], 16) == 1 << 5 | 1 << 13


@pytest.mark.parametrize(("limit", "shown"), [("nofile=64:128", "64\n128\n"), ("nofile=77", "77\n77\n")])
def test_a_limit_has_a_soft_and_a_hard_value(limit, shown):
    assert run("--ulimit", limit, "host:", "sh", "-c", "ulimit -Sn; ulimit -Hn").stdout == shown


def test_the_container_as_a_whole_is_limited():
    if not {"memory", "pids"} <= control_groups.limitable().keys():
        pytest.skip("this user may not limit memory and pids")
    limits = ("--memory", "48M", "--memory-swap", "48M", "--pids-limit", "20", "--cpu-shares", "512")
    assert run(*limits, "host:", "true").returncode == 0
    assert run(*limits, "host:", "python3", "-c", "bytearray(256 << 20)").returncode == 128 + signal.SIGKILL


def test_no_limit_is_said_as_docker_does():
    """Of what untrusted() has limited before."""
    limits = ["--memory", "64M", "--memory-swap", "-1", "--pids-limit", "-1"]
    options = pycontain.commands.options.container_parser("run", description="").parse_args(
        ["--untrusted", *limits, "host:"]
    )
    container, _ = pycontain.commands.options.read_container(options)
    found = container.spec.limits
    assert (found.memory, found.swap, found.pids) == (64 << 20, None, None)


def test_a_plan_shows_the_limits():
    if not {"memory", "cpu"} <= control_groups.limitable().keys():
        pytest.skip("this user may not limit memory and cpu")
    shown = run("-m", "64M", "--cpus", "1.5", "--plan", "host:", "true").stdout
    assert '"67108864"' in shown
    assert '"150000' in shown


def test_a_limit_may_be_unlimited():
    assert run("--ulimit", "core=0:unlimited", "--plan", "host:", "true").returncode == 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["-v", ".cache:/x", "host:"], "no name for a volume"),
        (["-v", "/x", "host:"], "it is SRC:DST"),
        (["-v", "/x:/y:wild", "host:"], "it is SRC:DST"),
        (["--tmpfs", "/x:colour=red", "host:"], "not 'colour=red'"),
        (["--tmpfs", "/x:mode=9", "host:"], "not 'mode=9'"),
        (["--mount", "type=moon,target=/x", "host:"], "its type is one of bind"),
        (["--mount", "type=bind,target=/x", "host:"], "it has no source"),
        (["--mount", "type=tmpfs,target=/x,colour=red", "host:"], "does not take 'colour'"),
        (["--security-opt", "apparmor=mine", "host:"], "pycontain cannot do that"),
        (["--security-opt", "no-new-privileges=false", "host:"], "it is seccomp=default"),
        (["--health-interval", "5s", "host:"], "go with --health-cmd"),
        (["--health-cmd", "x", "--health-timeout", "soon", "host:"], "it is a time such as 30s"),
        (["--userns", "moon", "host:"], "no user namespace"),
        (["--secret", "src=/x", "host:"], "has no id"),
        (["--env-file", "/nonexistent", "host:"], "cannot be read"),
        (["--mirror", "not a host", "alpine"], "is no mirror"),
        (["--ulimit", "nofile=many", "host:"], "NAME=SOFT"),
        (["-p", "http", "host:"], "-p http: it is PORT"),
        (["-p", "80/sctp", "host:"], "'sctp' is no protocol"),
        (["--memory", "much", "host:"], "memory: 'much' is no size"),
        (["--cpus", "two", "host:"], "--cpus two: it is a number"),
        (["--pids-limit", "0", "host:"], "pids: 0 is no whole number"),
        (["-m", "64M", "--memory-swap", "32M", "host:"], "memory and swap together"),
        (["--memory-swap", "1G", "host:"], "memory and swap together"),
        (["--device-read-bps", "1M", "host:"], "is no disk"),
        (["--ulimit", "nofile=1:2:3", "host:"], "NAME=SOFT"),
        (["--ulimit", "nofail=1", "host:"], "'nofail' is no resource limit"),
        (["--cap-add", "FLY", "host:"], "'FLY' is no capability"),
        (["-e", "=x", "host:"], "'' is no name for a variable"),
        (["--timeout", "soon", "host:"], "invalid float value: 'soon'"),
        (["--timeout", "-1", "host:", "true"], "timeout=-1.0 is no number of seconds"),
        (["--no-such-option", "host:"], "--no-such-option"),
        (["oci:"], "names no path"),
        ([], "there is no image"),
        (["host:"], "there is no command"),
    ],
)
def test_a_wrong_command_line_exits_with_125_and_a_sentence(words, complaint):
    done = run(*words)
    assert done.returncode == 125
    assert done.stderr.startswith("pycontain: ")
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


# --- what is planned and what it took -------------------------------------------------------------------


@pytest.mark.parametrize("words", [["plan"], ["run", "--plan"]])
def test_a_plan_is_printed_and_nothing_is_done(words, tmp_path):
    done = cli(*words, "-v", f"{tmp_path}:/seen", "host:", "touch", "/seen/new")
    assert done.stdout.startswith("# host: touch /seen/new on Linux ")
    assert "pivot_root" in done.stdout
    assert not (tmp_path / "new").exists()


def test_a_profile_names_every_phase_and_the_steps():
    lines = run("--profile", "host:", "true").stderr.splitlines()
    words = [line.split() for line in lines[1:]]
    phases = [fields[1] for fields in words if len(fields) == 2]
    assert phases == ["resolve", "snapshot", "clone", "setup", "run"]
    assert any("pivot_root" in line for line in lines)
    assert float(words[0][0]) > 0


def test_a_profile_gives_each_time_to_its_own_step():
    """The steps that have a time are the last ones before the execution, in the plan's own numbers."""
    lines = run("--profile", "host:", "true").stderr.splitlines()
    numbers = [int(line.split()[1]) for line in lines if len(line.split()) > 2 and line.split()[1].isdigit()]
    plan = pycontain.Container("host:").plan("true")
    assert numbers == list(range(numbers[0], len(plan) - 1))


# --- the other verbs ------------------------------------------------------------------------------------


def test_the_doctor_exits_with_0_where_containers_start():
    done = cli("doctor")
    assert done.returncode == 0, done.stdout
    assert "Containers start here" in done.stdout


def test_the_doctor_exits_with_1_where_they_do_not():
    done = cli("doctor", env=os.environ | {"PYCONTAIN_STATE": "/proc/nothing"})
    assert done.returncode == 1
    assert "No container starts here" in done.stdout


def test_the_doctor_speaks_json():
    told = json.loads(cli("doctor", "--json").stdout)
    assert told["ok"] is True
    assert {check["name"] for check in told["checks"]} >= {"Linux", "first container"}


@pytest.mark.parametrize("word", ["version", "--version"])
def test_the_version_is_printed(word):
    assert cli(word).stdout == f"pycontain {pycontain.__version__}\n"


@pytest.mark.parametrize("word", ["help", "--help", "-h"])
def test_help_lists_the_verbs(word):
    done = cli(word)
    assert done.returncode == 0
    assert "\n  run " in done.stdout
    assert "\n  doctor " in done.stdout


@pytest.mark.parametrize("verb", ["run", "plan", "doctor", "version"])
def test_every_verb_has_help(verb):
    done = cli(verb, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: pycontain {verb}")


def test_an_unknown_verb_is_answered_with_the_one_that_was_meant():
    done = cli("rnu", "host:")
    assert done.returncode == 125
    assert done.stderr == "pycontain: 'rnu' is no verb of pycontain\n  did you mean run?\n"


def test_a_verb_like_no_other_is_answered_with_all():
    assert "there are run, plan, " in cli("xyzzy").stderr


def test_no_verb_is_an_error_with_help():
    done = cli()
    assert (done.returncode, done.stdout) == (125, "")
    assert "usage: pycontain VERB" in done.stderr


def test_a_reader_of_a_plan_may_leave():
    process = subprocess.Popen(
        [*CLI, "plan", "host:", "true"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    with process.stderr as errors:
        assert errors.read() == b""
    assert process.wait(60) == 128 + signal.SIGPIPE


# --- walls ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "device", ["/dev/full:/dev/brim", "/dev/full:/dev/brim:rw", "/dev/full:/dev/brim:rwm"]
)
def test_a_device_is_given_as_docker_run_has_it(device):
    assert run("--device", device, "host:", "test", "-c", "/dev/brim").returncode == 0


def test_a_device_is_at_the_same_path_and_may_have_its_access_behind_it():
    device = pycontain.commands.options.container_parser("run", description="").parse_args(
        ["--device", "/dev/full:rw", "--device", "/dev/zero", "host:"]
    )
    container, _ = pycontain.commands.options.read_container(device)
    assert [(one.target, one.access) for one in container.spec.devices] == [
        ("/dev/full", "rw"),
        ("/dev/zero", "rwm"),
    ]


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("80", "127.0.0.1:*->80/tcp"),
        ("8080:80", "127.0.0.1:8080->80/tcp"),
        ("0.0.0.0:5353:53/udp", "0.0.0.0:5353->53/udp"),
        ("127.0.0.2::80", "127.0.0.2:*->80/tcp"),
        ("[::1]:8080:80", "[::1]:8080->80/tcp"),
    ],
)
def test_a_port_is_published_as_docker_writes_it(text, published):
    options = pycontain.commands.options.container_parser("run", description="").parse_args(
        ["-p", text, "host:"]
    )
    container, _ = pycontain.commands.options.read_container(options)
    assert list(map(str, container.spec.networking.published)) == [published]


def described(*words):
    options = pycontain.commands.options.container_parser("run", description="").parse_args([*words, "host:"])
    container, _ = pycontain.commands.options.read_container(options)
    return container


def test_a_mount_in_words_is_the_same_as_in_short(tmp_path):
    assert described("--mount", f"type=bind,src={tmp_path},dst=/x,readonly") == described(
        "-v", f"{tmp_path}:/x:ro"
    )
    assert described("--mount", "source=cache,target=/x") == described("-v", "cache:/x")
    words = "type=tmpfs,destination=/x,tmpfs-size=1M,tmpfs-mode=0700"
    assert described("--mount", words) == described("--tmpfs", "/x:size=1M,mode=700")


def test_health_is_described_as_for_docker():
    words = (
        "--health-cmd",
        "true",
        "--health-interval",
        "1m30s",
        "--health-timeout",
        "2",
        "--health-retries",
        "5",
    )
    assert described(*words) == described().health("true", interval=90, timeout=2, retries=5)
    assert described("--no-healthcheck") == described().health()


def test_a_filter_a_user_namespace_and_landlock_are_chosen(tmp_path):
    (tmp_path / "profile.json").write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    path = str(tmp_path / "profile.json")
    assert described("--security-opt", f"seccomp={path}") == described().seccomp(path)
    assert described("--security-opt", "seccomp=unconfined") == described().seccomp("unconfined")
    assert (
        described("--security-opt", "seccomp=builtin", "--security-opt", "no-new-privileges") == described()
    )
    assert described("--userns", "host", "--landlock") == described().userns("host").landlock()


def test_a_secret_and_variables_come_from_files(tmp_path):
    (tmp_path / "token").write_text("hunter2")
    (tmp_path / "env").write_text("# ours\nA=1\n\nB=x y\n")
    words = ("--secret", f"id=token,src={tmp_path}/token", "--env-file", str(tmp_path / "env"), "-e", "A=2")
    assert run(*words, "host:", "sh", "-c", "cat /run/secrets/token; echo $A$B").stdout == "hunter22x y\n"


def test_how_to_reach_the_registry_is_said_for_that_of_the_image():
    words = ["--mirror", "mirror.example", "--no-tls-verify", "r.example/a:1", "true"]
    try:
        pycontain.commands.registries.use_registry_of(pycontain.commands.run.parser().parse_args(words))
        settings = settings_of("r.example")
    finally:
        pycontain.configure_registry("r.example", None)
    assert (settings.mirrors, settings.tls_verify) == (("mirror.example",), False)
    assert settings_of("docker.io").tls_verify


def test_a_kernel_setting_is_given():
    done = run("--sysctl", "kernel.domainname=box", "host:", "cat", "/proc/sys/kernel/domainname")
    assert done.stdout == "box\n"


def test_untrusted_has_no_capability_and_later_options_come_after_it():
    words = ("--untrusted", "--cap-add", "CHOWN", "--tmpfs", "/tmp:size=1M", "host:")
    walls = {wall["name"]: wall for wall in json.loads(cli("explain", "--json", *words).stdout)["walls"]}
    assert "CHOWN" in walls["capabilities"]["what"]
    assert walls["read-only root"]["stands"]


def test_privileged_has_no_filter():
    assert "Seccomp:\t0" in run("--privileged", "host:", "cat", "/proc/self/status").stdout


def test_explain_prints_the_walls():
    done = cli("explain", "host:")
    assert done.returncode == 0
    assert "stands mnt namespace" in done.stdout
