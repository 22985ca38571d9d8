"""The verification tried on planted bugs: every one is found, and the layer without it is correct."""

import pytest
import torch
from implicitly.verification import Verdict, verify
from implicitly.verification.mutations import BUGS, FAMILIES, Recipe, planted


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


CASES = [
    pytest.param(
        bug, family, id=f"{bug.name}, {family}", marks=() if family == "tanh" else pytest.mark.long
    )
    for bug in BUGS
    for family in FAMILIES
    if bug.shows(FAMILIES[family], 3)
]


@pytest.mark.parametrize(("bug", "family"), CASES)
def test_a_planted_bug_is_found(bug, family):
    report = verify(bug.plant(FAMILIES[family]), drawn(family), residual=FAMILIES[family].residual)
    assert report.verdict is Verdict.WRONG


def test_there_are_at_least_thirty_bugs_with_different_names():
    names = {bug.name for bug in BUGS}
    assert len(names) == len(BUGS) >= 30
