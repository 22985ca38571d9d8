"""Claims of runs on cells, so that runs of one study share the work in place of doing it twice.

Each run has a file, to which it appends the keys of the cells that it takes on, and a newline every second:
the file of a run that is alive grows. Another run that has watched a file for `PATIENCE` seconds without
seeing it grow counts its claims as expired. Only differences of the watcher's own monotonic clock enter, so
clocks that differ or go backwards do not matter. On one machine the end of a run is known at once, because
the system then releases the lock on its file.

A lease that its holder must renew: Gray & Cheriton 1989, "Leases: an efficient fault-tolerant mechanism for
distributed file cache consistency".
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ...files.locks import is_released, lock
from .disk import disk_errors, is_file, make_folder, write_all

_COUNT = "count"
"""File with a byte for each run that has claimed cells of this store."""
BEAT = 1.0
PATIENCE = 15.0
"""Seconds without growth after which the claims of a run have expired."""
_ENDING = ".claims"


@dataclass
class _Seen:
    """State of another run's file when it last grew."""

    size: int
    since: float


class Claims:
    """Claims of one run, from entering the context to leaving it.

    Args:
        folder: Folder of all claims of the store.
        locked: Context in which no other run reads or makes claims.

    Examples:
        >>> import tempfile
        >>> from implicitly.studies import Store
        >>> store = Store(tempfile.mkdtemp())
        >>> with store.claims() as mine, store.claims() as others:
        ...     mine.take(["a"]), others.take(["a", "b"])
        (({'a'}, False), ({'b'}, False))
    """

    def __init__(self, folder: Path, locked: Callable[[], AbstractContextManager[None]]) -> None:
        self._folder, self._locked = folder, locked
        self._path = folder / f"{uuid.uuid4().hex}{_ENDING}"
        self._descriptor: int | None = None
        self._over = threading.Event()
        # Of the descriptor, whose number the system gives to another file once it is closed.
        self._writing = threading.Lock()
        self._beating = threading.Thread(target=self._beat, daemon=True, name="claims")
        self._runs, self._others = 0, False
        self._seen: dict[str, _Seen] = {}
        self._mine: set[str] = set()

    def __enter__(self) -> Claims:
        try:
            with self._locked(), disk_errors(self._folder):
                make_folder(self._folder)
                self._open()
                count = self._folder / _COUNT
                is_file(count)
                with count.open("ab") as file:
                    file.write(b".")
                self._runs = count.stat().st_size
                _, self._others = self._held_by_others()
        except BaseException:
            self._close()
            raise
        self._beating.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._close()

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        with self._writing:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def take(self, keys: Iterable[str]) -> tuple[set[str], bool]:
        """Claim those of `keys` that no other run holds.

        Returns:
            These keys; and true if no other run has been there since the last call, so that all of their
            cells are still to be run. Else a run that has ended may have left rows of them.

        Raises:
            StoreError: The claim cannot be written.
        """
        with self._locked(), disk_errors(self._folder):
            held, others = self._held_by_others()
            runs = (self._folder / _COUNT).stat().st_size
            alone = not (others or self._others) and runs == self._runs
            self._runs, self._others = runs, others
            free = {key for key in keys if key not in held}
            if not self._path.exists():  # Others have taken this run for dead.
                self._open()
                self._mine.clear()
            if free - self._mine:
                self._write(json.dumps(sorted(free - self._mine)))
                self._mine |= free
        return free, alone

    def _open(self) -> None:
        with self._writing:
            if self._descriptor is not None:
                os.close(self._descriptor)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            self._descriptor = os.open(self._path, flags, 0o644)
            lock(self._descriptor)
        self._write(socket.gethostname())

    def _held_by_others(self) -> tuple[set[str], bool]:
        """Keys that other runs hold, and true if there are other runs."""
        held: set[str] = set()
        others = False
        for path in self._folder.glob(f"*{_ENDING}"):
            if path.name == self._path.name or not is_file(path):
                continue
            others = True
            try:
                content = path.read_text(encoding="utf-8", errors="replace")
                size = path.stat().st_size
                if self._expired(path, size, content):
                    path.unlink()
                    continue
            except FileNotFoundError:  # The run has ended.
                continue
            for line in content.splitlines()[1:]:
                with contextlib.suppress(ValueError):  # A line that a killed run has not finished.
                    held.update(json.loads(line) if line else ())
        return held, others

    def _expired(self, path: Path, size: int, content: str) -> bool:
        now = time.monotonic()
        seen = self._seen.get(path.name)
        if seen is None or seen.size != size:
            self._seen[path.name] = _Seen(size, now)
        elif now - seen.since > PATIENCE:
            return True
        here = content.partition("\n")[0] == socket.gethostname()
        return here and is_released(path)

    def _write(self, line: str) -> None:
        with self._writing:
            if self._descriptor is not None:
                write_all(self._descriptor, f"{line}\n".encode())

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            # On a full disk a run cannot show that it lives; then others may repeat its cells.
            with contextlib.suppress(OSError):
                self._write("")
