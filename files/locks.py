"""Locks on open files, which the system releases when the process that holds them ends.

Where the system has no such locks (Windows), every lock is granted, and none counts as released.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO


def lock(file: IO[bytes] | IO[str] | int, wait: bool = True) -> bool:
    """Lock an open file, or its descriptor, until it is closed; false if another one has locked it.

    Args:
        file: The open file.
        wait: Wait until it is free.

    Raises:
        OSError: The file system has no locks.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as one, open(one.name) as another:
        ...     lock(one), lock(another, wait=False)
        (True, False)
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_released(path: Path) -> bool:
    """True if the process that locked a file on this machine has ended, or has closed the file.

    An empty file counts as held: it may be about to be locked.
    """
    try:
        import fcntl  # noqa: F401
    except ImportError:
        return False
    if not path.stat().st_size:
        return False
    # Some network file systems lock only what is open for writing.
    descriptor = os.open(path, os.O_RDWR)
    try:
        return lock(descriptor, wait=False)
    finally:
        os.close(descriptor)
