"""Tests with several parameters: every pair of values by default, the whole product in the long run.

Most mistakes that depend on parameters depend on two of them (Kuhn, Wallace & Gallo 2004), and every
pair of values needs far fewer cases than every combination of all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import settings

# The Hypothesis profile of the default run, loaded in conftest.py.
DEFAULT_RUN = "default run"


def all_pairs(*sizes: int) -> list[tuple[int, ...]]:
    """Rows of indices below `sizes`: any two indices at any two places occur together in some row.

    Each row is the first of those that hold the most pairs not yet seen.
    """
    places = list(itertools.combinations(range(len(sizes)), 2))
    product = list(itertools.product(*map(range, sizes)))
    if not places:
        return product
    seen: set[tuple[int, int, int, int]] = set()
    rows = []

    def unseen(row: tuple[int, ...]) -> int:
        return sum((i, j, row[i], row[j]) not in seen for i, j in places)

    for most in range(len(places), 0, -1):
        # Rows only lose pairs: none passed over holds `most` of them later.
        for row in product:
            if unseen(row) == most:
                rows.append(row)
                seen.update((i, j, row[i], row[j]) for i, j in places)
    return rows


def in_pairs(**parameters: Mapping[str, Any] | Iterable[Any]) -> pytest.MarkDecorator:
    """Parametrises a test by the product of `parameters`; what pairs do not need is marked `long`.

    A parameter is given by its values, or by a mapping from names, which appear in the test's
    identifier, to values.
    """
    tables = [
        list(p.items()) if isinstance(p, Mapping) else [(str(value), value) for value in p]
        for p in parameters.values()
    ]
    enough = set(all_pairs(*map(len, tables)))
    cases = []
    for row in itertools.product(*(range(len(table)) for table in tables)):
        chosen = [table[i] for table, i in zip(tables, row, strict=True)]
        cases.append(
            pytest.param(
                *(value for _, value in chosen),
                id="-".join(name for name, _ in chosen),
                marks=() if row in enough else pytest.mark.long,
            )
        )
    return pytest.mark.parametrize(tuple(parameters), cases)


def name(solver: object) -> str:
    """The class of a solver, with what tells it from others of its class."""
    kind = getattr(solver, "kind", None)
    inner = getattr(solver, "linear_solver", None)
    return f"{type(solver).__name__}{kind or (type(inner).__name__ if inner else '')}"


def few_examples(few: int = 3) -> settings:
    """The settings of a property with many cases: `few` examples each by default, 20 in the long run."""
    many = settings.get_profile("specification").max_examples
    short = settings.get_current_profile_name() == DEFAULT_RUN
    return settings(max_examples=few if short else many)
