"""The status of a row of a study, for systems that end in different ways."""

from __future__ import annotations

from implicitly.solvers import Status
from implicitly.studies.methods.native import _SEVERITY


def test_every_status_has_a_place_among_the_others() -> None:
    assert sorted(_SEVERITY) == sorted(Status)
