"""The fixture that fails a test which leaves something behind, see :mod:`pycontain.testing.leaks`.

It is also a pytest plugin: ``python -m pytest -p leaks``.
"""

import pytest

from pycontain.testing.leaks import PATIENCE, Snapshot, wait_for_leaks


@pytest.fixture
def no_leaks():
    """Fail the test that leaves something behind."""
    before = Snapshot.take()
    yield
    leaked = wait_for_leaks(before, PATIENCE)
    if leaked:
        pytest.fail("the test left behind:\n  " + "\n  ".join(leaked), pytrace=False)
