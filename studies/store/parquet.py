"""Parquet files of rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...files.whole import replacing
from ..errors import StoreError
from ..row import Row, schema
from .disk import is_file

if TYPE_CHECKING:
    import pyarrow


def as_table(rows: Sequence[Row]) -> pyarrow.Table:
    """Rows as a table of Arrow."""
    import pyarrow as pa

    return pa.Table.from_pylist([row.as_dict() for row in rows], schema=schema())


def read(file: Path, columns: list[str] | None) -> pyarrow.Table:
    """Columns of a file, all for `None`.

    Raises:
        StoreError: The file is damaged.
        FileNotFoundError: There is no such file.
    """
    import pyarrow as pa
    import pyarrow.parquet

    is_file(file)
    try:
        # As a file, since a name such as `rows-1=a.parquet` would otherwise count as a partition.
        table = pa.parquet.ParquetFile(file).read(columns=columns)
        expected = schema()
        if columns is not None:
            expected = pa.schema([expected.field(name) for name in columns])
        return table.cast(expected)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise StoreError(
            f"{file} cannot be read ({' '.join(str(error).split())[:200]}): resuming a study moves it "
            "aside and runs its cells again"
        ) from error


def count(file: Path) -> int:
    """Number of rows of a file."""
    import pyarrow.parquet

    return int(pyarrow.parquet.read_metadata(file).num_rows)


def write(table: pyarrow.Table, file: Path) -> None:
    """Write a table beside `file`, then put it in its place."""
    import pyarrow.parquet

    with replacing(file) as part:
        pyarrow.parquet.write_table(table, part, compression="zstd")
