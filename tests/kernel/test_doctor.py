"""The doctor on this host, whichever it is."""

import os
import sys
from pathlib import Path

import pytest

import pycontain
from pycontain import diagnosis
from pycontain.kernel import landlock, syscalls
from pycontain.runtime import engine as engines
from pycontain.runtime import findings
from pycontain.sandbox.host import CgroupLayout


def test_containers_start_here():
    report = diagnosis.doctor()
    assert report.ok, str(report)
    assert report["first container"].found.startswith("ran in ")


def test_the_report_agrees_with_the_engine_about_ids(privilege):
    check = diagnosis.doctor()["subordinate ids"]
    assert check.ok is (privilege != "single"), check


def test_the_state_folder_is_that_of_the_engine(state_folder):
    assert diagnosis.doctor()["state folder"].found.startswith(state_folder)


def test_the_store_is_that_of_images(monkeypatch, tmp_path):
    monkeypatch.setenv("PYCONTAIN_STORE", str(tmp_path / "store"))
    assert diagnosis.doctor()["store"].found.startswith(str(tmp_path / "store"))


def test_no_call_of_a_plan_is_absent():
    assert findings.probe_calls() == ()


def test_a_call_that_no_kernel_has_is_absent():
    assert syscalls.is_absent(1 << 20)


def test_a_state_folder_that_cannot_be_made_is_reported_and_not_raised(monkeypatch):
    """A typed error of the engine becomes a line of the report."""
    pycontain.shutdown()
    monkeypatch.setenv("PYCONTAIN_STATE", "/proc/nothing")
    try:
        report = diagnosis.doctor()
    finally:
        pycontain.shutdown()
    assert not report.ok
    assert report["first container"].found == "the engine did not start"


def test_a_container_that_fails_is_reported_and_not_raised(monkeypatch):
    monkeypatch.setattr(
        diagnosis.Container, "run", lambda *_, **__: pycontain.Container("rootfs:/nothing").plan("x")
    )
    trial = diagnosis.try_container()
    assert trial.host == engines.engine().facts
    assert trial.seconds is None
    assert "/nothing" in trial.error


def test_the_probe_of_control_groups_leaves_none_behind():
    """It makes one below each own group, to see whether it may."""
    found = findings.probe_cgroups()
    if found.layout is CgroupLayout.NONE:
        pytest.skip("no control groups are mounted here")
    assert list(Path(found.own).glob("pycontain-*")) == []


def test_usable_controllers_are_present_ones():
    found = findings.probe_cgroups()
    assert found.usable <= found.present


@pytest.mark.root
def test_the_own_group_is_that_of_this_process():
    found = findings.probe_cgroups()
    if not found.own:
        pytest.skip("no control groups are visible here")
    assert str(os.getpid()) in Path(found.own, "cgroup.procs").read_text(encoding="ascii").split()


def test_a_program_with_the_set_user_id_bit_is_elevated(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for name, mode in (("plain", 0o755), ("marked", 0o4755)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    if os.statvfs(tmp_path).f_flag & os.ST_NOSUID:
        pytest.skip("the folder for tests is mounted nosuid")
    assert not findings.find_elevated("plain").elevated
    assert findings.find_elevated("marked").elevated
    assert findings.find_elevated("absent") is None


def test_landlock_is_what_the_kernel_lists():
    modules = findings.probe_security_modules()
    version = landlock.abi_version()
    assert version >= 0
    assert bool(version) is ("landlock" in modules.active)


def test_the_import_of_pycontain_brings_neither_doctor_nor_argparse():
    import subprocess

    program = (
        "import sys, pycontain; print(sorted({'argparse', 'pycontain.diagnosis', 'json'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
