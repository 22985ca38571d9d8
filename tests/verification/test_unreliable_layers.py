"""Layers that `verify` cannot judge, and what it owes its caller in any case."""

import pytest
import torch
from implicitly import ImplicitLayer, Stopping
from implicitly.verification import Verdict, verify
from layers import draw, wanted, weight

from .implicit_layers import tanh_layer


def bad(kind):
    def layer(x):
        if kind == "raises":
            raise ValueError("no such thing")
        if kind == "nan":
            return x / 0 * 0
        if kind == "integers":
            return x.long()
        return None

    return layer


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("raises", "the layer raised ValueError: no such thing"),
        ("nan", "not finite"),
        ("integers", "no floating-point tensor"),
        ("nothing", "no floating-point tensor"),
    ],
)
def test_a_layer_without_usable_output_is_unreliable_and_says_why(kind, says):
    report = verify(bad(kind), wanted(3, 4))
    assert report.verdict is Verdict.UNRELIABLE
    assert says in str(report)


def test_a_layer_that_hangs_is_interrupted():
    def hangs(x):
        while True:
            x = x + 0

    report = verify(hangs, wanted(2), time_limit=0.2)
    assert report.verdict is Verdict.UNRELIABLE
    assert "the time limit of 0.2 s is used up" in str(report)


def test_a_layer_that_hangs_later_has_an_unreliable_finding():
    calls = [0]

    def hangs(x):
        calls[0] += 1
        while calls[0] > 5:
            x = x + 0
        return x.sin()

    report = verify(hangs, wanted(2), time_limit=0.3)
    assert report["output", "input 0"].verdict is Verdict.UNRELIABLE


def test_inputs_that_require_no_gradient_are_listed():
    report = verify(lambda x, y, i: x * y, (draw(3), draw(3), torch.arange(3)))
    assert report.verdict is Verdict.UNRELIABLE
    assert "nothing requires gradients" in str(report)
    assert "input 2 (torch.int64)" in dict(report.not_exercised)


def test_a_layer_that_draws_its_own_random_numbers_is_noticed():
    generator = torch.Generator().manual_seed(0)

    def layer(x):
        return x * torch.rand(x.shape, generator=generator, dtype=x.dtype)

    report = verify(layer, wanted(3, 4))
    assert report.verdict is not Verdict.CORRECT
    assert "two calls at the same inputs and random state differ" in str(report)


def test_a_layer_of_which_nothing_requires_gradients_is_unreliable():
    report = verify(torch.sin, draw(3, 4))
    assert report.verdict is Verdict.UNRELIABLE
    assert "nothing requires gradients: no input, parameter or captured tensor" in str(report)
    assert "input 0 (does not require gradients)" in str(report) or "input 0" in str(report)


def test_an_equation_that_is_nearly_singular_is_told_with_its_condition_number():
    A = torch.diag(torch.tensor([1.0, 1e-14], dtype=torch.float64))
    layer = ImplicitLayer(lambda z, x: z @ A - x, "root", on_failure="accept")
    report = verify(layer, wanted(2, 2))
    assert report.verdict is Verdict.UNRELIABLE
    assert "nearly singular: its condition number is 1e+14" in str(report)


def test_a_layer_that_keeps_state_is_noticed():
    count = [0]

    def layer(x):
        count[0] += 1
        return x * count[0]

    report = verify(layer, wanted(3, 4))
    assert report.verdict is not Verdict.CORRECT
    assert "two calls at the same inputs and random state differ" in str(report)


def test_nothing_is_left_changed():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4)).double()
    before = {name: t.clone() for name, t in module.state_dict().items()}
    state = torch.get_rng_state()
    x = wanted(5, 4)
    verify(module, x)
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert x.grad is None
    assert all(p.grad is None for p in module.parameters())


def test_a_second_run_gives_the_same_report():
    layer = tanh_layer(weight(4), stopping=Stopping(rtol=1e-5))
    assert str(verify(layer, wanted(3, 4))) == str(verify(layer, wanted(3, 4)))


def test_named_and_nested_inputs_have_their_names():
    report = verify(lambda a, b: a * b["c"][0], {"a": wanted(3), "b": {"c": [wanted(3, seed=1)]}})
    assert [f.input for f in report.findings] == ["input a", "input b['c'][0]"]


def test_a_finding_is_found_by_name_and_a_wrong_name_lists_them():
    report = verify(torch.sin, wanted(2))
    with pytest.raises(KeyError, match=r"there are \('output', 'input 0'\)"):
        report["output", "x"]


def test_wrong_arguments_are_refused():
    with pytest.raises(TypeError, match="layer must be callable, got 3"):
        verify(3, wanted(2))
    with pytest.raises(TypeError, match="residual must be callable or None"):
        verify(torch.sin, wanted(2), residual=3)
    with pytest.raises(ValueError, match="effort must be one of 'fast', 'full'"):
        verify(torch.sin, wanted(2), effort="slow")
    with pytest.raises(ValueError, match="time_limit must be a number > 0 or None"):
        verify(torch.sin, wanted(2), time_limit=0)
