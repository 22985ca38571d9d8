"""Progress of studies, and export of their rows."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from .errors import StudyError
from .store import Store

if TYPE_CHECKING:
    import pandas

Layout = Literal["rows", "benchopt"]


@dataclass(frozen=True)
class Progress:
    """Progress of a study.

    Attributes:
        study: Its name.
        cells: Cells that it consists of.
        outcomes: Cells that have ended, by outcome.

    Examples:
        >>> Progress("tiny", 4, {"solved": 2, "crashed": 1}).left
        1
    """

    study: str
    cells: int
    outcomes: Mapping[str, int]

    @property
    def ended(self) -> int:
        """Number of cells that have ended."""
        return sum(self.outcomes.values())

    @property
    def left(self) -> int:
        """Number of cells still to run."""
        return self.cells - self.ended


def status(store: Store) -> list[Progress]:
    """Progress of each study of a store, in alphabetical order.

    Examples:
        >>> import tempfile
        >>> from implicitly import studies
        >>> store = studies.Store(tempfile.mkdtemp())
        >>> tiny = studies.StudyConfiguration(name="tiny", problems=["boggs"], solvers=["newton"])
        >>> _ = studies.run(tiny, store)
        >>> [(progress.study, progress.left) for progress in studies.status(store)]
        [('tiny', 0)]
    """
    plans = [store.plan(study) for study in store.studies()]
    outcomes = store.all_outcomes() if plans else {}
    return [
        Progress(
            plan.study, len(plan.keys), Counter(outcomes[k] for k in plan.keys if k in outcomes)
        )
        for plan in plans
    ]


def export(
    rows: pandas.DataFrame, path: str | os.PathLike[str], *, layout: Layout = "rows"
) -> Path:
    """Write rows, as `Store.rows` returns them, in the format of the ending of `path`.

    Args:
        rows: The rows.
        path: A file that ends in `.csv`, `.json` (a list of objects) or `.parquet`; its folder is created.
        layout: `"rows"`, or `"benchopt"` for a row per point of a convergence curve, which benchopt plots
            from `.csv` and `.parquet`.

    Raises:
        StudyError: Another ending or layout, or the file cannot be written.

    Examples:
        >>> import tempfile
        >>> from implicitly import studies
        >>> store = studies.Store(tempfile.mkdtemp())
        >>> tiny = studies.StudyConfiguration(name="tiny", problems=["boggs"], solvers=["newton"])
        >>> _ = studies.run(tiny, store)
        >>> studies.export(store.rows("tiny"), tempfile.mkdtemp() + "/tiny.csv").name
        'tiny.csv'
    """
    file = Path(path)
    if layout not in get_args(Layout):
        raise StudyError(f"the layout must be one of {', '.join(get_args(Layout))}, got {layout!r}")
    if layout == "benchopt":
        from .reporting.benchopt import benchopt_table

        rows = benchopt_table(rows)
    writers = {
        ".csv": lambda: rows.to_csv(file, index=False),
        ".json": lambda: rows.to_json(file, orient="records", indent=1),
        ".parquet": lambda: rows.to_parquet(file, index=False),
    }
    if file.suffix not in writers:
        raise StudyError(f"the file must end in {', '.join(writers)}, got {file.name!r}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        writers[file.suffix]()
    except OSError as error:
        raise StudyError(f"{file} cannot be written: {error}") from error
    return file
