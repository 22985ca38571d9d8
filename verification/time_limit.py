"""Time limit on foreign code."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TimeLimit:
    """A budget of seconds that several pieces of code share.

    In the main thread, on systems with signals, a signal interrupts the code as soon as the interpreter
    runs again; a call that never returns to it is not interrupted. Otherwise only the next piece is
    refused.

    Args:
        seconds: The budget; `None` for no limit.

    Raises:
        ValueError: `seconds` is not a positive number.

    Examples:
        >>> limit = TimeLimit(0.01)
        >>> try:
        ...     with limit.running():
        ...         while True:
        ...             pass
        ... except TimeoutError as error:
        ...     print(error)
        the time limit of 0.01 s is used up
    """

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not seconds > 0:
            raise ValueError(f"time_limit must be a number > 0 or None, got {seconds!r}")
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def _refuse(self, number: int = 0, frame: FrameType | None = None) -> None:
        raise TimeoutError(f"the time limit of {self.seconds} s is used up")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run code on the budget.

        Raises:
            TimeoutError: The budget is used up.
        """
        if self._end is None:
            yield
            return
        left = self._end - time.monotonic()
        if left <= 0:
            self._refuse()
        signals = hasattr(signal, "setitimer")
        if not signals or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGALRM, self._refuse)
        signal.setitimer(signal.ITIMER_REAL, left)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
