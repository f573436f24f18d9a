"""Builds, held against those cases of BuildKit's tests that need nothing but a Dockerfile and a context."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from building_base import store_with, tree_of, write_context

import pycontain
from pycontain.errors import BuildError

pytestmark = pytest.mark.against

CASES = Path(os.environ.get("PYCONTAIN_CASES") or Path(__file__).parents[3] / "shared" / "cases")

# Cases that do not hold here, and why.
DIFFERENT = {
    "testDuplicatePlatformProvenance": "a build is for one platform, and writes no provenance",
    "testRunSecuritySandbox": "it looks for Docker's capabilities; a container of ours has podman's smaller set",
    "testWorkdirCopyIgnoreRelative": "the text of the Dockerfile is a format for Go, and not filled in",
}


def cases():
    file = CASES / "buildkit_build_cases.json"
    if not file.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason="PYCONTAIN_CASES is not there"))]
    found = [case for case in json.loads(file.read_text())["cases"] if case["tier"] == "A"]
    return [pytest.param(case, id=case["name"]) for case in found if case["name"] not in DIFFERENT]


@pytest.fixture(scope="module")
def store():
    yield from store_with("busybox:latest", "alpine:latest")


@pytest.mark.parametrize("case", cases())
def test_a_case(case, store, tmp_path):
    for number, step in enumerate(case["steps"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_context(folder, step["context"])
        options = {name: value for name, value in step["attrs"].items() if name in {"target", "platform"}}
        options["args"] = {
            name.partition(":")[2]: value
            for name, value in step["attrs"].items()
            if name.startswith("build-arg:")
        }
        if "secret-mount" in case["needs"]:
            options["secrets"] = {"mysecret": "pw"}
        if step["expect"] == "error":
            with pytest.raises(BuildError) as caught:
                pycontain.build(folder, **options)
            assert caught.value.line > 0
            continue
        image = pycontain.build(folder, **options)
        tree = tree_of(image)
        for check in step["checks"]:
            assert check["path"] in tree
            if check["op"] == "content":
                assert tree[check["path"]][1].decode() == check["content"]
