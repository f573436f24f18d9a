"""Layers in a user namespace with a single id, and overlayfs as the witness of what whiteouts mean."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

PRELUDE = """
import os, random, subprocess, sys
from pathlib import Path
from pycontain.errors import LayerError
from pycontain.layers.apply import Devices, Ownership
from pycontain.layers.entries import Kind, Whiteouts
from layer_tree import *

def tree(name):
    made = LayerTree(Path(sys.argv[1]) / name)
    made.root.mkdir()
    return made
"""


def _namespaces_work():
    return (
        shutil.which("unshare") and subprocess.run(["unshare", "-Urm", "true"], check=False).returncode == 0
    )


pytestmark = pytest.mark.skipif(not _namespaces_work(), reason="user namespaces are not allowed here")


@pytest.fixture
def inside(tmp_path):
    """Run Python as root of a user namespace that maps only us, in a mount namespace that goes with it."""

    def run(code):
        argv = ["unshare", "-Urm", sys.executable, "-W", "error", "-c", PRELUDE + code, str(tmp_path)]
        environment = {"PYTHONPATH": f"{HERE}:{HERE.parent.parent}", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        done = subprocess.run(argv, env=environment, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_an_owner_that_is_not_mapped_fails_by_default(inside):
    inside("""
try:
    tree("root").apply(File("f", uid=7))
except LayerError as error:
    assert str(error) == "'f' cannot be given to its owner 7:0: Invalid argument", error
else:
    raise AssertionError
""")


def test_an_owner_that_is_not_mapped_can_be_squashed(inside):
    inside("""
applied = tree("root").apply(File("f", uid=7), File("g"), Symlink("l", to="f", gid=3), ownership=Ownership.SQUASH)
assert applied.squashed == 2
""")


def test_a_set_id_program_of_root_stays_one(inside):
    inside("""
root = tree("root")
assert root.apply(File("su", b"x", mode=0o4755), ownership=Ownership.SQUASH).recorded == ()
assert root.mode("su") == 0o4755
""")


def test_devices_are_recorded_and_whiteouts_are_made(inside):
    inside("""
root = tree("root")
applied = root.apply(Device("null", 1, 3), Whiteout("w"), devices=Devices.RECORD, whiteouts=Whiteouts.USER_OVERLAY)
assert [loss.entry.path for loss in applied.recorded] == [b"null"]
assert root.names() == ["w"]
""")


def test_a_file_may_have_capabilities(inside):
    inside("""
value = bytes.fromhex("0100000200200000000000000000000000000000")
root = tree("root")
assert root.apply(File("ping", b"x", xattrs=((b"security.capability", value),))).recorded == ()
assert os.getxattr(root.path("ping"), "security.capability") == value
""")


def test_an_overlay_of_layers_is_the_tree_to_which_they_were_applied(inside):
    """The kernel's own merge of fifty random stacks against our removing."""
    assert "50 stacks" in inside("""
NAMES = ["a", "b", "a/a", "a/b", "b/a", "a/b/a", "a/b/c"]

def stack(dice):
    layers = []
    for number in range(dice.randint(2, 4)):
        found = {}
        for name in dice.choices(NAMES, k=dice.randint(1, 7)):
            text = f"{number}".encode()
            make = dice.choice([
                lambda: File(f"{name}/f", text), lambda: File(f"{name}/g", text), lambda: Dir(name, mode=0o711),
                lambda: Whiteout(name), lambda: Whiteout(f"{name}/f"), lambda: Opaque(name), lambda: File(name, text),
                lambda: Symlink(f"{name}/l", to="f"),
            ])
            one = make()
            # A directory that is in the layer only for what is in it would hide the mode of the one below.
            above = one[0].path.decode().split("/")[:-1]
            for depth in range(len(above)):
                found.setdefault("/".join(above[: depth + 1]), Dir("/".join(above[: depth + 1])))
            found[one[0].path.decode()] = one
        layers.append(list(found.values()))
    return layers

def seen(root):
    shown = LayerTree(root)
    return [
        (name, shown.mode(name), not name.endswith("/") and not os.path.islink(shown.path(name)) and shown.read(name))
        for name in shown.names()
        if os.path.lexists(shown.path(name))  # overlayfs lists a marker that hides nothing, and finds no file there
    ]

def consistent(layer):
    files = {e.path for e, _ in layer if e.kind is not Kind.DIRECTORY}
    return not any(e.path.startswith(f + b"/") for e, _ in layer for f in files)

count = 0
for seed in range(2000):
    dice = random.Random(seed)
    layers = stack(dice)
    if count == 50:
        break
    if not all(map(consistent, layers)):
        continue
    count += 1
    flat = tree(f"flat{seed}")
    parts = [tree(f"{number}.{seed}") for number in range(len(layers))]
    for part, entries in zip(parts, layers):
        flat.apply(*entries)
        part.apply(*entries, whiteouts=Whiteouts.USER_OVERLAY)
    merged = tree(f"merged{seed}").root
    lower = ":".join(str(part.root) for part in reversed(parts))
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", f"ro,userxattr,lowerdir={lower}", merged], check=True)
    assert seen(merged) == seen(flat.root), (seed, layers, seen(merged), seen(flat.root))
    subprocess.run(["umount", merged], check=True)
print(count, "stacks")
""")
