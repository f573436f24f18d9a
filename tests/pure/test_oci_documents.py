"""Manifests, indexes and configs: round trips, and what hostile or old documents are told."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycontain.errors import DigestMismatch, InvalidImage
from pycontain.oci import media_types
from pycontain.oci.codec import MAX_DOCUMENT_BYTES, FrozenMap, decode, encode, parse_json
from pycontain.oci.config import ExecutionParameters, Healthcheck, History, ImageConfig, RootFS
from pycontain.oci.descriptor import DESCRIPTOR, Descriptor
from pycontain.oci.digest import Digest
from pycontain.oci.layout import ImageLayout, blob_path
from pycontain.oci.manifest import Index, Manifest, parse_document
from pycontain.oci.platform import Platform

# --- any document ---------------------------------------------------------------------------------------

words = st.text(max_size=6)
names = st.from_regex(r"[a-z0-9]{1,6}", fullmatch=True)
texts = st.lists(words, max_size=3).map(tuple)
numbers = st.integers(-(2**63), 2**63 - 1)
json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), words
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple), st.dictionaries(words, inner, max_size=3).map(FrozenMap)
    ),
    max_leaves=6,
)
extras = st.dictionaries(words.map("x-".__add__), json_values, max_size=2)
text_maps = st.dictionaries(words, words, max_size=2)
digests = st.binary(max_size=3).map(Digest.of)
types = st.sampled_from(sorted(media_types.LAYERS))
times = st.sampled_from(["", "2015-10-31T22:22:56.015925234Z", "1985-04-12t23:20:50+01:30"])
platforms = st.builds(
    Platform,
    os=names,
    architecture=names,
    variant=names,
    os_version=names,
    os_features=st.lists(names).map(tuple),
    extra=extras,
)
descriptors = st.builds(
    Descriptor,
    media_type=types,
    digest=digests,
    size=st.integers(0, 2**63 - 1),
    urls=st.sampled_from([(), ("https://example.com/a?b",)]),
    annotations=text_maps,
    artifact_type=st.sampled_from(["", "a/b"]),
    platform=st.none() | platforms,
    extra=extras,
) | st.binary(max_size=9).map(lambda data: Descriptor("a/b", Digest.of(data), len(data), data=data))
descriptor_lists = st.lists(descriptors, max_size=2).map(tuple)
shared = {
    "subject": st.none() | descriptors,
    "annotations": text_maps,
    "artifact_type": st.sampled_from(["", "a/b"]),
    "extra": extras,
}
manifests = st.builds(Manifest, config=descriptors, layers=descriptor_lists, **shared)
indexes = st.builds(Index, manifests=descriptor_lists, **shared)
executions = st.builds(
    ExecutionParameters,
    user=words,
    exposed_ports=texts,
    env=st.lists(st.tuples(names, words).map("=".join), max_size=2).map(tuple),
    entrypoint=texts,
    cmd=texts,
    volumes=texts,
    working_dir=words,
    labels=text_maps,
    stop_signal=words,
    args_escaped=st.booleans(),
    healthcheck=st.none()
    | st.builds(Healthcheck, test=texts, interval=numbers, retries=numbers, extra=extras),
    shell=texts,
    on_build=texts,
    extra=extras,
)
configs = st.builds(
    ImageConfig,
    architecture=names,
    os=names,
    rootfs=st.builds(RootFS, diff_ids=st.lists(digests, max_size=3).map(tuple), extra=extras),
    config=executions,
    history=st.lists(
        st.builds(History, created=times, created_by=words, empty_layer=st.booleans(), extra=extras),
        max_size=2,
    ).map(tuple),
    created=times,
    author=words,
    variant=names,
    os_version=names,
    os_features=st.lists(names, max_size=2).map(tuple),
    extra=extras,
)
law = settings(deadline=None, max_examples=50)


@law
@given(st.one_of(manifests, indexes))
def test_a_manifest_survives_its_text(document):
    assert parse_document(document.encode()) == document


@law
@given(configs)
def test_a_config_survives_its_text(config):
    assert ImageConfig.parse(config.encode()) == config


@law
@given(descriptors)
def test_a_descriptor_survives_its_text(descriptor):
    assert decode(DESCRIPTOR, encode(DESCRIPTOR, descriptor), "descriptor") == descriptor


@law
@given(configs, manifests)
def test_documents_can_be_hashed_and_pickled(config, manifest):
    assert len({config, ImageConfig.parse(config.encode())}) == 1
    assert hash(manifest) == hash(parse_document(manifest.encode()))
    assert pickle.loads(pickle.dumps((config, manifest))) == (config, manifest)


@law
@given(configs)
def test_equal_documents_have_equal_texts(config):
    shuffled = json.dumps(dict(reversed(json.loads(config.encode()).items())), indent=1).encode()
    assert ImageConfig.parse(shuffled).encode() == config.encode()


@law
@given(
    st.one_of(st.binary(max_size=40), json_values.map(lambda value: json.dumps(value, default=dict).encode()))
)
def test_any_bytes_are_a_document_or_invalid(content):
    for read in (parse_document, ImageConfig.parse, ImageLayout.parse):
        with pytest.raises(InvalidImage):
            read(content)


# --- plain documents ------------------------------------------------------------------------------------

CONFIG_BLOB = Descriptor.of(b"{}", media_types.CONFIG)
LAYER = Descriptor.of(b"tar", media_types.LAYER_GZIP)


def members_of(document):
    return json.loads(document.encode())


def text_of(document, **changes):
    return json.dumps({**members_of(document), **changes}).encode()


MANIFEST = Manifest(CONFIG_BLOB, (LAYER,))
INDEX = Index((Descriptor.of(MANIFEST.encode(), media_types.MANIFEST),))
CONFIG = ImageConfig("amd64", "linux", RootFS((Digest.of(b"tar"),)))


def test_unknown_members_survive_at_every_level():
    text = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [], "x1": [1, {"a": None}]},
        "config": {"Hostname": "box", "Healthcheck": {"Test": ["NONE"], "x2": 2.5}},
        "history": [{"comment": "c", "x3": True}],
        "moby.buildkit.cache.v0": "b64",
    }
    assert json.loads(ImageConfig.parse(json.dumps(text).encode()).encode()) == text


def test_text_out_is_canonical():
    """Keys sorted, no spaces, no escapes that UTF-8 does not need."""
    layout = ImageLayout(extra={"é": "\n", "a": 1})
    assert layout.encode() == '{"a":1,"imageLayoutVersion":"1.0.0","é":"\\n"}'.encode()


def test_null_means_absent():
    text = text_of(CONFIG, config={"Cmd": None, "Volumes": None, "Labels": None}, history=None, author=None)
    assert ImageConfig.parse(text) == CONFIG


def test_a_null_where_something_must_be_is_missing():
    with pytest.raises(InvalidImage, match=r"^config has no rootfs$"):
        ImageConfig.parse(text_of(CONFIG, rootfs=None))


def test_execution_parameters_are_read():
    text = {
        "User": "1000:1000",
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Env": ["A=1", "B=x=y"],
        "Entrypoint": ["/init"],
        "Cmd": ["sh"],
        "Volumes": {"/data": {}},
        "WorkingDir": "/src",
        "Labels": {"a": "b"},
        "StopSignal": "SIGINT",
        "ArgsEscaped": True,
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 30_000_000_000, "Retries": 3},
        "Shell": ["/bin/bash", "-c"],
        "OnBuild": ["RUN true"],
    }
    assert ImageConfig.parse(text_of(CONFIG, config=text)).config == ExecutionParameters(
        user="1000:1000",
        exposed_ports=("53/udp", "80/tcp"),
        env=("A=1", "B=x=y"),
        entrypoint=("/init",),
        cmd=("sh",),
        volumes=("/data",),
        working_dir="/src",
        labels={"a": "b"},
        stop_signal="SIGINT",
        args_escaped=True,
        healthcheck=Healthcheck(test=("CMD", "true"), interval=30_000_000_000, retries=3),
        shell=("/bin/bash", "-c"),
        on_build=("RUN true",),
    )


def test_a_config_names_its_platform_and_layers():
    config = ImageConfig.parse(text_of(CONFIG, variant="v2"))
    assert config.platform == Platform("linux", "amd64", "v2")
    assert config.diff_ids == (Digest.of(b"tar"),)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"os": 123}, "config.os must be a short name, not 123"),
        ({"os": "\x1b[2J"}, "config.os must be a short name"),
        ({"history": "x"}, "config.history must be an array, not 'x'"),
        ({"history": [{"empty_layer": 1}]}, "config.history[0].empty_layer must be true or false, not 1"),
        ({"created": "yesterday"}, "config.created must be a time as in RFC 3339, not 'yesterday'"),
        ({"rootfs": {"type": "tree", "diff_ids": []}}, "config.rootfs.type must be 'layers', not 'tree'"),
        ({"rootfs": {"type": "layers", "diff_ids": ["x"]}}, "config.rootfs.diff_ids[0] must be a digest"),
        ({"config": []}, "config.config must be an object, not an array"),
        ({"config": {"Env": ["FOO"]}}, "config.config.Env[0] must be NAME=value, not 'FOO'"),
        ({"config": {"Cmd": {"a": 1}}}, "config.config.Cmd must be an array, not an object"),
        ({"config": {"User": True}}, "config.config.User must be a string, not true"),
        ({"config": {"Shell": [None]}}, "config.config.Shell[0] must be a string, not null"),
        ({"config": {"Labels": {"k" * 99: 1}}}, "config.config.Labels['kkk"),
        ({"config": {"Labels": "x"}}, "config.config.Labels must be an object"),
        ({"config": {"Volumes": {"/": 1}}}, "config.config.Volumes['/'] must be an empty object, not 1"),
        ({"config": {"Healthcheck": {"Retries": 2**63}}}, "must be a 64-bit integer"),
    ],
)
def test_a_wrong_config_says_where_and_what(changes, says):
    with pytest.raises(InvalidImage) as caught:
        ImageConfig.parse(text_of(CONFIG, **changes))
    assert says in str(caught.value)


# --- manifests and their media types --------------------------------------------------------------------


def test_docker_schema_2_is_read_and_keeps_its_names():
    text = text_of(MANIFEST, mediaType=media_types.DOCKER_MANIFEST)
    found = parse_document(text, media_types.DOCKER_MANIFEST)
    assert found.media_type == media_types.DOCKER_MANIFEST
    assert members_of(found)["mediaType"] == media_types.DOCKER_MANIFEST


def test_a_document_without_media_type_is_what_its_descriptor_says():
    text = members_of(INDEX)
    del text["mediaType"]
    content = json.dumps(text).encode()
    assert parse_document(content).media_type == media_types.INDEX
    assert parse_document(content, media_types.DOCKER_INDEX).media_type == media_types.DOCKER_INDEX


@pytest.mark.parametrize("said", [None, "", "application/json", "text/plain; charset=utf-8"])
def test_a_server_may_say_nothing(said):
    assert parse_document(MANIFEST.encode(), said) == MANIFEST


def test_the_parameters_of_a_content_type_do_not_count():
    assert parse_document(INDEX.encode(), f"{media_types.INDEX}; charset=utf-8") == INDEX


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (MANIFEST, media_types.INDEX),
        (INDEX, media_types.DOCKER_MANIFEST),
        (MANIFEST, media_types.CONFIG),
        (MANIFEST, "application/vnd.example"),
    ],
)
def test_a_lying_descriptor_is_refused(document, said):
    with pytest.raises(InvalidImage, match=r"members of an? \w+ and the media type"):
        parse_document(document.encode(), said)


def test_a_document_that_lies_about_itself_is_refused():
    with pytest.raises(InvalidImage, match="members of a manifest and the media type"):
        parse_document(text_of(MANIFEST, mediaType=media_types.INDEX))


def test_a_document_that_could_be_two_things_is_refused():
    """CVE-2021-41190: one reader takes it for an index, another for a manifest."""
    with pytest.raises(InvalidImage, match="members of an index and those of a manifest"):
        parse_document(text_of(MANIFEST, manifests=[]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"schemaVersion":1,"name":"a","fsLayers":[]}', None),
        (b'{"fsLayers":[]}', None),
        (b'{"schemaVersion":1}', "application/json"),
        (b"{}", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        (b'{"mediaType":"application/vnd.docker.distribution.manifest.v1+json"}', None),
    ],
)
def test_schema_1_is_refused_by_name(content, said):
    with pytest.raises(InvalidImage, match="schema 1, a retired format") as caught:
        parse_document(content, said)
    assert "skopeo copy" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schemaVersion": 3}, "manifest.schemaVersion must be 2, not 3"),
        ({"config": None}, "manifest has no config"),
        ({"layers": {}}, "manifest.layers must be an array"),
        ({"layers": [{}]}, "manifest.layers[0] has no mediaType"),
        ({"mediaType": 7}, "the media type 7"),
        ({"annotations": {"a": 1}}, "manifest.annotations['a'] must be a string, not 1"),
    ],
)
def test_a_wrong_manifest_says_where_and_what(changes, says):
    with pytest.raises(InvalidImage) as caught:
        parse_document(text_of(MANIFEST, **changes))
    assert says in str(caught.value)


def test_a_manifest_is_an_object():
    with pytest.raises(InvalidImage, match="not a JSON object"):
        parse_document(b"[]")


def test_foreign_layers_are_not_distributable():
    assert media_types.is_distributable(media_types.LAYER_ZSTD)
    assert not media_types.is_distributable(media_types.DOCKER_FOREIGN + ".gzip")
    assert not media_types.is_distributable(media_types.NONDISTRIBUTABLE)


def test_every_docker_layer_has_a_twin_with_the_same_compression():
    for docker, twin in media_types.OCI_TWINS.items():
        assert media_types.LAYERS.get(docker) == media_types.LAYERS.get(twin)


# --- descriptors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [-1, "1", 1.0, True, 2**63])
def test_a_size_is_a_number_of_bytes(size):
    text = json.dumps({"mediaType": "a/b", "digest": str(LAYER.digest), "size": size}).encode()
    with pytest.raises(InvalidImage, match=r"descriptor\.size must be a"):
        decode(DESCRIPTOR, text, "descriptor")


def test_content_of_another_size_is_a_mismatch():
    with pytest.raises(DigestMismatch, match="has 4 bytes where its descriptor says 3"):
        LAYER.check(b"tar!")


def test_content_of_the_same_size_is_verified_too():
    LAYER.check(b"tar")
    with pytest.raises(DigestMismatch, match="not what its digest says"):
        LAYER.check(b"tax")


def test_embedded_data_must_be_what_the_descriptor_says():
    text = {"mediaType": "a/b", "digest": str(LAYER.digest), "size": 3, "data": "dGF4"}
    with pytest.raises(DigestMismatch):
        decode(DESCRIPTOR, json.dumps(text).encode(), "descriptor")


def test_the_blob_of_a_digest_has_a_path_in_the_layout():
    assert blob_path(LAYER.digest) == f"blobs/sha256/{LAYER.digest.hex}"


def test_another_layout_version_is_refused():
    with pytest.raises(InvalidImage, match="imageLayoutVersion must be"):
        ImageLayout.parse(b'{"imageLayoutVersion":"2.0.0"}')


# --- hostile text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not sound JSON"),
        (b"{", "is not sound JSON"),
        (b"\xff{}", "is not sound JSON"),
        (b"\xef\xbb\xbf{}", "is not sound JSON"),
        (b'{"a":1,"b":2,"a":3}', "the key 'a' is there twice"),
        (b'{"a":NaN}', "NaN is not a number in JSON"),
        (b"-Infinity", "-Infinity is not a number in JSON"),
        (b"1e999", "the number '1e999' is too large"),
        (b"9" * 5000, "is not sound JSON"),
        (rb'"\ud800"', "surrogates not allowed"),
        (rb'{"\ud800":1}', "surrogates not allowed"),
        (b"[" * 65 + b"]" * 65, "nested more than 64 levels"),
        (b"[" * 100_000, "nested more than 64 levels"),
        (b'{"a":' * 100_000, "nested more than 64 levels"),
    ],
)
def test_unsound_json_is_refused(content, says):
    with pytest.raises(InvalidImage) as caught:
        parse_json(content, "manifest")
    assert str(caught.value).startswith("the manifest is ")
    assert says in str(caught.value)


def test_64_levels_are_not_too_deep():
    assert parse_json(b"[" * 64 + b"]" * 64, "manifest")


def test_a_document_that_is_too_large_is_not_even_parsed():
    with pytest.raises(InvalidImage, match="has 4194305 bytes"):
        parse_json(b"x" * (MAX_DOCUMENT_BYTES + 1), "manifest")


def test_text_that_is_no_unicode_cannot_be_written():
    with pytest.raises(InvalidImage, match="text that is not Unicode"):
        ImageLayout(extra={"a": "\udcff"}).encode()


def test_a_frozen_map_reads_as_a_mapping_and_cannot_change():
    frozen = FrozenMap({"a": 1})
    assert (frozen["a"], len(frozen), dict(frozen), repr(frozen)) == (1, 1, {"a": 1}, "{'a': 1}")
    with pytest.raises(TypeError):
        frozen["a"] = 2
