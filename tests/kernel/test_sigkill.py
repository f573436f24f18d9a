"""SIGKILL at any moment: no process of any container stays, and the next start leaves nothing on disk.

``PYCONTAIN_SOAK=1`` makes it three hundred moments instead of fifteen; ``PYCONTAIN_SEED`` repeats one that failed.
"""

import os
import random
import signal
import sys
import time
from itertools import count
from pathlib import Path

import pytest
from owners import comes_true, eventually, marked, new_mark, ours, run_owner, start_owner

from pycontain.runtime import sweep

ROUNDS = 300 if os.environ.get("PYCONTAIN_SOAK") else 15
BASE = int(os.environ.get("PYCONTAIN_SEED", random.SystemRandom().randrange(1 << 30)))

OWNER = """
    import os, threading
    from pycontain import Container
    mark = os.environ["MARK"]
    script = f"echo x > /left; setsid sleep {mark} & (sleep {mark} &); exec sleep {mark}"
    def work(init):
        container = Container("host:").init(init)
        while True:
            held = [container.start("sh", "-c", script) for _ in range(2)]
            with container.start("sh", "-c", script) as running:
                container.run("true", mark)
                try:
                    running.exec("sh", "-c", f"setsid sleep {mark} & sleep {mark}", timeout=0.02)
                except TimeoutError:
                    pass
            held.pop().close()
    for init in (True, True, False):
        threading.Thread(target=work, args=(init,)).start()
    print("begun", flush=True)
"""


def zygotes_of(pid):
    """The children of *pid*: its zygote, and while that starts its launcher."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            text = Path(f"/proc/{entry}/stat").read_text(errors="replace")
        except OSError:
            continue
        if int(text.rpartition(")")[2].split()[1]) == pid:
            found.append(int(entry))
    return found


def kill(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def mounts():
    return Path("/proc/self/mountinfo").read_text(errors="replace").count("\n")


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_killed_owner_leaves_no_process_and_no_file(tmp_path, number, record_property):
    seed = BASE + number
    print(f"PYCONTAIN_SEED={seed}")
    chance = random.Random(seed)
    mark, before = new_mark(), mounts()
    with_zygote, delay = chance.random() < 0.5, chance.random() * 0.5
    with start_owner(OWNER, state=tmp_path, MARK=mark, python=()) as owner:
        owner.stdout.readline()
        time.sleep(delay)  # the moment is what is tested
        zygotes = zygotes_of(owner.pid) if with_zygote else []
        order = [*zygotes, owner.pid]
        chance.shuffle(order)
        kill(order)
        owner.wait()
        took = eventually(lambda: not marked(mark), patience=2)
        owner.communicate()
    record_property("seconds until the last process was gone", took)
    assert took is not None, f"processes {marked(mark)} outlive their owner; seed {seed}"
    assert run_owner("import pycontain; pycontain.prewarm()", state=tmp_path) == (0, "", "")
    removed = comes_true(lambda: os.listdir(tmp_path) == [], patience=5)
    assert removed, f"files are left, and these processes: {ours()}; seed {seed}"
    assert mounts() == before


def killed_at(path, removals):
    """Remove the folder in a child that ends instead of the removal number *removals*; whether it came so far."""
    child = os.fork()
    if child == 0:
        left = iter(range(removals))

        def count(event, _):
            if event in {"os.remove", "os.rmdir"} and next(left, None) is None:
                os._exit(9)

        sys.addaudithook(count)
        sweep.remove_folder(path)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_a_removal_that_is_killed_at_any_point_is_finished_by_the_next_sweep(tmp_path):
    state = str(tmp_path)
    for removals in count():
        folder = sweep.OwnerFolder.create(state)
        os.makedirs(f"{folder.layers}/0/upper")
        os.close(folder.lock)
        killed = killed_at(folder.path, removals)
        for path, lock in sweep.abandoned(state):
            sweep.remove_folder(path)
            os.close(lock)
        assert os.listdir(state) == [], f"killed before removal {removals}"
        if not killed:
            break
    assert removals > 5


def test_an_owner_and_then_its_zygote(tmp_path):
    mark = new_mark()
    with start_owner(OWNER, state=tmp_path, MARK=mark, python=()) as owner:
        assert comes_true(lambda: marked(mark))
        zygotes = zygotes_of(owner.pid)
        kill([owner.pid])
        kill(zygotes)
        assert comes_true(lambda: not marked(mark), patience=2)
        owner.communicate()


def test_a_stopped_owner_keeps_its_containers_and_a_killed_one_does_not(tmp_path):
    mark = new_mark()
    code = """
        import os, time
        from pycontain import Container
        running = Container("host:").start("sleep", os.environ["MARK"])
        print("begun", flush=True)
        time.sleep(1000)
    """
    with start_owner(code, state=tmp_path, MARK=mark) as owner:
        owner.stdout.readline()
        owner.send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        assert marked(mark) != []
        owner.send_signal(signal.SIGKILL)
        owner.communicate()
        assert comes_true(lambda: not marked(mark), patience=2)


def test_a_sweep_leaves_a_living_owner_alone(tmp_path):
    mark = new_mark()
    code = """
        import os, sys
        from pycontain import Container
        with Container("host:").start("sleep", os.environ["MARK"]) as running:
            running.exec("sh", "-c", "echo x > /kept")
            print("begun", flush=True)
            while "go" not in os.listdir(os.environ["SIGN"]):
                pass
            print(running.exec("cat", "/kept").stdout, end="")
    """
    (tmp_path / "sign").mkdir()
    with start_owner(code, state=tmp_path / "state", MARK=mark, SIGN=str(tmp_path / "sign")) as owner:
        assert owner.stdout.readline() == "begun\n"
        for _ in range(2):
            assert run_owner("import pycontain; pycontain.prewarm()", state=tmp_path / "state") == (0, "", "")
        (tmp_path / "sign" / "go").touch()
        assert owner.communicate(timeout=30) == ("x\n", "")


@pytest.mark.parametrize("init", [True, False])
def test_a_payload_that_clears_its_parent_death_signal_ends_all_the_same(tmp_path, init):
    mark = new_mark()
    code = f"""
        import os, time
        from pycontain import Container
        script = "import ctypes, time; ctypes.CDLL(None).prctl(1, 0); print(flush=True); time.sleep(1000)"
        running = Container("host:").init({init}).start("python3", "-c", script, os.environ["MARK"])
        while not running._exchange.stdout.bytes():
            time.sleep(0.01)
        print("begun", flush=True)
        time.sleep(1000)
    """
    with start_owner(code, state=tmp_path, MARK=mark) as owner:
        assert owner.stdout.readline() == "begun\n"
        kill([*zygotes_of(owner.pid), owner.pid])
        owner.communicate()
        assert comes_true(lambda: not marked(mark), patience=2)


def test_owners_that_start_at_the_same_time_share_a_state_folder(tmp_path):
    code = """
        from pycontain import Container
        print([Container("host:").run("echo", "x").stdout for _ in range(3)])
    """
    owners = [start_owner(code, state=tmp_path) for _ in range(4)]
    results = [owner.communicate(timeout=60) for owner in owners]
    for owner in owners:
        owner.wait()
    assert results == [("['x\\n', 'x\\n', 'x\\n']\n", "")] * 4
    assert os.listdir(tmp_path) == []
