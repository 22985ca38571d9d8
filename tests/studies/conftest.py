"""What all tests of studies share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _shared(shared_processes: object) -> None:
    """Every test leaves its processes to the next."""
