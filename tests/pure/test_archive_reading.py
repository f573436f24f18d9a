"""Archives of others as they come: layouts, docker save, and files that pretend to be one."""

import gzip
import io
import json
import os
import struct
import tarfile

import attrs
import pytest
from stored_images import layer_of

from pycontain.errors import ImageNotFound, InvalidImage, LayerTooLarge
from pycontain.image.archive import DockerSave, Layout, choose_image, open_archive, open_source
from pycontain.oci import media_types
from pycontain.oci.config import ImageConfig, RootFS
from pycontain.oci.descriptor import Descriptor
from pycontain.oci.digest import Digest
from pycontain.oci.manifest import Index, Manifest, parse_document
from pycontain.oci.media_types import LAYER, LAYER_GZIP
from pycontain.oci.reference import Reference
from pycontain.oci.source import DockerArchive, parse_source

LAYER_TAR = layer_of("hello")
CONFIG = ImageConfig("amd64", "linux", RootFS((Digest.of(LAYER_TAR),))).encode()
NAME = f"{Digest.of(CONFIG).hex}.json"
LISTED = [{"Config": NAME, "RepoTags": ["app:1"], "Layers": ["l/layer.tar"]}]
SAVED = {"manifest.json": json.dumps(LISTED).encode(), NAME: CONFIG, "l/layer.tar": LAYER_TAR}


def tar_of(members, links=None):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return stream.getvalue()


def opened(members, scratch, **links):
    return open_archive(io.BytesIO(tar_of(members, **links)), str(scratch))


def manifest_of(archive, number=0):
    descriptor = archive.images[number].descriptor
    return parse_document(archive.read(descriptor), descriptor.media_type)


# --- docker save ----------------------------------------------------------------------------------------


def test_docker_save_becomes_a_manifest_with_the_same_image_id(tmp_path):
    with opened(SAVED, tmp_path) as archive:
        manifest = manifest_of(archive)
        assert archive.images[0].references == (Reference.parse("app:1"),)
        assert archive.read(manifest.config) == CONFIG


def test_an_uncompressed_layer_is_known_by_its_diff_id(tmp_path):
    with opened(SAVED, tmp_path) as archive:
        (layer,) = manifest_of(archive).layers
        assert (layer.digest, layer.size, layer.media_type) == (Digest.of(LAYER_TAR), len(LAYER_TAR), LAYER)
        with archive.open(layer, 100) as file:
            assert file.read() == LAYER_TAR[100:]


def test_a_compressed_layer_is_known_by_its_own_digest(tmp_path):
    packed = gzip.compress(LAYER_TAR)
    with opened({**SAVED, "l/layer.tar": packed}, tmp_path) as archive:
        (layer,) = manifest_of(archive).layers
        assert (layer.digest, layer.media_type) == (Digest.of(packed), LAYER_GZIP)


def test_a_layer_may_be_a_link_to_another(tmp_path):
    members = {**SAVED, "other/layer.tar": LAYER_TAR}
    del members["l/layer.tar"]
    with opened(members, tmp_path, links={"l/layer.tar": "../other/layer.tar"}) as archive:
        assert manifest_of(archive).layers[0].size == len(LAYER_TAR)


def test_links_in_a_circle_end(tmp_path):
    members = {name: content for name, content in SAVED.items() if name != "l/layer.tar"}
    with pytest.raises(InvalidImage, match="has no"):
        opened(members, tmp_path, links={"l/layer.tar": "b", "l/b": "layer.tar"})


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "missing"])
def test_names_lead_to_members_only(tmp_path, name):
    listed = [{"Config": name, "Layers": []}]
    with pytest.raises(InvalidImage, match="has no"):
        opened({"manifest.json": json.dumps(listed).encode()}, tmp_path)


def test_a_link_out_of_the_archive_leads_nowhere(tmp_path):
    (tmp_path / "secret").write_bytes(CONFIG)
    listed = [{"Config": "c", "Layers": []}]
    with pytest.raises(InvalidImage, match="has no"):
        opened({"manifest.json": json.dumps(listed).encode()}, tmp_path, links={"c": f"{tmp_path}/secret"})


def test_layers_and_config_must_agree(tmp_path):
    listed = [{**LISTED[0], "Layers": []}]
    with pytest.raises(InvalidImage, match="1 layers"):
        opened({**SAVED, "manifest.json": json.dumps(listed).encode()}, tmp_path)


# --- layouts --------------------------------------------------------------------------------------------


def layout_of(*annotations):
    """The members of a layout with an image that its index names once for each of *annotations*."""
    layer = Descriptor.of(LAYER_TAR, LAYER)
    manifest = Manifest(Descriptor.of(CONFIG, media_types.CONFIG), (layer,)).encode()
    described = Descriptor.of(manifest, media_types.MANIFEST)
    lines = tuple(attrs.evolve(described, annotations=each) for each in annotations)
    blobs = {f"blobs/sha256/{Digest.of(blob).hex}": blob for blob in (CONFIG, manifest, LAYER_TAR)}
    return {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": Index(lines).encode(),
        **blobs,
    }


REF = "org.opencontainers.image.ref.name"


def test_a_tag_alone_is_no_name(tmp_path):
    """What it is a tag of is not said, and docker.io/library/1.0 is certainly not meant."""
    with opened(layout_of({REF: "1.0"}), tmp_path) as archive:
        assert archive.images[0].references == ()
        assert archive.images[0].is_called("1.0")


def test_the_full_name_of_docker_counts(tmp_path):
    names = {REF: "1", "io.containerd.image.name": "docker.io/library/app:1"}
    with opened(layout_of(names), tmp_path) as archive:
        assert [str(name) for name in archive.images[0].references] == ["docker.io/library/app:1"]


def test_a_name_is_found_in_any_form(tmp_path):
    with opened(layout_of({REF: "docker.io/library/app:1"}), tmp_path) as archive:
        assert archive.images[0].is_called("app:1")
        assert archive.images[0].is_called("docker.io/library/app:1")
        assert not archive.images[0].is_called("app:2")


def test_a_layout_of_another_version_is_refused(tmp_path):
    members = {**layout_of({}), "oci-layout": b'{"imageLayoutVersion":"2.0.0"}'}
    with pytest.raises(InvalidImage, match=r"1\.0\.0"):
        opened(members, tmp_path)


def test_two_names_of_one_image_are_no_doubt(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_of(layout_of({REF: "a:1"}, {REF: "b:1"})))
    source = parse_source(f"oci-archive:{tmp_path}/a.tar")
    with open_source(source, str(tmp_path)) as archive:
        assert choose_image(archive, source).names == ("a:1",)


def test_a_name_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    (tmp_path / "d.tar").write_bytes(tar_of(SAVED))
    source = DockerArchive(f"{tmp_path}/d.tar", Reference.parse("app:2"))
    with open_source(source, str(tmp_path)) as archive, pytest.raises(ImageNotFound, match="app:2") as caught:
        choose_image(archive, source)
    assert caught.value.__notes__ == ["it has app:1"]


# --- ways in --------------------------------------------------------------------------------------------


def test_the_kind_is_found_out(tmp_path):
    with opened(SAVED, tmp_path) as archive:
        assert isinstance(archive, DockerSave)
    with opened({**SAVED, **layout_of({})}, tmp_path) as archive:
        assert isinstance(archive, Layout)


def test_a_pipe_is_read(tmp_path):
    read_end, write_end = os.pipe()
    with open(write_end, "wb") as pipe:
        pipe.write(tar_of({"manifest.json": b"[]"}))
    with open(read_end, "rb") as pipe, open_archive(pipe, str(tmp_path)) as archive:
        assert archive.images == ()


def test_a_compressed_archive_is_read(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar_of(SAVED)))
    with open_archive(f"{tmp_path}/a.tar.gz", str(tmp_path)) as archive:
        assert len(archive.images) == 1
    assert os.listdir(tmp_path) == ["a.tar.gz"]


def test_an_archive_that_was_sought_is_read_from_its_start(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of(SAVED))
    with path.open("rb") as file, open_archive(file, str(tmp_path)) as archive:
        assert len(archive.images) == 1


def test_an_archive_that_expands_without_end_is_refused(tmp_path):
    bomb = gzip.compress(bytes(200 << 20))
    with pytest.raises(LayerTooLarge):
        open_archive(io.BytesIO(bomb), str(tmp_path))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "content", [b"", b"not a tar", bytes(10240), b"\x1f\x8b\x08broken", tar_of({"x": b"y"})]
)
def test_what_is_no_archive_of_images_is_refused(tmp_path, content):
    with pytest.raises(InvalidImage):
        open_archive(io.BytesIO(content), str(tmp_path))


def test_an_archive_cut_short_is_refused(tmp_path):
    with pytest.raises(InvalidImage):
        open_archive(io.BytesIO(tar_of(SAVED)[:700]), str(tmp_path))


def test_headers_that_lead_back_are_refused(tmp_path):
    """CVE-2025-8194: a negative size had tarfile read the same header for ever."""
    tar = bytearray(tar_of({"x": b""}))
    tar[124:136] = b"\xff" * 4 + struct.pack(">q", -1024)
    tar[148:156] = b"%06o\0 " % (sum(tar[:148]) + 8 * 32 + sum(tar[156:512]))
    with pytest.raises(InvalidImage):
        open_archive(io.BytesIO(bytes(tar)), str(tmp_path))
