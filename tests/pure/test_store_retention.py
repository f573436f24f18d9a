"""Which images are forgotten: the least recently used, none in use, and no more than needed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycontain.store.retention import Named, choose_forgotten

SIZES = {"base": 100, "a": 10, "b": 20, "c": 30}
A = Named("a", 1.0, frozenset({"base", "a"}))
B = Named("b", 2.0, frozenset({"base", "b"}))
C = Named("c", 3.0, frozenset({"c"}))


def test_without_limits_nothing_is_forgotten():
    assert choose_forgotten([A, B, C], SIZES) == ()


@pytest.mark.parametrize(
    ("max_bytes", "forgotten"),
    [(160, ()), (159, ("a",)), (150, ("a",)), (149, ("a", "b")), (30, ("a", "b")), (29, ("a", "b", "c"))],
)
def test_the_least_recently_used_are_forgotten_until_it_fits(max_bytes, forgotten):
    """What two images share is freed with the last of them."""
    assert choose_forgotten([C, B, A], SIZES, max_bytes=max_bytes) == forgotten


def test_what_was_not_used_for_long_is_forgotten():
    assert choose_forgotten([A, B, C], SIZES, unused_since=2.0) == ("a",)


def test_what_is_in_use_is_not_forgotten():
    busy = Named("a", 0.0, A.needs, in_use=True)
    assert choose_forgotten([busy, C], SIZES, unused_since=9.0, max_bytes=0) == ("c",)


def test_what_is_protected_does_not_count_as_freed():
    """So the next image is forgotten too, in the hope that it frees enough."""
    assert choose_forgotten([A, C], SIZES, {"a", "base"}, max_bytes=139) == ("a", "c")


things = st.sampled_from(range(6))
images = st.lists(
    st.builds(
        Named,
        st.uuids().map(str),
        st.floats(0, 10),
        st.frozensets(things),
        st.booleans(),
    ),
    max_size=8,
)
sizes = st.dictionaries(things, st.integers(0, 100))


def bytes_of(images, sizes, protected):
    return sum(
        sizes.get(thing, 0) for thing in frozenset(protected).union(*(image.needs for image in images))
    )


@given(images, sizes, st.frozensets(things), st.integers(0, 300))
def test_the_limit_is_kept_or_only_images_in_use_are_left(images, sizes, protected, limit):
    forgotten = choose_forgotten(images, sizes, protected, max_bytes=limit)
    left = [image for image in images if image.name not in forgotten]
    assert bytes_of(left, sizes, protected) <= limit or all(image.in_use for image in left)


@given(images, sizes, st.frozensets(things), st.integers(0, 300))
def test_no_image_is_forgotten_once_it_fits(images, sizes, protected, limit):
    *but_last, _ = (None, *choose_forgotten(images, sizes, protected, max_bytes=limit))
    left = [image for image in images if image.name not in but_last]
    assert len(but_last) == 0 or bytes_of(left, sizes, protected) > limit
