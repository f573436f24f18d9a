"""Entries to tar and back; Python's tarfile is the witness that others can read it."""

import io
import tarfile

import hypothesis.strategies as st
import pytest
from hypothesis import given

from pycontain.errors import LayerError, UnsupportedEntry
from pycontain.layers.decode import Decoder
from pycontain.layers.encode import encode
from pycontain.layers.entries import Entry, Kind, clean

# Names of every length that decides about a form: within 100, within 155 + 100, beyond.
NAMES = st.builds(
    lambda seed, length: clean((seed * length)[:length].replace(b"\0", b"_")),
    st.binary(min_size=1, max_size=6),
    st.sampled_from([1, 7, 99, 100, 101, 155, 256, 300]),
).filter(bool)
IDS = st.sampled_from([0, 1, 0o7777777, 0o10000000, (1 << 32) - 2])
TIMES = st.one_of(
    st.sampled_from([0, -1, -1_500_000_000, 8**11 * 10**9]),
    st.integers(min_value=-(10**18), max_value=10**19),
)
XATTRS = st.dictionaries(
    st.sampled_from([b"user.a", b"user.b", b"security.capability"]), st.binary(max_size=20)
).map(lambda found: tuple(sorted(found.items())))


@st.composite
def files(draw, **fields):
    content = draw(st.binary(max_size=1200))
    return Entry(size=len(content), kind=Kind.FILE, **fields), content


@st.composite
def sparse_files(draw, **fields):
    lengths = draw(st.lists(st.integers(1, 700), max_size=30))
    segments, at = [], 0
    for length in lengths:
        at += draw(st.integers(0, 5000))
        segments.append((at, length))
        at += length
    size = at + draw(st.integers(0, 9000))
    entry = Entry(kind=Kind.FILE, size=size, segments=tuple(segments), **fields)
    return entry, bytes(i % 251 for i in range(sum(lengths)))


@st.composite
def entries(draw):
    fields = {
        "path": draw(NAMES),
        "mode": draw(st.integers(0, 0o7777)),
        "uid": draw(IDS),
        "gid": draw(IDS),
        "mtime": draw(TIMES),
        "xattrs": draw(XATTRS),
    }
    others = st.one_of(
        st.just(Entry(kind=Kind.DIRECTORY, **fields)),
        st.just(Entry(kind=Kind.FIFO, **fields)),
        NAMES.map(lambda name: Entry(kind=Kind.HARD_LINK, target=name, **fields)),
        NAMES.map(lambda name: Entry(kind=Kind.SYMLINK, target=b"../" + name, **fields)),
        st.sampled_from([Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE]).map(
            lambda kind: Entry(kind=kind, device=(4095, (1 << 20) - 1), **fields)
        ),
    ).map(lambda entry: (entry, b""))
    return draw(st.one_of(files(**fields), sparse_files(**fields), others))


def encoded(contents):
    return b"".join(encode((entry, (content,)) for entry, content in contents))


def decoded(tar, chunk=512):
    decoder = Decoder(tar[at : at + chunk] for at in range(0, len(tar), chunk))
    return [(entry, b"".join(bytes(piece) for _, piece in decoder.content())) for entry in decoder]


@given(st.lists(entries(), max_size=4), st.sampled_from([100, 512, 1000, 1 << 20]))
def test_what_is_encoded_is_decoded_whatever_the_chunks(contents, chunk):
    assert decoded(encoded(contents), chunk) == contents


@given(st.lists(entries(), max_size=3))
def test_tarfile_reads_the_same(contents):
    with tarfile.open(
        fileobj=io.BytesIO(encoded(contents)), encoding="utf-8", errors="surrogateescape"
    ) as tar:
        members = tar.getmembers()
        read = [tar.extractfile(member).read() if member.isreg() else b"" for member in members]
    names = [member.name.encode(errors="surrogateescape") for member in members]
    assert names == [entry.path for entry, _ in contents]
    for member, content, (entry, stored) in zip(members, read, contents, strict=True):
        assert (member.mode, member.uid, member.gid) == (entry.mode, entry.uid, entry.gid)
        assert member.linkname.encode(errors="surrogateescape") == entry.target
        assert (member.devmajor, member.devminor) == entry.device
        assert content == expanded(entry, stored)


def expanded(entry, stored):
    if entry.segments is None:
        return stored
    file = io.BytesIO(bytes(entry.size))
    for offset, length in entry.segments:
        file.seek(offset)
        file.write(stored[:length])
        stored = stored[length:]
    return file.getvalue()


def test_a_pax_record_of_any_length_counts_itself_rightly():
    """At 10, 100 and 1000 bytes the length itself grows by a digit."""
    for length in (*range(120), *range(900, 1010)):
        entry = Entry(b"f", Kind.FILE, xattrs=((b"user.a", b"x" * length),))
        assert decoded(encoded([(entry, b"")])) == [(entry, b"")]


def test_a_size_beyond_8_gib_stands_in_a_pax_record():
    parts = encode([(Entry(b"f", Kind.FILE, size=9 << 30), ())])
    _, body, header = next(parts), next(parts), next(parts)
    assert body.startswith(b"19 size=9663676416\n")
    assert header[124:136] == b"00000000000\0"


def test_the_same_entries_give_the_same_bytes():
    contents = [(Entry(b"d", Kind.DIRECTORY, mtime=1), b""), (Entry(b"d/f", Kind.FILE, size=3), b"abc")]
    assert encoded(contents) == encoded(contents)


def test_what_fits_has_no_pax_header():
    """A file of one block: header, content, end of archive."""
    assert len(encoded([(Entry(b"f", Kind.FILE, size=3), b"abc")])) == 4 * 512


def test_a_name_of_200_bytes_with_a_slash_in_the_middle_needs_no_pax_header():
    assert len(encoded([(Entry(b"d" * 99 + b"/" + b"f" * 100, Kind.FILE), b"")])) == 3 * 512


def test_a_directory_ends_in_a_slash_so_that_old_programs_know_it():
    assert encoded([(Entry(b"etc", Kind.DIRECTORY), b"")]).startswith(b"etc/\0")


def test_the_root_is_written_as_a_dot():
    assert encoded([(Entry(b"", Kind.DIRECTORY), b"")]).startswith(b"./\0")


def test_content_that_is_too_short_fails():
    with pytest.raises(LayerError, match="'f' has not the size") as caught:
        encoded([(Entry(b"f", Kind.FILE, size=4), b"abc")])
    assert caught.value.path == "f"


def test_content_that_is_too_long_fails():
    with pytest.raises(LayerError, match="'f' has not the size"):
        encoded([(Entry(b"f", Kind.FILE, size=2), b"abc")])


def test_an_attribute_whose_name_pax_cannot_hold_fails():
    with pytest.raises(UnsupportedEntry, match=r"user\.a=b"):
        encoded([(Entry(b"f", Kind.FILE, xattrs=((b"user.a=b", b"1"),)), b"")])


def test_an_archive_of_nothing_is_two_zero_blocks():
    assert encoded([]) == bytes(1024)


def test_tarfile_knows_each_kind():
    kinds = [kind for kind in Kind if kind is not Kind.FILE]
    contents = [(Entry(b"x", kind, target=b"t" if "link" in kind.value else b""), b"") for kind in kinds]
    with tarfile.open(fileobj=io.BytesIO(encoded(contents))) as tar:
        flags = b"".join(member.type for member in tar.getmembers())
    assert flags == b"521346"
