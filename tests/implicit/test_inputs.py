"""Inputs by name, and dataclasses as inputs: right values and gradients, as by place."""

from dataclasses import dataclass, field

import implicitly as im
import pytest
import torch

D = torch.float64
X = torch.tensor([[0.3, -0.2], [0.7, 0.1], [1.5, -0.4]], dtype=D)
MASK = torch.tensor([1.0, 0.0], dtype=D)
CLOSE = 1e-8


class Cell(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2, dtype=D)
        torch.nn.init.orthogonal_(self.linear.weight, gain=0.5)
        self.norm = torch.nn.BatchNorm1d(2, dtype=D)

    def forward(self, z, x, *, mask=None, scale=1.0, name="tanh"):
        value = scale * getattr(torch, name)(self.linear(z) + self.norm(x))
        return value if mask is None else value * mask


@dataclass(frozen=True)
class Pair:
    gain: torch.Tensor
    power: int = 1
    rest: dict[str, object] = field(default_factory=dict)


def gained(z, x, gain):
    return torch.tanh(gain * z + x)


def slope(z, x, gain):
    """`dΣz/dgain` of `z = tanh(gain z + x)`."""
    bent = 1 - z**2
    return (bent * z / (1 - gain * bent)).sum()


def test_a_layer_takes_inputs_of_its_module_by_name():
    layer = im.ImplicitLayer(Cell())
    scale = torch.tensor(0.7, dtype=D, requires_grad=True)
    z = layer(X, mask=MASK, scale=scale * 1.0, name="sin")
    other = im.ImplicitLayer(layer.f)
    with torch.no_grad():  # The batch statistics as they were.
        layer.f.norm.reset_running_stats()
    positional = im.ImplicitLayer(lambda z, x, m, s: layer.f(z, x, mask=m, scale=s, name="sin"))
    want = positional(X, MASK, scale)
    assert torch.allclose(z, want, rtol=CLOSE)
    got, expected = (torch.autograd.grad(value.sum(), scale)[0] for value in (z, want))
    assert torch.allclose(got, expected, rtol=CLOSE)
    mean = X.mean(0)
    layer.f.norm.reset_running_stats()
    other(X, mask=MASK)
    assert torch.allclose(layer.f.norm.running_mean, 0.1 * mean)


def test_root_and_fixed_point_take_arguments_of_the_function_by_name():
    gain = torch.tensor(0.6, dtype=D, requires_grad=True)
    fixed = im.fixed_point(gained, torch.zeros_like(X), X, gain=gain * 1.0).value
    root = im.root(lambda z, *, x, g: z - gained(z, x, g), torch.zeros_like(X), x=X, g=gain).value
    for z in (fixed, root):
        (got,) = torch.autograd.grad(z.sum(), gain)
        assert torch.allclose(got, slope(z, X, gain), rtol=CLOSE)


def test_keywords_that_neither_the_call_nor_the_function_knows_are_errors():
    with pytest.raises(TypeError, match="did you mean solver"):
        im.fixed_point(gained, torch.zeros_like(X), X, slover=im.Newton())
    with pytest.raises(TypeError, match="did you mean stopping"):
        im.root(lambda z, **any: z, torch.zeros_like(X), stoping=None)
    with pytest.raises(TypeError, match="neither an option nor an argument of the function Cell"):
        im.ImplicitLayer(Cell())(X, maks=MASK)


def test_a_start_gets_the_keywords_that_it_names():
    layer = im.ImplicitLayer(Cell(), init=lambda x, mask: torch.zeros_like(x) + mask)
    assert torch.allclose(layer(X, mask=MASK, scale=0.5)[:, 1], torch.zeros(3, dtype=D))
    assert im.ImplicitLayer(Cell(), init=torch.zeros_like)(X, mask=MASK).shape == X.shape


def test_systems_are_dropped_from_inputs_by_name():
    steep = torch.tensor([[0.0], [0.3], [0.95]], dtype=D)
    layer = im.ImplicitLayer(gained, batched_args=(True, True), solver=im.FixedPointIteration())
    z = layer(X, gain=steep)
    assert torch.allclose(z, gained(z, X, steep), rtol=CLOSE)
    assert len(set(layer.solution.steps.tolist())) == 3
    with pytest.raises(ValueError, match=r"2 arguments \(keyword arguments last\)"):
        im.ImplicitLayer(gained, batched_args=(True,))(X, gain=steep)


@pytest.mark.parametrize("transform", [lambda f: f, torch.vmap], ids=["eager", "vmap"])
def test_gradients_reach_computed_tensors_in_a_dataclass(transform):
    gain = torch.tensor(0.6, dtype=D)

    def total(gain):
        pair = Pair(2 * gain, 2, {"inner": Pair(X)})

        def f(z, pair):
            assert isinstance(pair, Pair)
            return torch.tanh(pair.gain * z / pair.power + pair.rest["inner"].gain)

        return im.fixed_point(f, torch.zeros_like(X), pair).value.sum()

    z = im.fixed_point(gained, torch.zeros_like(X), X, gain).value
    gains = gain if transform is not torch.vmap else gain.expand(2)
    got = transform(torch.func.grad(total))(gains)
    assert torch.allclose(got, slope(z, X, gain).expand_as(got), rtol=CLOSE)
