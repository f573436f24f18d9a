"""References and digests: the normal form, the limits, the words for what is wrong."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycontain.errors import DigestMismatch, InvalidImage, InvalidReference
from pycontain.oci.digest import Digest
from pycontain.oci.reference import Reference

law = settings(deadline=None)

SHA256 = "sha256:" + "a1" * 32
SHA512 = "sha512:" + "b2" * 64

words = st.from_regex(r"[a-z0-9]{1,8}(?:(?:\.|__?|-{1,3})[a-z0-9]{1,8}){0,3}", fullmatch=True)
repositories = st.lists(words, min_size=1, max_size=4).map("/".join)
registries = st.one_of(
    st.sampled_from(["docker.io", "localhost", "Registry", "[fd00::1]:5000", "127.0.0.1:80"]),
    st.from_regex(r"[a-zA-Z0-9]{1,9}(-[a-zA-Z0-9]{1,9})?\.[a-z]{2,5}(:[0-9]{1,5})?", fullmatch=True),
)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", fullmatch=True)
digests = st.binary(max_size=4).flatmap(
    lambda content: st.sampled_from([Digest.of(content), Digest.of(content, "sha512")])
)


@st.composite
def references(draw):
    registry, repository = draw(registries), draw(repositories)
    if registry == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    tag, digest = draw(
        st.one_of(st.tuples(tags, st.none()), st.tuples(st.none(), digests), st.tuples(tags, digests))
    )
    return Reference(registry, repository, tag, digest)


# --- laws -----------------------------------------------------------------------------------------------


@law
@given(references())
def test_a_reference_survives_its_text(reference):
    assert Reference.parse(str(reference)) == reference


@law
@given(references())
def test_a_reference_survives_its_familiar_text(reference):
    assert Reference.parse(reference.familiar) == reference


@law
@given(st.text(max_size=40))
def test_any_text_is_a_reference_or_invalid(text):
    try:
        found = Reference.parse(text)
    except InvalidReference:
        return
    assert Reference.parse(str(found)) == found


@law
@given(digests)
def test_a_digest_survives_its_text(digest):
    assert Digest.parse(str(digest)) == digest


# --- references -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "normal", "familiar"),
    [
        ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("index.docker.io/alpine:3", "docker.io/library/alpine:3", "alpine:3"),
        ("user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("ghcr.io/a/b:1.2", "ghcr.io/a/b:1.2", "ghcr.io/a/b:1.2"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        (f"r:5000/x@{SHA256}", f"r:5000/x@{SHA256}", f"r:5000/x@{SHA256}"),
        (f"alpine:3@{SHA512}", f"docker.io/library/alpine:3@{SHA512}", f"alpine:3@{SHA512}"),
        # Without docker.io in front, the first component would be a registry; with library/ gone, an image ID.
        ("docker.io/foo.bar/x", "docker.io/foo.bar/x:latest", "docker.io/foo.bar/x:latest"),
        ("library/" + "a" * 64, f"docker.io/library/{'a' * 64}:latest", f"library/{'a' * 64}:latest"),
    ],
)
def test_normal_and_familiar_form(text, normal, familiar):
    found = Reference.parse(text)
    assert (str(found), found.familiar) == (normal, familiar)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is no repository"),
        (" alpine", "' alpine' is no repository"),
        ("Alpine", "'Alpine' has upper-case letters"),
        ("alpine:", "'' is no tag"),
        ("alpine:ä", "'ä' is no tag"),
        ("alpine:" + "x" * 129, "is no tag"),
        ("alpine\n", "is no repository"),
        ("a//b", "is no repository"),
        ("-x.io/a", "'-x.io' is no registry"),
        ("x.io:http/a", "'x.io:http' is no registry"),
        ("x" * 300 + ".io/a", "is no registry"),
        ("x.io/" + "a" * 256, "more than 255 characters"),
        ("x" * 2000, "more than 1024 characters"),
        ("alpine@", "'' is no digest"),
        ("alpine@sha256:abc", "sha256 has 64 lower-case hex digits"),
        (f"alpine@{SHA256.upper().replace('SHA', 'sha')}", "lower-case hex digits"),
        ("alpine@md5:" + "a" * 32, "md5 is not one of sha256, sha512"),
        ("0" * 64, "the ID of an image"),
    ],
)
def test_a_wrong_reference_says_what_is_wrong(text, says):
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(text)
    assert says in str(caught.value)
    assert "is no image reference" in str(caught.value)
    assert caught.value.text == text


def test_a_reference_points_at_something():
    with pytest.raises(InvalidReference, match="neither tag nor digest"):
        Reference("docker.io", "library/alpine")


def test_a_new_tag_leaves_the_old_digest_behind():
    assert str(Reference.parse(f"x.io/a:1@{SHA256}").with_tag("2")) == "x.io/a:2"


def test_a_digest_replaces_the_tag():
    assert str(Reference.parse("x.io/a:1").with_digest(Digest.parse(SHA256))) == f"x.io/a@{SHA256}"


def test_equal_meanings_are_equal_and_hash_alike():
    assert len({Reference.parse("alpine"), Reference.parse("docker.io/library/alpine:latest")}) == 1


def test_a_reference_survives_pickling():
    found = Reference.parse(f"alpine:3@{SHA256}")
    assert pickle.loads(pickle.dumps(found)) == found


def test_the_repr_reads_well():
    assert repr(Reference.parse("alpine")) == "Reference(docker.io/library/alpine:latest)"


def test_a_pattern_star_stays_within_one_component():
    assert Reference.parse("ghcr.io/a/b").matches("ghcr.io/*/b")
    assert not Reference.parse("ghcr.io/a/b").matches("ghcr.io/*")


def test_importing_references_is_light():
    code = "import sys, attrs, pycontain.oci.source; print({'json', 'hashlib', 'base64'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- digests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        ":abc",
        "sha256:" + "a" * 63,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha512:" + "a" * 64,
        "SHA256:" + "a" * 64,
        "sha256+foo+-b:" + "a" * 64,
        "x:../../etc/passwd",
        "x/y:aa",
        "x:" + "a" * 1000,
    ],
)
def test_a_wrong_digest_is_refused(text):
    with pytest.raises(InvalidImage, match="is no digest"):
        Digest.parse(text)


def test_a_digest_is_always_safe_in_a_path():
    """Even one made without parsing."""
    with pytest.raises(InvalidImage):
        Digest("sha256", "../escape")


def test_an_unknown_algorithm_is_kept_but_not_computed():
    digest = Digest.parse("multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8")
    assert not digest.is_supported
    with pytest.raises(InvalidImage, match=r"multihash\+base58 is not supported"):
        digest.hasher()


def test_digests_have_their_known_values():
    """FIPS 180-4's example "abc"."""
    assert str(Digest.of(b"abc")).endswith("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    assert str(Digest.of(b"abc", "sha512")).startswith(
        "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea2"
    )


def test_other_bytes_are_a_mismatch_with_both_digests():
    digest = Digest.of(b"right", "sha512")
    digest.check(b"right")
    with pytest.raises(DigestMismatch) as caught:
        digest.check(b"wrong")
    assert caught.value.expected == str(digest)
    assert caught.value.found == str(Digest.of(b"wrong", "sha512"))


def test_content_may_be_hashed_in_pieces():
    digest = Digest.of(b"ab")
    hasher = digest.hasher()
    hasher.update(b"a")
    hasher.update(b"b")
    digest.check_hex(hasher.hexdigest())


def test_the_repr_of_a_digest_is_its_text():
    assert repr(Digest.parse(SHA256)) == f"Digest({SHA256})"
