"""The layers with which containerd, umoci and go-archive test themselves, hostile ones included.

Their tool applies them as root in a throwaway overlay of this machine and reports whatever was written outside.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHECKOUT = HERE.parent.parent
CASES = Path(os.environ.get("PYCONTAIN_CASES", CHECKOUT.parent / "shared" / "cases"))
TOOL = CASES.parent / "tools" / "run-tar-layers"


@pytest.mark.skipif(os.geteuid() != 0, reason="the tool needs root for its throwaway overlay")
@pytest.mark.skipif(
    not (CASES / "tar_layer_cases.json").exists() or not TOOL.exists(), reason="no cases here"
)
def test_all_cases_hold_and_nothing_escapes():
    argv = [sys.executable, str(TOOL), "tar_layer_adapter:apply_layers"]
    environment = os.environ | {"PYTHONPATH": f"{CHECKOUT}:{HERE}"}
    done = subprocess.run(argv, env=environment, check=False, capture_output=True, text=True)
    assert "ESCAPE" not in done.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 failed" in done.stdout
