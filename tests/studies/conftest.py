"""The studies of these tests share the processes for their cells, which take seconds to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def end_processes() -> Iterator[object]:
    """Ends the processes that wait for their next cell, as every study does when it is done."""
    running = pytest.importorskip("implicitly.studies.running")
    end = running._close_guards
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(running, "_close_guards", lambda: None)
        yield end
    end()


@pytest.fixture(autouse=True)
def _shared(end_processes: object) -> None:
    """Every test leaves its processes to the next."""
