"""The kernel ring: each test runs as root, as a user with subordinate ids, and as one without."""

import os
import pwd
import shutil
from pathlib import Path

import pytest

from pycontain.runtime.probe import is_privileged


def _granted(path):
    """Whether subuid(5) names this user, by name or number."""
    names = {pwd.getpwuid(os.getuid()).pw_name, str(os.getuid())}
    file = Path(path)
    return file.exists() and any(line.split(":")[0] in names for line in file.read_text().splitlines())


@pytest.fixture(scope="session")
def privilege():
    """Who runs the tests: "root", "subids" (a user with subordinate ids) or "single" (one without)."""
    if is_privileged():
        return "root"
    subordinate = _granted("/etc/subuid") and _granted("/etc/subgid")
    return "subids" if subordinate and shutil.which("newuidmap") and shutil.which("newgidmap") else "single"
