"""Counts of outcomes and of exceptions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CHANGING = re.compile(r"0x[0-9a-fA-F]+|[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def outcome_counts(
    outcomes: NDArray[np.int64], groups: NDArray[np.int64], kinds: int, sizes: int
) -> NDArray[np.int64]:
    """Counts of each outcome in each group.

    Args:
        outcomes: Number of the outcome of each cell, shape `(cells,)`.
        groups: Number of the group of each cell, such as its solver, shape `(cells,)`.
        kinds: Number of outcomes.
        sizes: Number of groups.

    Returns:
        Counts, shape `(groups, outcomes)`.

    Examples:
        >>> counts = outcome_counts(np.array((0, 0, 1)), np.array((0, 1, 1)), 2, 2)
        >>> tuple(counts[0].tolist()), tuple(counts[1].tolist())
        ((1, 0), (1, 1))
    """
    flat = np.bincount(groups * kinds + outcomes, minlength=kinds * sizes)
    return flat.reshape(sizes, kinds)


@dataclass(frozen=True)
class Raised:
    """Exceptions with the same text up to numbers in it.

    Attributes:
        text: The first of them, as it is.
        count: Number of them.
        first: Index of the first.
        owners: Owners of the cells that raised it, in order of their first one.
    """

    text: str
    count: int
    first: int
    owners: tuple[str, ...]


def group_exceptions(texts: Iterable[str | None], owners: Sequence[str]) -> tuple[Raised, ...]:
    """Exceptions grouped by text up to numbers and addresses, the most frequent first.

    Args:
        texts: Text of each cell's exception, `None` where there was none.
        owners: Owner of each text, such as the cell's solver.

    Examples:
        >>> grouped = group_exceptions(("ValueError: got 3", None, "ValueError: got 4"), ("a", "b", "c"))
        >>> (grouped[0].text, grouped[0].count, grouped[0].owners)
        ('ValueError: got 3', 2, ('a', 'c'))
    """
    found: dict[str, tuple[str, int, list[int], dict[str, None]]] = {}
    for index, text in enumerate(texts):
        if text is None:
            continue
        pattern = _CHANGING.sub("#", text)
        _, _, places, names = found.setdefault(pattern, (text, index, [], {}))
        places.append(index)
        names.setdefault(owners[index])
    grouped = [
        Raised(text, len(places), first, tuple(names))
        for text, first, places, names in found.values()
    ]
    return tuple(sorted(grouped, key=lambda raised: (-raised.count, raised.first)))
