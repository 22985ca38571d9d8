"""What is known of other libraries' implicit layers, by hand, is found; and what is right passes."""

import runpy
import warnings
from pathlib import Path

import pytest
from implicitly.verification import Verdict

for package in ("torchdeq", "torchopt", "xitorch"):
    pytest.importorskip(package, reason="needs the extra `peers`")

SCRIPT = Path(__file__).parent.parent.parent / "docs" / "results" / "third_party.py"
THERE = runpy.run_path(str(SCRIPT))
CASES, examined = THERE["CASES"], THERE["examined"]

RIGHT, WRONG = Verdict.CORRECT, Verdict.WRONG
KNOWN = {
    "TorchOpt `custom_root`, `solve_cg`, not symmetric": (WRONG, WRONG),
    "TorchOpt `custom_root`, `solve_normal_cg`": (RIGHT, WRONG),
    "TorchDEQ, default gradient": (WRONG, WRONG),
    "TorchDEQ, `ift=True`": (RIGHT, WRONG),
    "xitorch `equilibrium`": (RIGHT, RIGHT),
    "xitorch `equilibrium`, module in a closure": (WRONG, WRONG),
    "torchdiffeq `odeint`": (RIGHT, RIGHT),
    "torchdiffeq `odeint_adjoint`": (RIGHT, WRONG),
    'Theseus, `backward_mode="implicit"`': (RIGHT, WRONG),
    'Theseus, `backward_mode="unroll"`': (RIGHT, RIGHT),
}


def test_every_case_is_one_that_is_known():
    assert {case.name for case in CASES} <= set(KNOWN)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_layer_of_another_library_has_the_verdict_that_is_known(case):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = examined(case)
    verdicts = [
        Verdict.worst(
            finding.verdict
            for finding in report.findings
            if finding.output.endswith("second order") is second
        )
        for second in (False, True)
    ]
    assert tuple(verdicts) == KNOWN[case.name]
    if "solve_cg" in case.name:
        worst = max(f.error for f in report.findings if not f.output.endswith("second order"))
        assert worst > 5
    if "closure" in case.name:
        assert "the gradient is zero" in report["output", "captured CELL.W"].cause
