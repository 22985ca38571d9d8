"""Saturated layers: their gradients are the rounding of a value near one, which is no mistake of theirs."""

import pytest
import torch
from implicitly.verification import Verdict, verify

SATURATED = {
    "sigmoid": lambda x: torch.sigmoid(40 * x),
    "tanh": lambda x: torch.tanh(40 * x),
    "softmax": lambda x: torch.softmax(40 * x, -1),
    "softmax of a few": lambda x: torch.softmax(5 * x, -1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", SATURATED)
def test_saturated_layers_are_not_called_wrong(name, dtype):
    for seed in (0, 2, 3):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(6, dtype=dtype, generator=generator).requires_grad_()
        assert verify(SATURATED[name], x, effort="full").verdict != Verdict.WRONG


class OnePercentMore(torch.autograd.Function):
    """Half of the entries saturate; the gradient of all is one per cent too large."""

    @staticmethod
    def forward(ctx, x):
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, u):
        (y,) = ctx.saved_tensors
        return 1.01 * u * (1 - y**2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_wrong_gradient_is_found_beside_saturated_entries(dtype):
    x = torch.tensor([0.3, 20.0, -0.7, -30.0], dtype=dtype, requires_grad=True)
    assert verify(OnePercentMore.apply, x).verdict == Verdict.WRONG


def test_the_choice_of_an_entry_is_not_rounded():
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for choose in (lambda x: x.amax(-1), lambda x: x.sort(-1).values[..., 2], torch.relu):
        assert verify(choose, x, effort="full").verdict == Verdict.CORRECT
