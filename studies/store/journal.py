"""The journal: a file of rows that is only appended to, one line for each row with its checksum."""

from __future__ import annotations

import json
import os
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path

from ..errors import StoreWarning
from ..row import Row, row_columns
from .disk import is_file, replace_text, write_all


class Journal:
    """The journal of a store; a writer must hold the store's lock.

    Args:
        path: Its file, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> tuple[list[Row], int]:
        """The journal's rows, and the number of damaged lines without an unfinished last one."""
        try:
            content = self.path.read_bytes() if is_file(self.path) else b""
        except FileNotFoundError:
            return [], 0
        rows, damaged = [], 0
        for line in content.split(b"\n")[:-1]:
            row = _row(line)
            if row is None:
                damaged += 1
            else:
                rows.append(row)
        return rows, damaged

    @property
    def size(self) -> int:
        """Length in bytes; zero if there is no file."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def extend(self, rows: Iterable[Row]) -> None:
        """Append rows; they are on the disk when this returns, or none is if an `OSError` is raised."""
        lines = b"".join(_line(row) for row in rows)
        is_file(self.path)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            before = self._trimmed(descriptor)
            try:
                write_all(descriptor, lines)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)

    def replace(self, rows: Iterable[Row]) -> None:
        """Write a journal of these rows alone in the place of this one."""
        replace_text(self.path, b"".join(_line(row) for row in rows).decode())

    def _trimmed(self, descriptor: int) -> int:
        """Cut an unfinished line off the journal's end, and return its length."""
        length = os.lseek(descriptor, 0, os.SEEK_END)
        start = max(length - 1, 0)
        if length and os.pread(descriptor, 1, start) != b"\n":
            content = os.pread(descriptor, length, 0)
            keep = content.rfind(b"\n") + 1
            warnings.warn(
                f"the last line of {self.path} was not finished and has been taken out: its "
                "cell counts as not run",
                StoreWarning,
                stacklevel=5,
            )
            os.ftruncate(descriptor, keep)
            length = os.lseek(descriptor, keep, os.SEEK_SET)
        return length


def _line(row: Row) -> bytes:
    text = json.dumps(row.as_dict(), separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _row(line: bytes) -> Row | None:
    """The row of a line, or `None` if it is damaged or holds a value that a table refuses."""
    checksum, _, text = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(text):
            return None
        read, columns = json.loads(text), row_columns()
        # Earlier versions wrote what a method had given; such a cell is run again.
        return Row.of(read) if all(columns[name].holds(read[name]) for name in read) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
