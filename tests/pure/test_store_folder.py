"""Opening a store: created, adopted or refused; and the locks in it name their holder."""

import json
import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pycontain.errors import StoreBusy, StoreError
from pycontain.oci.digest import Digest
from pycontain.store.folder import default_path
from pycontain.store.locks import Holder, Lock
from pycontain.store.store import Store


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_new_store_is_an_image_layout(tmp_path):
    store = Store(tmp_path / "a" / "store")
    layout = Path(store.path)
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((layout / "index.json").read_text())["manifests"] == []
    assert (layout / "blobs/sha256").is_dir()


def test_a_store_is_private(tmp_path):
    """Snapshots hold programs that are set-uid root."""
    store = Store(tmp_path / "store")
    assert mode_of(store.path) == 0o700
    assert mode_of(store.folder.own) == 0o700


def test_a_store_can_be_opened_again(tmp_path):
    assert Store(tmp_path / "store").path == Store(tmp_path / "store").path


def test_a_path_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert repr(Store("store")) == f"Store('{tmp_path}/store')"


def test_an_image_layout_becomes_a_store(tmp_path):
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (tmp_path / "index.json").write_text('{"schemaVersion": 2, "manifests": [], "annotations": {"a": "b"}}')
    assert Store(tmp_path).images() == ()
    assert json.loads((tmp_path / "index.json").read_text())["annotations"] == {"a": "b"}


def test_a_layout_of_another_version_is_refused(tmp_path):
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
    with pytest.raises(StoreError, match="cannot be a store"):
        Store(tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(StoreError, match="no store and not empty"):
        Store(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        Store(tmp_path / "file")


def test_a_store_of_a_newer_version_is_refused(tmp_path):
    store = Store(tmp_path)
    Path(store.folder.own, "version").write_text("2\n")
    with pytest.raises(StoreError, match="'2'") as caught:
        Store(tmp_path)
    assert "update pycontain" in caught.value.__notes__[0]
    assert caught.value.path == str(tmp_path)


def test_what_a_killed_creation_left_does_not_stop_the_next(tmp_path):
    (tmp_path / "oci-layout.new").write_text("{")
    assert Store(tmp_path).images() == ()


def test_a_store_can_be_created_by_many_at_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: Store(tmp_path / "store"), range(32)))
    assert all(store.images() == () for store in stores)


def test_the_environment_names_the_default_store(monkeypatch, tmp_path):
    monkeypatch.setenv("PYCONTAIN_STORE", str(tmp_path / "mine"))
    assert Store.default().path == str(tmp_path / "mine")


@pytest.mark.parametrize(
    ("euid", "xdg", "expected"),
    [
        (0, "/x", "/var/lib/pycontain/store"),
        (7, "/x", "/x/pycontain"),
        (7, "", "/people/u/.local/share/pycontain"),
        (7, "relative", "/people/u/.local/share/pycontain"),
    ],
)
def test_the_default_store_without_it(monkeypatch, euid, xdg, expected):
    monkeypatch.delenv("PYCONTAIN_STORE", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", xdg)
    monkeypatch.setenv("HOME", "/people/u")
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    assert default_path() == expected


def test_a_file_system_without_room_is_named(tmp_path, monkeypatch):
    """As for any errno: what the kernel says is translated once."""
    store = Store(tmp_path)

    def full(_fd, _chunk):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match="the disk is full") as caught:
        store.blobs.put(b"abc")
    assert isinstance(caught.value.__cause__, OSError)
    assert not store.blobs.has(Digest.of(b"abc"))


# --- locks ----------------------------------------------------------------------------------------------


def test_a_lock_excludes_others_until_it_is_released(tmp_path):
    path = str(tmp_path / "lock")
    lock = Lock.take(path)
    assert Lock.try_take(path) is None
    lock.release()
    lock.release()
    with Lock.take(path, timeout=0):
        pass


def test_shared_locks_exclude_only_the_others(tmp_path):
    path = str(tmp_path / "lock")
    with Lock.take(path, shared=True), Lock.take(path, shared=True, timeout=0):
        assert Lock.try_take(path) is None


def test_who_waits_in_vain_learns_who_holds_the_lock(tmp_path):
    path = str(tmp_path / "lock")
    code = f"import sys; from pycontain.store.locks import Lock; l = Lock.take({path!r}); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StoreBusy, match=f"pid {other.pid}") as caught:
            Lock.take(path, timeout=0.01)
        assert caught.value.holder == f"-c (pid {other.pid})"
        other.communicate("\n")


def test_a_holder_that_is_dead_is_not_named(tmp_path):
    path = tmp_path / "lock"
    with Lock.take(str(path), shared=True):
        path.write_text("1 12345 somebody else with this number\n")
        with pytest.raises(StoreBusy, match="another process holds it") as caught:
            Lock.take(str(path), timeout=0)
    assert caught.value.holder == ""


def test_a_lock_ends_with_its_holder(tmp_path):
    path = str(tmp_path / "lock")
    code = (
        f"import os; from pycontain.store.locks import Lock; l = Lock.take({path!r}); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    with Lock.take(path, timeout=0):
        pass


def test_who_waits_for_a_lock_that_is_removed_takes_the_new_one(tmp_path):
    path = str(tmp_path / "lock")
    first = Lock.take(path)
    taken = []
    thread = threading.Thread(target=lambda: taken.append(Lock.take(path)))
    thread.start()
    first.remove()
    thread.join()
    assert Lock.try_take(path) is None
    taken[0].release()


def test_a_holder_survives_its_line():
    holder = Holder(7, 99, "a program (with spaces)")
    assert Holder.parse(holder.line + "more\n") == holder
    assert Holder.parse("") is None
    assert Holder.this().is_alive
    assert not Holder(Holder.this().pid, 1, "python").is_alive
