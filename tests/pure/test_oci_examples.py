"""The examples in the docstrings of the oci package are true."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["platform", "reference", "source"])
def test_examples(name):
    found = doctest.testmod(importlib.import_module(f"pycontain.oci.{name}"))
    assert found.attempted
    assert not found.failed
