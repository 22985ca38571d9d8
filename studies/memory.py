"""Memory of a cell: its peak, and a limit."""

from __future__ import annotations

import os
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class Memory:
    """Limit of `limit` further bytes on the process, and record of its peak, from construction on.

    The limit is on address space (`RLIMIT_AS`) if the system has one: an allocation beyond it fails
    at once. The guard watches resident memory as a second line.
    """

    def __init__(self, limit: int) -> None:
        self._lifted: tuple[int, int] | None = None
        try:
            _CLEAR.write_text("5")  # On Linux this resets the peak.
        except OSError:
            self._before = None
        else:
            self._before = _kilobytes("VmRSS")
        size = _kilobytes("VmSize")
        if size is None:
            return
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = (size << 10) + limit
        if hard == resource.RLIM_INFINITY or wanted < hard:
            resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
            self._lifted = (soft, hard)

    def peak(self) -> int | None:
        """Peak of resident bytes beyond those at the start; `None` if the system does not report it."""
        highest = _kilobytes("VmHWM")
        if self._before is None or highest is None:
            return None
        return max(highest - self._before, 0) << 10

    def lift(self) -> None:
        """Lift the limit."""
        if self._lifted is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_AS, self._lifted)


def _kilobytes(name: str) -> int | None:
    if os.name != "posix" or not _STATUS.exists():
        return None
    for line in _STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return None
