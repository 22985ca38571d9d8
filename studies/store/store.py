"""Rows on disk: a journal, which is appended to, and Parquet files, which it is compacted into.

```text
STORE/store.json            the version of this layout
STORE/journal.log           one line per row: checksum, then the row in JSON
STORE/rows-000001.parquet   rows that have left the journal
STORE/plans/NAME.json       plan of a study: keys of its cells, configuration and environment
STORE/claims/               one file for each run: cells that it has taken on
STORE/lock                  locked while something is written
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
import re
import uuid
import warnings
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from ...files.locks import lock
from ...files.whole import PART
from ..errors import StoreError, StoreWarning
from ..row import COLUMNS, Row
from . import parquet
from .claims import Claims
from .disk import disk_errors, is_file, is_folder, make_folder, replace_text
from .journal import Journal
from .plan import Plan

if TYPE_CHECKING:
    import pandas
    import pyarrow

FORMAT = 1
# A Parquet file of fewer rows counts as small, and this many small files are merged into one.
_JOURNAL_ROWS = 2000
_SMALL_FILES = 8
_NUMBERED = re.compile(r"rows-(\d+)\.parquet")
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
        with disk_errors(self.path, "opened"):
            if not is_file(marker):
                if not create:
                    raise StoreError(
                        f"there is no store of studies in {self.path}: run a study first"
                    )
                self._create(marker)
        self._check_format(marker)

    def _create(self, marker: Path) -> None:
        """Make a new store; of several processes that do so at once, one writes the marker.

        A process that was killed while it did so leaves the lock, or a part of the marker.
        """
        if self.path.exists() and not self.path.is_dir():
            raise StoreError(f"{self.path} is no folder: name an empty or new folder")
        self._check_empty(marker)
        self.path.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if is_file(marker):
                return
            self._check_empty(marker)
            self._clean()
            replace_text(marker, json.dumps({"store": "implicitly studies", "format": FORMAT}))

    def _check_empty(self, marker: Path) -> None:
        names = {path.name for path in self.path.iterdir()} if self.path.exists() else set()
        strange = {n for n in names - {"lock"} if not _is_part_of(n, marker.name)}
        # Asked again, since another process may have made the store meanwhile.
        if strange and not is_file(marker):
            raise StoreError(
                f"{self.path} holds other files and is no store: name an empty or new folder"
            )

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
            ValueError: A value is none that its column can hold; none of `rows` was written.
        """
        # Written anew, so that a row that was changed after it was made is checked as well.
        checked = [Row.of(row.as_dict()) for row in rows]
        with self._locked(), disk_errors(self.path):
            self._journal.extend(checked)

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
        with self._locked(), disk_errors(self.path):
            make_folder(self.path / "plans")
            stamped = {**plan.__dict__, "created": plan.created or now()}
            replace_text(self._plan_file(plan.study), json.dumps(stamped, indent=1))

    def plan(self, study: str) -> Plan:
        """The plan of a study.

        Raises:
            StoreError: No study of this name; the message lists the names.
        """
        file = self._plan_file(study)
        if not (is_folder(file.parent) and is_file(file)):
            known = ", ".join(self.studies()) or "none"
            raise StoreError(f"{self.path} has no study {study!r}; it has: {known}")
        try:
            return Plan.of(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise StoreError(f"{file} cannot be read ({error}): run the study again") from error

    def studies(self) -> list[str]:
        """Names of all studies, in alphabetical order."""
        folder = self.path / "plans"
        return sorted(file.stem for file in folder.glob("*.json")) if is_folder(folder) else []

    def claims(self) -> Claims:
        """Claims of a new run on cells; see `Claims`."""
        return Claims(self.path / "claims", self._locked)

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
            # Other names are those of copies, which are read as well.
            numbers = [int(m[1]) for file in files if (m := _NUMBERED.fullmatch(file.name))]
            number = 1 + max(numbers, default=0)
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
            self._clean()
            for file in self._files():
                try:
                    parquet.read(file, None)
                except StoreError as error:
                    file.replace(self._aside(file.name))
                    said.append(f"{error}; it has been moved to {self.path / 'damaged'}")
            rows, damaged = self._journal.rows()
            if damaged:
                aside = self._aside(self._journal.path.name)
                aside.write_bytes(self._journal.path.read_bytes())
                self._journal.replace(rows)
                said.append(
                    f"{damaged} damaged lines were taken out of {self._journal.path}; a copy is in "
                    f"{aside.parent}"
                )
        return said

    def _aside(self, name: str) -> Path:
        """A new name in the folder of damaged parts, also if the clock has gone back."""
        folder = self.path / "damaged"
        make_folder(folder)
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S%f")
        found = folder / f"{stamp}-{name}"
        while found.exists():
            found = folder / f"{stamp}-{uuid.uuid4().hex[:8]}-{name}"
        return found

    def _clean(self) -> None:
        """Remove parts of files that killed processes have left; the lock must be held."""
        for folder in (self.path, self.path / "plans"):
            for part in folder.glob(f"*{PART}"):
                if is_file(part):
                    part.unlink()

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
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreError(f"{marker} cannot be read: {self.path} is no store") from error
        if found != FORMAT:
            raise StoreError(
                f"the store {self.path} has format {found}, and this version of implicitly reads "
                f"format {FORMAT}: use the version that wrote it, or name another folder"
            )

    def _table(self, columns: list[str]) -> pyarrow.Table:
        import pyarrow as pa

        # The journal first: rows that leave it meanwhile are read twice rather than missed.
        with disk_errors(self.path, "read"):
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
        is_file(self.path / "lock")
        with disk_errors(self.path):
            file = (self.path / "lock").open("a")
        with file:
            with disk_errors(self.path):
                lock(file)  # On Windows the user must take care of a single writer.
            yield


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _is_part_of(name: str, file: str) -> bool:
    return name.startswith(f"{file}.") and name.endswith(PART)
