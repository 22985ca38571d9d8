"""Times of a cell, whose end is never before its start."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone


class Clock:
    """Clock that is set to the system's time once, and then runs by a clock that never goes back.

    Attributes:
        started: The time at which it was set, in UTC, ISO 8601.

    Examples:
        >>> clock = Clock()
        >>> clock.now() >= clock.started
        True
    """

    def __init__(self) -> None:
        self._wall, self._began = datetime.now(timezone.utc), time.monotonic()
        self.started = _written(self._wall)

    def now(self) -> str:
        """The time now."""
        return _written(self._wall + timedelta(seconds=time.monotonic() - self._began))


def _written(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
