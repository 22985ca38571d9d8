"""The tables of the default run hold every pair of values, and the long run holds the rest."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pairs import all_pairs, in_pairs


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_any_two_values_of_any_two_parameters_occur_in_some_row(sizes: list[int]) -> None:
    rows = all_pairs(*sizes)
    for i, j in itertools.combinations(range(len(sizes)), 2):
        expected = set(itertools.product(range(sizes[i]), range(sizes[j])))
        assert {(row[i], row[j]) for row in rows} == expected
    for i, size in enumerate(sizes):
        assert {row[i] for row in rows} == set(range(size))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_rows_are_of_the_product_and_no_row_occurs_twice(sizes: list[int]) -> None:
    rows = all_pairs(*sizes)
    assert len(set(rows)) == len(rows)
    assert set(rows) <= set(itertools.product(*map(range, sizes)))


@pytest.mark.parametrize(
    ("sizes", "most"), [((22, 2, 2), 44), ((29, 4, 2, 2), 116), ((8, 14, 2), 112), ((3, 3, 3), 12)]
)
def test_there_are_hardly_more_rows_than_pairs_of_the_two_longest(
    sizes: tuple[int, ...], most: int
) -> None:
    assert len(all_pairs(*sizes)) <= most


def test_the_cases_of_a_test_are_the_product_and_the_long_ones_are_those_beyond_pairs() -> None:
    mark = in_pairs(a={"one": 1, "two": 2}, b="xy", c=(True, False)).mark
    names, cases = mark.args
    assert names == ("a", "b", "c")
    assert {case.values for case in cases} == set(itertools.product((1, 2), "xy", (True, False)))
    default = [case for case in cases if not case.marks]
    assert [case.id for case in default] == [
        "one-x-True",
        "one-y-False",
        "two-x-False",
        "two-y-True",
    ]
    assert all(case.marks[0].name == "long" for case in cases if case not in default)
