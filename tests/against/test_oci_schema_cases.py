"""Documents and chain IDs, held against the test data of opencontainers/image-spec."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pycontain.errors import InvalidImage
from pycontain.oci.chain import chain_ids_of
from pycontain.oci.codec import decode
from pycontain.oci.config import ImageConfig
from pycontain.oci.descriptor import DESCRIPTOR
from pycontain.oci.digest import Digest
from pycontain.oci.layout import ImageLayout
from pycontain.oci.manifest import parse_document

pytestmark = pytest.mark.against

CASES = Path(os.environ.get("PYCONTAIN_CASES") or Path(__file__).parents[3] / "shared" / "cases")

READERS = {
    "manifest": parse_document,
    "index": parse_document,
    "config": ImageConfig.parse,
    "layout": ImageLayout.parse,
    "descriptor": lambda content: decode(DESCRIPTOR, content, "descriptor"),
}


def cases_of(key):
    file = CASES / "oci_schema_cases.json"
    if not file.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason="PYCONTAIN_CASES is not there"))]
    return [
        pytest.param(case, id=str(number)) for number, case in enumerate(json.loads(file.read_text())[key])
    ]


@pytest.mark.parametrize("case", cases_of("documents"))
def test_sound_documents_are_read_and_broken_ones_are_refused(case):
    read = READERS[case["kind"]]
    content = case["doc"].encode()
    if case["valid"]:
        assert read(content)
    else:
        with pytest.raises(InvalidImage):
            read(content)

    if "digest" in case:
        Digest.parse(case["digest"]).check(content)


@pytest.mark.parametrize("case", cases_of("chain_id"))
def test_chain_ids(case):
    # The cases shorten the first IDs to one digit, which Digest.parse would refuse.
    diff_ids = [Digest(*text.split(":")) for text in case["diff_ids"]]
    assert list(map(str, chain_ids_of(diff_ids))) == case["chain_ids"]
