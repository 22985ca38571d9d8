"""Rows on disk: a journal, which is appended to, and Parquet files, which it is compacted into.

```text
STORE/store.json            the version of this layout
STORE/journal.log           one line per row: checksum, then the row in JSON
STORE/rows-000001.parquet   rows that have left the journal
STORE/plans/NAME.json       plan of a study: keys of its cells, configuration and environment
STORE/damaged/              unreadable parts, moved aside
```

A row is in the journal with its checksum before `append` returns. Parquet files are written under another
name, then renamed. A killed process leaves at most half a line at the journal's end. If it is killed between
writing a Parquet file and emptying the journal, a row is in both; the first row with a key counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import StoreError, StoreWarning
from ..row import COLUMNS, Row
from . import parquet
from .disk import disk_errors, replace_text
from .journal import Journal
from .plan import Plan

if TYPE_CHECKING:
    import pandas
    import pyarrow

FORMAT = 1
# A Parquet file of fewer rows counts as small, and this many small files are merged into one.
_JOURNAL_ROWS = 2000
_SMALL_FILES = 8
# Bytes of a journal that is due for compaction.
_LONG_JOURNAL = 2048 * _JOURNAL_ROWS


class Store:
    """Rows of studies in a folder, which several studies may share.

    Several processes may read while one or more append.

    Args:
        path: The folder.
        create: True to create a missing folder.

    Raises:
        StoreError: The folder is not a store, is missing without `create`, or is of another version.

    Examples:
        >>> import tempfile
        >>> from implicitly.studies import Row, Store
        >>> store = Store(tempfile.mkdtemp())
        >>> store.append(Row("k1", "tiny", "boggs", "{}", 2, 1, "root", (), "Newton()", "native", None,
        ...                  None, 1e-8, 0, "float64", "cpu", "{}", "solved", evaluations=7))
        >>> store.rows()[["problem", "outcome", "evaluations"]].values.tolist()
        [['boggs', 'solved', 7]]
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = True) -> None:
        self.path = Path(path)
        self._journal = Journal(self.path / "journal.log")
        marker = self.path / "store.json"
        if not marker.exists():
            if not create:
                raise StoreError(f"there is no store of studies in {self.path}: run a study first")
            if self.path.exists() and any(self.path.iterdir()):
                raise StoreError(
                    f"{self.path} holds other files and is no store: name an empty or new folder"
                )
            with disk_errors(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                replace_text(marker, json.dumps({"store": "implicitly studies", "format": FORMAT}))
        self._check_format(marker)

    def append(self, row: Row) -> None:
        """Write one row; it is on the disk when this returns.

        Raises:
            StoreError: The disk is full, or the folder cannot be written to; nothing was written.
        """
        self.extend((row,))

    def extend(self, rows: Iterable[Row]) -> None:
        """Write several rows at once.

        Raises:
            StoreError: As for `append`; none of `rows` was written.
        """
        with self._locked(), disk_errors(self.path):
            self._journal.extend(rows)

    def rows(
        self, study: str | None = None, columns: Sequence[str] | None = None
    ) -> pandas.DataFrame:
        """Rows of a study in the order of its plan, or of all studies.

        A row computed by another study carries the name of the requested study.

        Args:
            study: Name of a study; `None` for every row in the store.
            columns: Names of columns; `None` for all of `Row`.

        Raises:
            StoreError: No such study, or a file cannot be read.
        """
        import pandas

        wanted = list(COLUMNS if columns is None else columns)
        table = self._table(wanted if "key" in wanted else ["key", *wanted])
        frame = table.to_pandas()
        frame = frame.drop_duplicates("key", ignore_index=True)
        if study is not None:
            plan = self.plan(study)
            places = pandas.Index(frame["key"]).get_indexer(list(plan.keys))
            frame = frame.take(places[places >= 0]).reset_index(drop=True)
            if "study" in frame:
                frame["study"] = study
        return frame[wanted]

    def keys(self) -> set[str]:
        """Keys of all rows."""
        return set(self._table(["key"]).column("key").to_pylist())

    def outcomes(self, study: str) -> dict[str, str]:
        """Outcomes of the ended cells of a study, by key.

        Raises:
            StoreError: No such study, or a file cannot be read.
        """
        found = self.all_outcomes()
        return {key: found[key] for key in self.plan(study).keys if key in found}

    def all_outcomes(self) -> dict[str, str]:
        """Outcomes of all cells in the store, by key."""
        table = self._table(["key", "outcome"])
        keys, outcomes = (table.column(name).to_pylist() for name in ("key", "outcome"))
        # In reverse order, so that the first row with a key counts.
        return dict(zip(reversed(keys), reversed(outcomes), strict=True))

    def write_plan(self, plan: Plan) -> None:
        """Write the plan of a study in place of an earlier one of the same name."""
        with disk_errors(self.path):
            (self.path / "plans").mkdir(exist_ok=True)
            stamped = {**plan.__dict__, "created": plan.created or now()}
            replace_text(self._plan_file(plan.study), json.dumps(stamped, indent=1))

    def plan(self, study: str) -> Plan:
        """The plan of a study.

        Raises:
            StoreError: No study of this name; the message lists the names.
        """
        file = self._plan_file(study)
        if not file.exists():
            known = ", ".join(self.studies()) or "none"
            raise StoreError(f"{self.path} has no study {study!r}; it has: {known}")
        try:
            read = json.loads(file.read_text(encoding="utf-8"))
            return Plan(**{**read, "keys": tuple(read["keys"])})
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(f"{file} cannot be read ({error}): run the study again") from error

    def studies(self) -> list[str]:
        """Names of all studies, in alphabetical order."""
        return sorted(file.stem for file in (self.path / "plans").glob("*.json"))

    def compact(self) -> None:
        """Move the journal's rows, and small Parquet files, into one Parquet file.

        Raises:
            StoreError: The disk is full, or a file cannot be read; no row is lost.
        """
        import pyarrow as pa

        with self._locked(), disk_errors(self.path):
            rows, _ = self._journal.rows()
            files = self._files()
            small = [file for file in files if parquet.count(file) < _JOURNAL_ROWS]
            merged = small if len(small) >= _SMALL_FILES else []
            if not rows and not merged:
                return
            table = pa.concat_tables(
                [*(parquet.read(file, None) for file in merged), parquet.as_table(rows)]
            )
            number = 1 + max((int(file.stem.split("-")[1]) for file in files), default=0)
            parquet.write(table, self.path / f"rows-{number:06d}.parquet")
            self._journal.replace(())
            for old in merged:
                old.unlink()

    def repair(self) -> list[str]:
        """Move unreadable parts into the folder `damaged`, and return a message for each.

        Their cells count as not run.
        """
        said = []
        with self._locked(), disk_errors(self.path):
            aside = self.path / "damaged"
            for file in self._files():
                try:
                    parquet.read(file, None)
                except StoreError as error:
                    aside.mkdir(exist_ok=True)
                    file.replace(aside / f"{_stamp()}-{file.name}")
                    said.append(f"{error}; it has been moved to {aside}")
            rows, damaged = self._journal.rows()
            if damaged:
                aside.mkdir(exist_ok=True)
                (aside / f"{_stamp()}-journal.log").write_bytes(self._journal.path.read_bytes())
                self._journal.replace(rows)
                said.append(
                    f"{damaged} damaged lines were taken out of {self._journal.path}; a copy is in {aside}"
                )
        return said

    @property
    def journal_is_long(self) -> bool:
        """True if it is time to `compact`."""
        return self._journal.size > _LONG_JOURNAL

    def _plan_file(self, study: str) -> Path:
        if not study or any(character in study for character in "/\\\0") or study.startswith("."):
            raise StoreError(f"a study's name must be fit for a file, got {study!r}")
        return self.path / "plans" / f"{study}.json"

    def _files(self) -> list[Path]:
        return sorted(self.path.glob("rows-*.parquet"))

    def _check_format(self, marker: Path) -> None:
        try:
            found = json.loads(marker.read_text(encoding="utf-8"))["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{marker} cannot be read: {self.path} is no store") from error
        if found != FORMAT:
            raise StoreError(
                f"the store {self.path} has format {found}, and this version of implicitly reads "
                f"format {FORMAT}: use the version that wrote it, or name another folder"
            )

    def _table(self, columns: list[str]) -> pyarrow.Table:
        import pyarrow as pa

        # The journal first: rows that leave it meanwhile are read twice rather than missed.
        rows, damaged = self._journal.rows()
        if damaged:
            warnings.warn(
                f"{damaged} damaged lines of {self._journal.path} are left out; resuming a study repairs it",
                StoreWarning,
                stacklevel=3,
            )
        for attempt in range(3):
            try:
                tables = [parquet.read(file, columns) for file in self._files()]
                break
            except FileNotFoundError:  # The file was merged during the read.
                if attempt == 2:
                    raise
        return pa.concat_tables([*tables, parquet.as_table(rows).select(columns)])

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock out other writers of this store while active."""
        with disk_errors(self.path), (self.path / "lock").open("a") as file:
            try:
                import fcntl
            except ImportError:  # On Windows the user must take care of a single writer.
                yield
                return
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _stamp() -> str:
    return datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S%f")
