"""Cells that are left of a study, given out to this run as it claims them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from .cell import Cell
from .errors import StoreError
from .store import Claims, Store

Pair = tuple[Cell, dict[str, Any]]
"""A cell, and the columns of its row that define it."""
# A run claims several cells at once where they are fast, since each claim takes a look at the store.
_FAST, _SLOW, _MOST = 0.2, 2.0, 64
_LEAST_WAIT, _LONGEST_WAIT = 0.2, 2.0


class Work:
    """Cells of a study that have not ended.

    Args:
        store: The store.
        study: Name of the study.
        claims: Claims of this run.
        planned: All cells of the study by key.

    Attributes:
        left: Cells that have not ended.
        outcomes: Outcomes of those that have.
    """

    def __init__(
        self, store: Store, study: str, claims: Claims, planned: Mapping[str, Pair]
    ) -> None:
        self._store, self._claims = store, claims
        self.outcomes = store.outcomes(study)
        self.left = {key: pair for key, pair in planned.items() if key not in self.outcomes}
        self._waited = _LEAST_WAIT
        self._warned = False

    def units(self, timing: bool) -> Iterator[list[Pair]]:
        """Cells that no other run has claimed, in units whose cells one process runs.

        With `timing`, methods are timed in turn on the same problem, so that a disturbance slows all of them.
        """
        pending = list(self.left.items())
        if timing:
            groups = [list(group) for _, group in groupby(pending, lambda item: item[1][0].group)]
        else:
            groups = [[item] for item in pending]
        size, asked = 1, time.monotonic()
        while groups:
            taken, groups = groups[:size], groups[size:]
            free = self._free([key for group in taken for key, _ in group])
            for group in taken:
                unit = [pair for key, pair in group if key in free]
                if unit:
                    self._waited = _LEAST_WAIT
                    yield unit
            passed, asked = time.monotonic() - asked, time.monotonic()
            size = min(2 * size, _MOST) if passed < _FAST else size
            size = max(size // 2, 1) if passed > _SLOW else size

    def wait(self) -> None:
        """Wait a little for other runs, and take note of the cells that they have ended."""
        time.sleep(self._waited)
        self._waited = min(2 * self._waited, _LONGEST_WAIT)
        self._note_ended(list(self.left))

    def _free(self, keys: list[str]) -> set[str]:
        try:
            free, alone = self._claims.take(keys)
        except StoreError as error:
            if not self._warned:
                warnings.warn(
                    f"{error}. Cells cannot be claimed: another run of this study may repeat them.",
                    stacklevel=2,
                )
            self._warned = True
            return set(keys)
        if not alone:
            # All cells, not these alone: later looks need not notice that another run has been there.
            self._note_ended(list(self.left))
        return {key for key in free if key not in self.outcomes}

    def _note_ended(self, keys: Iterable[str]) -> None:
        """Note the outcomes of other runs' rows."""
        found = self._store.all_outcomes()
        ended = {key: found[key] for key in keys if key in found}
        self.outcomes.update(ended)
        for key in ended:
            self.left.pop(key, None)
