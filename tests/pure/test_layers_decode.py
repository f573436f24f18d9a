"""Tar in all its forms; Python's tarfile writes some, others are made by hand."""

import io
import tarfile
from contextlib import suppress

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import given

from pycontain.errors import InvalidImage, LayerTooLarge, UnsupportedEntry
from pycontain.layers.decode import Decoder
from pycontain.layers.entries import Entry, Kind, Limits
from pycontain.layers.headers import HEADER, checksum

END = bytes(1024)


def header(name=b"f", flag=b"0", size=b"0", magic=b"ustar\x0000", **fields):
    """A header as bytes, each field as it shall stand there."""
    given = {"mode": b"644", "uid": b"0", "gid": b"0", "mtime": b"0", "link": b"", "major": b"", "minor": b""}
    given |= {"prefix": b""} | fields
    block = HEADER.pack(
        name,
        given["mode"],
        given["uid"],
        given["gid"],
        size,
        given["mtime"],
        b" " * 8,
        flag,
        given["link"],
        magic,
        b"",
        b"",
        given["major"],
        given["minor"],
        given["prefix"],
    )
    return summed(block)


def summed(block):
    return block[:148] + b"%06o\0 " % checksum(block) + block[156:]


def blocks(content):
    return content + bytes(-len(content) % 512)


def pax(*records, flag=b"x"):
    """A pax header; each record's length counts its own one or two digits."""
    body = b"".join(b"%d %s" % (len(one) + (2 if len(one) < 8 else 3), one) for one in records)
    return header(b"pax", flag, b"%o" % len(body)) + blocks(body)


def record(key, value):
    return b"%s=%s\n" % (key, value)


def decoded(*parts, **options):
    decoder = Decoder([b"".join(parts)], **options)
    return [(entry, b"".join(bytes(piece) for _, piece in decoder.content())) for entry in decoder]


def entry_of(*parts):
    ((entry, _),) = decoded(*parts)
    return entry


# --- what tarfile writes --------------------------------------------------------------------------------


def written_by_tarfile(form, members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def member(name, kind=tarfile.REGTYPE, content=b"", **fields):
    made = tarfile.TarInfo(name)
    made.type, made.size = kind, len(content)
    for key, value in fields.items():
        setattr(made, key, value)
    return made, content


MEMBERS = [
    member("dir", tarfile.DIRTYPE, mode=0o1777, mtime=1700000000),
    member("dir/file", content=b"x" * 700, uid=1000, gid=100, mode=0o4755),
    member("link", tarfile.SYMTYPE, linkname="../dir//file"),
    member("hard", tarfile.LNKTYPE, linkname="./dir/file"),
    member("tty", tarfile.CHRTYPE, devmajor=4, devminor=1),
    member("sda", tarfile.BLKTYPE, devmajor=8, devminor=300),
    member("fifo", tarfile.FIFOTYPE),
    member("/absolute/../above", content=b"abc"),
]
LONG = [
    member("long/" * 30 + "name", content=b"abc"),
    member("x" * 100, tarfile.SYMTYPE, linkname="target/" * 40),
    member("ünïcode" * 20, content=b"abc"),
]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_kinds_are_read_in_all_formats_of_tarfile(form):
    assert decoded(written_by_tarfile(form, MEMBERS)) == [
        (Entry(b"dir", Kind.DIRECTORY, mode=0o1777, mtime=1_700_000_000 * 10**9), b""),
        (Entry(b"dir/file", Kind.FILE, mode=0o4755, uid=1000, gid=100, size=700), b"x" * 700),
        (Entry(b"link", Kind.SYMLINK, target=b"../dir//file"), b""),
        (Entry(b"hard", Kind.HARD_LINK, target=b"dir/file"), b""),
        (Entry(b"tty", Kind.CHARACTER_DEVICE, device=(4, 1)), b""),
        (Entry(b"sda", Kind.BLOCK_DEVICE, device=(8, 300)), b""),
        (Entry(b"fifo", Kind.FIFO), b""),
        (Entry(b"above", Kind.FILE, size=3), b"abc"),
    ]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_links_are_read(form):
    found = decoded(written_by_tarfile(form, LONG))
    assert [entry.path.decode() for entry, _ in found] == [made.name for made, _ in LONG]
    assert found[1][0].target == b"target/" * 40


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_large_ids_are_read(form):
    entry = entry_of(written_by_tarfile(form, [member("f", uid=3_000_000_000, gid=2_097_152)]))
    assert (entry.uid, entry.gid) == (3_000_000_000, 2_097_152)


def test_a_fraction_of_a_second_is_read_to_the_nanosecond():
    assert entry_of(pax(record(b"mtime", b"1.1234567899")), header()).mtime == 1_123_456_789


def test_a_time_before_the_epoch_is_read():
    assert entry_of(pax(record(b"mtime", b"-1.5")), header()).mtime == -1_500_000_000


def test_a_negative_time_in_base_256_is_read():
    assert entry_of(header(mtime=b"\xff" * 12)).mtime == -(10**9)


def test_extended_attributes_keep_every_byte():
    value = b"\0\n=\xff"
    entry = entry_of(pax(record(b"SCHILY.xattr.user.x", value)), header())
    assert entry.xattrs == ((b"user.x", value),)


def test_an_attribute_may_be_empty():
    entry = entry_of(pax(record(b"SCHILY.xattr.user.x", b"")), header())
    assert entry.xattrs == ((b"user.x", b""),)


# --- precedence -----------------------------------------------------------------------------------------


def test_the_prefix_of_ustar_comes_before_the_name():
    assert entry_of(header(b"name", prefix=b"dir/sub")).path == b"dir/sub/name"


def test_the_prefix_field_of_gnu_is_no_prefix():
    assert entry_of(header(b"name", prefix=b"00000000001", magic=b"ustar  \0")).path == b"name"


def test_a_pax_header_holds_for_one_entry():
    found = decoded(pax(record(b"path", b"other")), header(), header())
    assert [entry.path for entry, _ in found] == [b"other", b"f"]


def test_a_global_header_holds_for_all_that_follow():
    found = decoded(pax(record(b"uid", b"7000"), flag=b"g"), header(), header())
    assert [entry.uid for entry, _ in found] == [7000, 7000]


def test_an_entrys_own_header_comes_before_the_global_one():
    globals_ = pax(record(b"uid", b"7000"), flag=b"g")
    assert entry_of(globals_, pax(record(b"uid", b"8000")), header()).uid == 8000


def test_an_empty_record_gives_the_header_back_its_word():
    globals_ = pax(record(b"path", b"other"), flag=b"g")
    assert entry_of(globals_, pax(record(b"path", b"")), header()).path == b"f"


def test_the_size_in_pax_is_the_one_that_counts():
    found = decoded(pax(record(b"size", b"003")), header(size=b"0"), blocks(b"abc"), header(b"next"))
    assert [content for _, content in found] == [b"abc", b""]


def test_a_hard_link_has_no_content_whatever_its_size_says():
    found = decoded(header(b"l", b"1", b"7", link=b"f"), header(b"next"))
    assert [entry.path for entry, _ in found] == [b"l", b"next"]


@pytest.mark.parametrize("flag", [b"0", b"\0"])
def test_a_file_whose_name_ends_in_a_slash_is_a_directory(flag):
    assert entry_of(header(b"dir/", flag)).kind is Kind.DIRECTORY


def test_a_contiguous_file_is_a_file():
    assert entry_of(header(flag=b"7")).kind is Kind.FILE


def test_a_volume_label_is_no_entry():
    assert entry_of(header(b"backup", b"V"), header()).path == b"f"


def test_the_name_list_of_a_gnu_dump_directory_is_skipped():
    found = decoded(header(b"d/", b"D", b"5"), blocks(b"Yf\0\0\0"), header())
    assert [(entry.path, entry.size) for entry, _ in found] == [(b"d", 0), (b"f", 0)]


def test_numbers_may_be_padded_with_spaces():
    assert entry_of(header(mode=b"   755 \0", uid=b"0000012 ")).uid == 0o12


def test_a_checksum_of_signed_bytes_is_accepted():
    block = header(b"\xe4\xf6\xfc")
    signed = checksum(block) - 3 * 256
    assert entry_of(block[:148] + b"%06o\0 " % signed + block[156:]).path == b"\xe4\xf6\xfc"


# --- sparse files ---------------------------------------------------------------------------------------

SEGMENTS = ((1000, 3), (5000, 2))


def pieces(*parts):
    decoder = Decoder([b"".join(parts)])
    entry = next(iter(decoder))
    return entry, [(at, bytes(piece)) for at, piece in decoder.content()]


def check_sparse(entry, found):
    assert (entry.path, entry.size, entry.segments) == (b"real", 9000, SEGMENTS)
    assert found == [(1000, b"abc"), (5000, b"de")]


def test_sparse_files_of_old_gnu_tar_are_read():
    block = bytearray(header(b"real", b"S", b"5", magic=b"ustar  \0"))
    for at, text in ((386, b"1750\0"), (398, b"3\0"), (410, b"11610\0"), (422, b"2\0"), (483, b"21450\0")):
        block[at : at + len(text)] = text
    check_sparse(*pieces(summed(bytes(block)), blocks(b"abcde")))


def test_a_map_that_goes_on_in_further_blocks_is_read():
    """Four segments fit into the header and 21 into each further block."""
    pairs = [(b"%o" % at).ljust(12, b"\0") + b"1".ljust(12, b"\0") for at in range(0, 30 * 64, 64)]
    block = header(b"real", b"S", b"36", magic=b"ustar  \0")
    block = block[:386] + b"".join(pairs[:4]) + b"\1" + b"21450".ljust(12, b"\0") + block[495:]
    further = b"".join(pairs[4:25]) + b"\1" + bytes(7) + blocks(b"".join(pairs[25:]))
    entry, found = pieces(summed(block), further, blocks(b"x" * 30))
    assert entry.segments == tuple((at, 1) for at in range(0, 30 * 64, 64))
    assert found == [(at, b"x") for at, _ in entry.segments]


def test_sparse_files_of_form_0_0_are_read():
    records = [record(b"GNU.sparse.size", b"9000"), record(b"GNU.sparse.numblocks", b"2")]
    for at, length in SEGMENTS:
        records += [record(b"GNU.sparse.offset", b"%d" % at), record(b"GNU.sparse.numbytes", b"%d" % length)]
    check_sparse(*pieces(pax(*records), header(b"real", size=b"5"), blocks(b"abcde")))


def test_sparse_files_of_form_0_1_are_read():
    records = [
        record(b"GNU.sparse.size", b"9000"),
        record(b"GNU.sparse.name", b"real"),
        record(b"GNU.sparse.map", b"1000,3,5000,2"),
    ]
    check_sparse(*pieces(pax(*records), header(b"GNUSparseFile.1/real", size=b"5"), blocks(b"abcde")))


def sparse_1_0(size=b"9000", text=b"2\n1000\n3\n5000\n2\n", content=b"abcde"):
    records = [
        record(b"GNU.sparse.major", b"1"),
        record(b"GNU.sparse.minor", b"0"),
        record(b"GNU.sparse.name", b"real"),
        record(b"GNU.sparse.realsize", size),
    ]
    body = blocks(text) + content
    return pax(*records), header(b"GNUSparseFile.1/real", size=b"%o" % len(body)), blocks(body)


def test_sparse_files_of_form_1_0_are_read():
    check_sparse(*pieces(*sparse_1_0()))


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (b"9000", b"2\n5000\n3\n1000\n2\n"),
        (b"9000", b"2\n1000\n3\n1002\n2\n"),
        (b"4000", b"2\n1000\n3\n5000\n2\n"),
        (b"9000", b"1\n1000\n3\n"),
        (b"9000", b"2\n1000\nthree\n5000\n2\n"),
        (b"9000", b"99999999999999999999\n"),
    ],
    ids=["unordered", "overlapping", "beyond the end", "less than is stored", "no number", "endless"],
)
def test_a_sparse_map_that_makes_no_sense_is_refused(size, text):
    with pytest.raises(InvalidImage):
        pieces(*sparse_1_0(size, text))


def test_a_map_in_pairs_has_no_odd_number():
    records = [record(b"GNU.sparse.size", b"9000"), record(b"GNU.sparse.map", b"1000,3,5000")]
    with pytest.raises(InvalidImage, match="map of a sparse file"):
        pieces(pax(*records), header(b"real", size=b"3"), blocks(b"abc"))


@pytest.mark.parametrize("count", [b"1000000", b"9" * 20])
def test_a_map_without_an_end_is_refused(count):
    body = count + b"\n" + b"0\n" * (1 << 20)
    with pytest.raises(InvalidImage, match="too long"):
        pieces(*sparse_1_0(text=body))


def test_an_old_map_without_an_end_is_refused():
    block = header(b"real", b"S", magic=b"ustar  \0")
    first = summed(block[:482] + b"\1" + block[483:])
    with pytest.raises(InvalidImage, match="too long"):
        pieces(first, (bytes(504) + b"\1" + bytes(7)) * 3000)


def test_a_form_of_sparse_files_that_nobody_knows_is_a_plain_file():
    """As Go has it."""
    entry, found = pieces(pax(record(b"GNU.sparse.major", b"7")), header(size=b"3"), blocks(b"abc"))
    assert (entry.segments, found) == (None, [(0, b"abc")])


# --- the end --------------------------------------------------------------------------------------------


def test_no_bytes_at_all_are_an_archive_of_nothing():
    assert decoded() == []


def test_an_archive_may_end_without_its_two_zero_blocks():
    assert len(decoded(header())) == 1


def test_an_archive_may_be_a_label_and_nothing_else():
    assert decoded(header(b"backup", b"V"), END) == []


def test_what_follows_the_end_is_read_and_means_nothing():
    chunks = iter([header() + END, header(b"later"), b"garbage"])
    assert len(list(Decoder(chunks))) == 1
    assert next(chunks, None) is None


# --- bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 511, 513, 1023])
def test_an_archive_that_ends_within_an_entry_is_refused(cut):
    whole = header(size=b"1000") + blocks(b"x" * 512)
    with pytest.raises(InvalidImage, match=r"ends too soon"):
        decoded(whole[:cut])


def test_an_archive_that_ends_within_a_pax_header_is_refused():
    with pytest.raises(InvalidImage, match="ends too soon"):
        decoded(pax(record(b"path", b"x"))[:700])


@given(st.integers(0, 511), st.integers(1, 255))
def test_any_flipped_bits_in_a_header_are_found(at, bits):
    """Except in the checksum itself, where what counts is the number that it says."""
    block = bytearray(header(b"name"))
    block[at] ^= bits
    try:
        ((entry, _),) = decoded(bytes(block))
    except InvalidImage:
        return
    assert 148 <= at < 156
    assert entry.path == b"name"


@given(st.binary(min_size=1, max_size=2000))
def test_garbage_is_refused_or_read_but_never_crashes(data):
    with suppress(InvalidImage, UnsupportedEntry):
        decoded(data)


@given(st.binary(max_size=600))
def test_a_garbled_pax_header_is_refused_or_read_but_never_crashes(body):
    with suppress(InvalidImage, LayerTooLarge):
        decoded(header(b"pax", b"x", b"%o" % len(body)), blocks(body), header())


@pytest.mark.parametrize(
    "block",
    [
        header(size=b"\xff" * 12),
        header(uid=b"\x80\0\0\0\xff\xff\xff\xff"),
        header(gid=b"\xff" * 8),
        header(size=b"12x"),
        header(size=b"189"),
        header(mtime=b"\x80" + b"\xff" * 11),
        header(flag=b"2", link=b""),
        header(flag=b"3", major=b"10000"),
    ],
    ids=["negative size", "uid -1", "negative gid", "no digits", "no octal", "time", "no target", "major"],
)
def test_a_value_that_no_system_call_takes_is_refused(block):
    with pytest.raises(InvalidImage):
        decoded(block)


@pytest.mark.parametrize(
    "text", [b"mtime=1.x\n", b"mtime=soon\n", b"uid=-1\n", b"size=0x10\n", b"gid=" + b"1" * 21 + b"\n"]
)
def test_a_pax_record_without_its_number_is_refused(text):
    with pytest.raises(InvalidImage, match="belongs"):
        decoded(pax(text), header())


@pytest.mark.parametrize("key", [b"path", b"linkpath"])
def test_a_nul_byte_in_a_name_is_refused(key):
    with pytest.raises(InvalidImage, match="NUL"):
        decoded(pax(record(key, b"a\0b")), header(flag=b"2", link=b"x"))


@pytest.mark.parametrize(
    "text", [b"path=x\n", b"8 path=x\n", b"11 path=x\n", b"0 path=x\n", b"7 path\n", b"5 =x\n", b"10 path=xy"]
)
def test_a_pax_record_with_a_wrong_length_or_form_is_refused(text):
    with pytest.raises(InvalidImage, match="malformed"):
        decoded(header(b"pax", b"x", b"%o" % len(text)) + blocks(text), header())


def test_an_archive_that_ends_after_a_pax_header_is_refused():
    with pytest.raises(InvalidImage, match="ends too soon"):
        decoded(pax(record(b"path", b"x")), END)


def test_an_unknown_type_is_refused_and_named():
    with pytest.raises(UnsupportedEntry, match="'f' has the unknown tar type b'Z'"):
        decoded(header(flag=b"Z"))


def test_extended_headers_without_an_end_are_refused():
    """A layer cannot fill the memory with headers that belong to no entry."""
    with pytest.raises(InvalidImage, match="too long"):
        decoded(*[pax(record(b"comment", b"x" * 80))] * 2000)


def test_an_extended_header_of_a_gigabyte_is_refused():
    with pytest.raises(InvalidImage, match="too long"):
        decoded(header(b"pax", b"x", b"10000000000"))


def test_global_headers_keep_only_what_could_hold_for_every_entry():
    """So that a million of their records cannot slow down a million entries."""
    decoder = Decoder([pax(record(b"comment", b"x"), record(b"gid", b"7"), flag=b"g"), header()])
    assert [entry.gid for entry in decoder] == [7]
    assert decoder._globals == {b"gid": b"7"}


# --- limits ---------------------------------------------------------------------------------------------


def test_too_many_entries_are_refused():
    with pytest.raises(LayerTooLarge, match="more than 2 entries, met at 'third'"):
        decoded(header(), header(), header(b"third"), limits=Limits(max_entries=2))


def test_a_sparse_file_counts_with_the_size_that_it_seems_to_have():
    with pytest.raises(LayerTooLarge, match="more than 8999 bytes"):
        decoded(*sparse_1_0(), limits=Limits(max_bytes=8999))


def test_too_many_bytes_are_refused_where_they_come_out():
    with pytest.raises(LayerTooLarge, match="met at 'f'"):
        list(Decoder([header(size=b"2000"), bytes(1024)], attrs.evolve(Limits(), max_bytes=1500)))


def test_the_ratio_is_judged_by_what_the_caller_says_was_read():
    chunks = [header(size=b"1000000000")] + [bytes(1 << 20)] * 65
    with pytest.raises(LayerTooLarge, match="200 times"):
        list(Decoder(chunks, compressed=lambda: 1000))
