"""Models with an implicit layer inside: the error that a solver was allowed is no wrong gradient."""

import pytest
import torch
from implicitly import (
    Exact,
    FixedPointIteration,
    ImplicitLayer,
    JacobianFree,
    NewtonKrylov,
    Stopping,
)
from implicitly.verification import Verdict, verify
from torch import nn


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        nn.init.orthogonal_(self.linear.weight, 0.8)

    def forward(self, z, x):
        return torch.tanh(self.linear(z) + x)


def model(dtype=torch.float64, **options):
    torch.manual_seed(1)
    layer = ImplicitLayer(Cell(), **options)
    net = nn.Sequential(nn.Linear(3, 4), layer, nn.Linear(4, 2)).to(dtype)
    return net, torch.randn(3, 3, dtype=dtype, requires_grad=True)


class OnePercentMore(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, u):
        return 1.01 * u


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "solver",
    [
        None,
        pytest.param(NewtonKrylov(), marks=pytest.mark.long),
        pytest.param(FixedPointIteration(), marks=pytest.mark.long),
    ],
    ids=str,
)
def test_a_model_at_default_tolerances_is_correct(solver, dtype):
    net, x = model(dtype, solver=solver)
    assert verify(net, x).verdict is Verdict.CORRECT
    assert verify(lambda x: net(x), x).verdict is Verdict.CORRECT


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rtol", [1e-2, pytest.param(1e-3, marks=pytest.mark.long)])
def test_a_model_with_a_loose_solve_is_unconverged(rtol, dtype):
    net, x = model(dtype, stopping=Stopping(rtol=rtol), solver=FixedPointIteration())
    report = verify(net, x)
    assert report.verdict is Verdict.UNCONVERGED
    assert any("solves equations inside" in note for note in report.notes)
    assert [finding.input for finding in report.findings][:2] == ["input 0", "parameter 0.weight"]
    # The distance of the gradients, from a solve without error.
    tight, _ = model(dtype, stopping=Stopping(rtol=0.0, rtol_residual=4 * torch.finfo(dtype).eps),
                     on_failure="accept")  # fmt: skip
    gradients = []
    for one in (net, tight):
        generator = torch.Generator().manual_seed(0)
        w = torch.randn(3, 2, dtype=dtype, generator=generator)
        gradients.append(torch.autograd.grad((w * one(x)).sum(), x)[0])
    distance = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    # Other cotangents have other distances.
    assert distance / 20 < report["output", "input 0"].error < 20 * distance


def scaled(net):
    """The model with a gradient of its layer that is one per cent too large."""
    inner = nn.Sequential(net[0], net[1])
    return lambda x: net[2](OnePercentMore.apply(inner(x)))


LOOSE = pytest.param(Stopping(rtol=1e-3), marks=pytest.mark.long, id="loose")


@pytest.mark.parametrize("stopping", [pytest.param(None, id="default"), LOOSE])
def test_a_wrong_gradient_of_such_a_model_is_found(stopping):
    net, x = model(stopping=stopping, gradient=JacobianFree())
    assert verify(net, x).verdict is Verdict.WRONG


@pytest.mark.long
@pytest.mark.parametrize("stopping", [None, Stopping(rtol=1e-3)], ids=["default", "loose"])
def test_a_small_mistake_is_found_and_a_loose_adjoint_is_none(stopping):
    net, x = model(stopping=stopping)
    assert verify(scaled(net), x).verdict is Verdict.WRONG
    net, x = model(stopping=stopping, gradient=Exact(stopping=Stopping(rtol=1e-2)))
    assert verify(net, x).verdict is Verdict.UNCONVERGED
