"""Bugs that hide from every difference at the given inputs, and show when they are presented otherwise."""

import pytest
import torch
from implicitly import Stopping
from implicitly.verification import Verdict, verify
from layers import function, wanted, weight
from reports import wrong_checks

from .implicit_layers import tanh_layer


def only_if(condition):
    """A sine whose gradient is 1% off for some inputs only."""
    return function(torch.sin, lambda x, g: g * x.cos() * (1.01 if condition(x) else 1.0))


class SecondPass(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.passes = {}
        return x.sin()

    @staticmethod
    def backward(ctx, g):
        # What was computed for a cotangent is added up, as where a buffer is not cleared.
        key = float(g.sum())
        ctx.passes[key] = ctx.passes.get(key, 0) + 1
        return ctx.passes[key] * g * ctx.saved_tensors[0].cos()


@pytest.mark.parametrize(
    ("layer", "check"),
    [
        (only_if(lambda x: not x.is_contiguous()), "memory layout"),
        (only_if(lambda x: x.shape[0] == 1), "a row alone"),
        (only_if(lambda x: x[0, 0] < x[1, 0] if len(x) > 1 else False), "permuted batch"),
        (SecondPass.apply, "second backward pass"),
    ],
    ids=["not contiguous", "one row", "another order", "second pass"],
)
def test_a_bug_that_hides_is_found_by_the_check_for_it(layer, check):
    x = torch.tensor(
        [[0.9, 0.2, -0.3], [0.1, -0.4, 0.5], [0.0, 0.3, 0.7]], dtype=torch.float64
    ).requires_grad_()
    assert verify(layer, x).verdict is Verdict.CORRECT
    report = verify(layer, x, effort="full")
    assert report["output", "input 0"].verdict is Verdict.WRONG
    assert check in wrong_checks(report)


@pytest.mark.parametrize(
    "layer",
    [
        torch.tanh,
        torch.nn.Linear(4, 2).double(),
        lambda x: torch.softmax(x, 0),
        lambda x: x.cumsum(0),
        torch.nn.BatchNorm1d(4).double(),
    ],
    ids=["tanh", "linear", "softmax over the batch", "sum along the batch", "batch normalisation"],
)
def test_a_correct_layer_is_correct_however_it_is_presented(layer):
    report = verify(layer, wanted(5, 4), effort="full")
    assert report.verdict is Verdict.CORRECT


def test_rows_that_depend_on_each_other_are_not_compared():
    skipped = dict(verify(lambda x: x.cumsum(0), wanted(3, 4), effort="full").not_exercised)
    assert skipped["rows of the batch"] == "the rows of the batch depend on each other"


@pytest.mark.parametrize("rtol", [None, 1e-3])
def test_an_implicit_layer_is_never_wrong_however_it_is_presented(rtol):
    W = weight(4)
    layer = tanh_layer(W, stopping=Stopping(rtol=rtol))
    report = verify(layer, wanted(3, 4), effort="full")
    assert report.verdict is (Verdict.CORRECT if rtol is None else Verdict.UNCONVERGED)
    assert "rows of the batch" in report.checks
