"""The verification tried on planted bugs: every one is found, and the layer without it is correct."""

import pytest
import torch
from implicitly.verification import Verdict, verify
from implicitly.verification.mutations import (
    BUGS,
    CORRECT,
    FAMILIES,
    HIDING_BUGS,
    SECOND_ORDER_BUGS,
    Recipe,
    planted,
    right_twice,
)


def drawn(family, batch=3, width=4):
    tensors = FAMILIES[family].make(batch, width, torch.Generator().manual_seed(1))
    return tuple(tensor.requires_grad_() for tensor in tensors)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layer_without_a_bug_is_correct_and_small_errors_would_have_been_seen(family):
    layer = planted(FAMILIES[family], Recipe())
    report = verify(layer, drawn(family), residual=FAMILIES[family].residual)
    assert report.verdict is Verdict.CORRECT
    assert report.detectable <= 1e-7


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layer_without_a_bug_gives_the_derivative_of_what_it_computes(family):
    # The registry itself against torch's own finite differences.
    layer = planted(FAMILIES[family], Recipe())
    assert torch.autograd.gradcheck(layer, drawn(family, 2, 3))


WITHOUT_A_NAME = {"adjoint clipped", "noise in the gradient"}
# The state of the heat equation has no saturated entries; the attention cell contracts by 0.4 a step.
CHANGE_NOTHING = {("shortcut where saturated", "transport"), ("20-term Neumann", "attention")}
CASES = [
    pytest.param(
        bug, family, id=f"{bug.name}, {family}", marks=() if family == "tanh" else pytest.mark.long
    )
    for bug in BUGS
    for family in FAMILIES
    if (bug.name, family) not in CHANGE_NOTHING
]


def test_bugs_that_change_nothing_are_left_out_by_what_they_compute():
    left_out = {
        (bug.name, f) for bug in BUGS for f in FAMILIES if not bug.shows(FAMILIES[f], drawn(f))
    }
    assert left_out == CHANGE_NOTHING
    one_row = {bug.name for bug in BUGS if not bug.shows(FAMILIES["tanh"], drawn("tanh", 1))}
    assert one_row == {
        "mean for sum", "rows rolled", "Jacobian of row 0 for all",
        "cotangent averaged over the batch",
    }  # fmt: skip


def test_a_bug_is_measured_by_the_gradient_that_it_changes():
    (bug,) = (bug for bug in BUGS if bug.name == "factor 1.0005")
    assert bug.error(FAMILIES["tanh"], drawn("tanh")) == pytest.approx(5e-4, rel=1e-9)


@pytest.mark.parametrize(("bug", "family"), CASES)
def test_a_planted_bug_is_found(bug, family):
    report = verify(bug.plant(FAMILIES[family]), drawn(family), residual=FAMILIES[family].residual)
    assert report.verdict is Verdict.WRONG
    if family == "tanh" and bug.name not in WITHOUT_A_NAME:
        assert any(bug.cause in finding.cause for finding in report.findings)


@pytest.mark.parametrize(
    "right",
    [
        pytest.param(right, id=right.name, marks=() if i % 2 == 0 else pytest.mark.long)
        for i, right in enumerate(CORRECT)
    ],
)
def test_a_correct_layer_is_never_wrong_and_always_decided(right):
    layer, inputs = right.make(3, 4, torch.Generator().manual_seed(1))
    report = verify(layer, inputs, residual=right.residual)
    assert report.verdict in (Verdict.CORRECT, Verdict.UNCONVERGED)


SOME_CORRECT = [
    pytest.param(right, id=right.name, marks=() if i % 6 == 0 else pytest.mark.long)
    for i, right in enumerate(CORRECT[::4])
]


@pytest.mark.parametrize("right", SOME_CORRECT)
def test_a_correct_layer_is_never_wrong_with_full_effort(right):
    layer, inputs = right.make(3, 4, torch.Generator().manual_seed(1))
    report = verify(layer, inputs, residual=right.residual, effort="full")
    assert report.verdict in (Verdict.CORRECT, Verdict.UNCONVERGED)


@pytest.mark.parametrize("right", SOME_CORRECT)
def test_a_correct_layer_is_not_wrong_without_its_equation(right):
    layer, inputs = right.make(3, 4, torch.Generator().manual_seed(1))
    assert verify(lambda *tensors: layer(*tensors), inputs).verdict is not Verdict.WRONG


def test_a_layer_that_refuses_a_second_backward_pass_is_not_wrong():
    family = FAMILIES["tanh"]
    layer = planted(family, Recipe())
    report = verify(layer, drawn("tanh"), residual=family.residual, effort="full")
    assert report.verdict is Verdict.CORRECT
    assert "once_differentiable" in dict(report.not_exercised)["second order"]


@pytest.mark.long
@pytest.mark.parametrize("right", CORRECT, ids=lambda right: right.name)
def test_a_larger_correct_layer_is_never_wrong_and_always_decided(right):
    layer, inputs = right.make(16, 64, torch.Generator().manual_seed(1))
    report = verify(layer, inputs, residual=right.residual)
    assert report.verdict in (Verdict.CORRECT, Verdict.UNCONVERGED)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    "name", ["no adjoint solve", "no transpose", "5-term Neumann", "sign of J"]
)
def test_the_cause_does_not_depend_on_the_sign_of_the_residual(name, sign):
    family = FAMILIES["tanh"]
    (bug,) = (bug for bug in BUGS if bug.name == name)
    report = verify(
        bug.plant(family), drawn("tanh"), residual=lambda *args: sign * family.residual(*args)
    )
    assert all(bug.cause in finding.cause for finding in report.findings)


@pytest.mark.parametrize(
    ("family", "given"),
    [
        pytest.param("tanh", True, id="tanh-equation given"),
        pytest.param("tanh", False, id="tanh-equation unknown", marks=pytest.mark.long),
        pytest.param("transport", True, id="transport-equation given"),
        pytest.param("transport", False, id="transport-equation unknown", marks=pytest.mark.long),
    ],
)
def test_a_layer_right_to_second_order_is_correct_to_second_order(family, given):
    residual = FAMILIES[family].residual if given else None
    report = verify(right_twice(FAMILIES[family]), drawn(family), residual=residual, effort="full")
    assert report.verdict is Verdict.CORRECT
    assert "second order" in report.checks


# Without the equation a bug takes seconds.
SECOND_ORDER = [
    pytest.param(
        bug,
        given,
        id=f"{bug.name}-equation {'given' if given else 'unknown'}",
        marks=() if given else pytest.mark.long,
    )
    for bug in SECOND_ORDER_BUGS
    for given in (True, False)
]


@pytest.mark.parametrize(("bug", "given"), SECOND_ORDER)
def test_a_bug_in_the_second_derivative_alone_is_found_there(bug, given):
    family = FAMILIES["tanh"]
    residual = family.residual if given else None
    layer = bug.plant(family)
    assert verify(layer, drawn("tanh"), residual=residual).verdict is Verdict.CORRECT
    report = verify(layer, drawn("tanh"), residual=residual, effort="full")
    assert report["output, second order", "input 0"].verdict is Verdict.WRONG
    assert report["output", "input 0"].verdict is Verdict.CORRECT


def test_there_are_at_least_thirty_bugs_with_different_names():
    names = {bug.name for bug in BUGS}
    assert len(names) == len(BUGS) >= 30


def test_there_are_at_least_25_correct_layers_with_different_names():
    names = {right.name for right in CORRECT}
    assert len(names) == len(CORRECT) >= 25


HIDDEN = [
    pytest.param(
        bug,
        family,
        id=f"{bug.name}, {family}",
        # Without the equation a bug takes seconds.
        marks=() if family == "tanh" and bug.equation else pytest.mark.long,
    )
    for bug in HIDING_BUGS
    for family in FAMILIES
    if family not in bug.impossible
]


@pytest.mark.parametrize(("bug", "family"), HIDDEN)
def test_a_bug_that_hides_is_found_by_the_check_for_it_and_only_there(bug, family):
    residual = FAMILIES[family].residual if bug.equation else None
    fast = verify(bug.plant(FAMILIES[family]), drawn(family), residual=residual)
    assert (fast.verdict is Verdict.CORRECT) is bug.explored
    report = verify(bug.plant(FAMILIES[family]), drawn(family), residual=residual, effort="full")
    assert report.verdict is Verdict.WRONG
    wrong = {
        piece.check
        for finding in report.findings
        for piece in finding.evidence
        if piece.verdict is Verdict.WRONG
    }
    assert any(check.startswith(bug.check) for check in wrong)
