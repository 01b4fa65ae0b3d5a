"""Orders of elements in memory, against numpy moving the elements."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainlet.frontends.layout import (
    channels_last,
    finest,
    flat_index,
    order_of,
    permutation,
    rows_and_columns,
    split,
    transposed,
)

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


@st.composite
def shapes_and_perms(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape = draw(shapes)
    return shape, tuple(draw(st.permutations(range(len(shape)))))


@settings(deadline=None)
@given(shapes_and_perms())
def test_flat_index_is_what_transposing_the_elements_gives(
    case: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    shape, perm = case
    elements = np.arange(math.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(flat_index(order_of(shape, perm)), elements.transpose(perm).reshape(-1))


@settings(deadline=None)
@given(shapes_and_perms())
def test_permutation_finds_an_equal_order(case: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    shape, perm = case
    found = permutation(order_of(shape, perm), shape)
    assert found is not None and order_of(shape, found) == order_of(shape, perm)


@settings(deadline=None)
@given(shapes_and_perms(), st.data())
def test_transposing_the_user_s_view_moves_no_element(
    case: tuple[tuple[int, ...], tuple[int, ...]], data: st.DataObject
) -> None:
    shape, perm = case
    order = order_of(shape, perm)
    user_perm = data.draw(st.permutations(range(len(shape))))
    after = transposed(order, shape, user_perm)
    assert after is not None
    user = np.arange(math.prod(shape)).reshape(shape)
    stored = user.reshape(-1)[flat_index(order)]
    np.testing.assert_array_equal(user.transpose(user_perm).reshape(-1)[flat_index(after)], stored)


def test_channels_last_and_first_store_alike_where_space_is_one_pixel() -> None:
    assert order_of((2, 5, 1, 1), channels_last(4)) == order_of((2, 5, 1, 1))


def test_flattened_channels_last_has_ordered_rows_and_moved_columns() -> None:
    rows, columns = rows_and_columns(order_of((2, 3, 4, 5), channels_last(4)), 60) or ((), ())
    assert rows == ((2, 60),)
    np.testing.assert_array_equal(flat_index(columns), np.arange(60).reshape(3, 20).T.reshape(-1))


def test_interleaved_rows_and_columns_are_reported() -> None:
    assert rows_and_columns(order_of((2, 3), (1, 0)), 3) is None


def test_a_cut_that_does_not_divide_is_reported() -> None:
    assert split(((6, 1),), (4,)) is None
    assert finest(((6, 1),), (3, 2)) == (((3, 2),), ((2, 1),))


def test_an_order_that_splits_a_dimension_is_no_permutation() -> None:
    assert permutation(order_of((2, 3, 4), (0, 2, 1)), (2, 12)) is None
