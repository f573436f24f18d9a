"""Where an image comes from: each transport is read, and a wrong one is told what there is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycontain.errors import InvalidReference
from pycontain.oci.reference import Reference
from pycontain.oci.source import (
    DockerArchive,
    HostImage,
    OciArchive,
    OciLayout,
    RegistrySource,
    Rootfs,
    parse_source,
)

ALPINE = Reference("docker.io", "library/alpine", "latest")

paths = st.from_regex(r"[A-Za-z0-9/._ -]{1,20}", fullmatch=True)
tags = st.one_of(st.none(), st.sampled_from(["1", "3.20", "docker.io/library/alpine:3", "a--b", "x@y"]))
references = st.one_of(st.none(), st.just(ALPINE))
sources = st.one_of(
    st.just(RegistrySource(ALPINE)),
    st.just(HostImage()),
    st.builds(OciLayout, paths, tags),
    st.builds(OciArchive, paths, tags),
    st.builds(DockerArchive, paths, references),
    st.builds(Rootfs, paths),
)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("alpine", RegistrySource(ALPINE)),
        ("docker://alpine", RegistrySource(ALPINE)),
        ("ghcr.io/a/b:1.2", RegistrySource(Reference("ghcr.io", "a/b", "1.2"))),
        ("r:5000/x", RegistrySource(Reference("r:5000", "x", "latest"))),
        ("docker:dind", RegistrySource(Reference("docker.io", "library/docker", "dind"))),
        ("host", RegistrySource(Reference("docker.io", "library/host", "latest"))),
        ("rootfs", RegistrySource(Reference("docker.io", "library/rootfs", "latest"))),
        ("oci:/srv/images", OciLayout("/srv/images")),
        ("oci:images:3.20", OciLayout("images", "3.20")),
        ("oci:images:docker.io/library/alpine:3", OciLayout("images", "docker.io/library/alpine:3")),
        ("oci-archive:a.tar", OciArchive("a.tar")),
        ("oci-archive:a.tar:x", OciArchive("a.tar", "x")),
        ("docker-archive:a.tar", DockerArchive("a.tar")),
        ("docker-archive:a.tar:alpine", DockerArchive("a.tar", ALPINE)),
        ("rootfs:./tree", Rootfs("./tree")),
        ("rootfs:/srv/a:b.tar.zst", Rootfs("/srv/a:b.tar.zst")),
        ("host:", HostImage()),
    ],
)
def test_each_way_to_write_a_source(text, source):
    assert parse_source(text) == source


@settings(deadline=None)
@given(sources)
def test_a_source_survives_its_text(source):
    assert parse_source(str(source)) == source


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_a_source_or_invalid(text):
    try:
        found = parse_source(text)
    except InvalidReference:
        return
    assert parse_source(str(found)) == found


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("dir:/srv/x", "'dir' is no transport", "docker-archive:FILE[:REF], rootfs:DIR|FILE.tar, host:"),
        ("docker-daemon:alpine", "'docker-daemon' is no transport", "oci:DIR[:TAG]"),
        ("https://ghcr.io/a/b", "'https' is no transport", "docker://REFERENCE"),
        ("podman:a:b", "is no image reference", "transports are docker://REFERENCE"),
        ("host:x", "'host:x' is ambiguous", "docker://host:x"),
        ("oci:", "'oci:' names no path", "write oci:DIR[:TAG]"),
        ("oci::x", "names no path", "write oci:DIR[:TAG]"),
        ("rootfs:", "names no path", "write rootfs:DIR"),
        ("rootfs:a\0b", "names no path", "write rootfs:DIR"),
        ("./tree", "is no image reference", "write rootfs:./tree"),
        ("/srv/tree", "is no image reference", "write rootfs:/srv/tree"),
    ],
)
def test_a_wrong_source_says_what_to_write(text, says, hint):
    with pytest.raises(InvalidReference) as caught:
        parse_source(text)
    assert says in str(caught.value)
    assert hint in "\n".join(caught.value.__notes__)


@pytest.mark.parametrize(
    "text", ["oci:x:", "oci:x:-a", "oci-archive:x:a b", "docker-archive:x:", "docker://", "A"]
)
def test_a_wrong_name_after_the_path_is_refused(text):
    with pytest.raises(InvalidReference):
        parse_source(text)
