"""Builds, held against the conformance tests of buildah: what builds and what fails, and the tree that buildah makes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from building_base import store_with, write_context

import pycontain
from pycontain.errors import BuildError

pytestmark = pytest.mark.against

CASES = Path(os.environ.get("PYCONTAIN_CASES") or Path(__file__).parents[3] / "shared" / "cases")
BASES = ("mirror.gcr.io/busybox:latest", "mirror.gcr.io/alpine:latest", "quay.io/libpod/centos:7")
KNOWN = {"scratch", *(base.removesuffix(":latest") for base in BASES)}

# Cases that do not hold here, and why.
DIFFERENT = {
    "add": "it fetches from github.com, and there is no network in tests",
    "transient-mount": "its mount is an option of buildah's",
    "mount-targets-new": "its context has a program that is built",
    "mount-targets-old": "its context has a program that is built",
    "mount-targets-mount": "its context has a program that is built",
}


def cases():
    file = CASES / "buildah_conformance_cases.json"
    if not file.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason="PYCONTAIN_CASES is not there"))]
    return [
        pytest.param(case, id=f"{number}-{case['name'].replace(' ', '-')}")
        for number, case in enumerate(json.loads(file.read_text())["cases"])
        if case["dockerfile"]
        and not case.get("needs_port")  # their contexts are made by a Go program
        and case["name"] not in DIFFERENT
        and "quay.io/libpod/busybox" not in case["dockerfile"]
        and "fedora" not in case["dockerfile"]
    ]


@pytest.fixture(scope="module")
def store():
    yield from store_with(*BASES)


@pytest.mark.parametrize("case", cases())
def test_a_case(case, store, tmp_path):
    context = tmp_path / "context"
    context.mkdir()
    write_context(context, case["context"])
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(case["dockerfile"])
    args = case.get("buildArgs") or {}
    if case.get("shouldFailAt") or case.get("failureRegex"):
        with pytest.raises(BuildError):
            pycontain.build(context, dockerfile=dockerfile, args=args)
    else:
        pycontain.build(context, dockerfile=dockerfile, args=args)
