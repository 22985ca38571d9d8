"""Every fault of the campaign is survived; the default run makes those of its short form."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("lightning")
pytest.importorskip("pyarrow")

from faults.campaign import NOT_TRIED, Fault, faults


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(one, id=one.name, marks=() if one.short else pytest.mark.long)
        for one in faults()
    ],
)
def test_a_fault_is_survived(fault: Fault, tmp_path: Path) -> None:
    trials = fault.trials(tmp_path, seed=0)
    left_out = [said for _, said in trials if said.startswith(NOT_TRIED)]
    if left_out:
        pytest.skip(left_out[0])
    assert trials
    assert [(what, said) for what, said in trials if said] == []
