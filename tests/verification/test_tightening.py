"""Layers without a known equation, examined at ever tighter tolerances."""

import math

import pytest
import torch
from implicitly import Exact, FixedPointIteration, ImplicitLayer, JacobianFree, Stopping
from implicitly.verification import Verdict, verify
from layers import wanted, weight

W = weight(4, norm=0.8)


def layer_with(gradient=None):
    """A layer that hides its equation, and its knob."""

    def at(rtol):
        layer = ImplicitLayer(
            lambda z, x: torch.tanh(z @ W.mT + x), solver=FixedPointIteration(),
            stopping=Stopping(rtol=rtol, max_steps=2000), gradient=gradient or Exact(),
        )  # fmt: skip
        return lambda x: layer(x)

    return at


def unrolled(steps):
    def layer(x):
        z = torch.zeros_like(x)
        for _ in range(steps):
            z = torch.tanh(z @ W.mT + x)
        return z

    return layer


def deeper(steps):
    """The error falls like 0.8 to the number of steps, at least."""
    return lambda factor: unrolled(steps + math.ceil(math.log(factor) / math.log(0.8)))


@pytest.mark.parametrize(
    "rtol",
    [pytest.param(1e-2, marks=pytest.mark.long), 1e-3, pytest.param(1e-5, marks=pytest.mark.long)],
)
def test_a_loose_solve_is_unconverged_where_it_can_be_tightened(rtol):
    at = layer_with()
    report = verify(at(rtol), wanted(3, 4), tighten=lambda factor: at(rtol * factor))
    assert report.verdict is Verdict.UNCONVERGED
    finding = report["output", "input 0"]
    assert 1e-3 * rtol < finding.slack < 100 * rtol
    # The differences themselves settle, whatever the layer's own error.
    assert finding.floor < 1e-6


def test_a_tight_solve_is_correct_and_small_errors_would_have_been_seen():
    at = layer_with()
    report = verify(at(1e-9), wanted(3, 4), tighten=lambda factor: at(max(1e-9 * factor, 1e-14)))
    assert report.verdict is Verdict.CORRECT
    assert report.detectable < 1e-6


def test_a_loose_solve_does_not_excuse_a_wrong_gradient():
    at = layer_with(JacobianFree())
    report = verify(at(1e-4), wanted(3, 4), tighten=lambda factor: at(1e-4 * factor))
    assert report.verdict is Verdict.WRONG


@pytest.mark.parametrize("steps", [5, 15])
def test_a_loose_iteration_of_a_fixed_number_of_steps_is_unconverged(steps):
    report = verify(unrolled(steps), wanted(3, 4), tighten=deeper(steps))
    assert report.verdict is Verdict.UNCONVERGED


def test_an_implicit_gradient_of_few_steps_is_unconverged_and_without_the_knob_wrong():
    equation = ImplicitLayer(
        lambda z, x: torch.tanh(z @ W.mT + x), solver=FixedPointIteration(),
        stopping=Stopping(rtol=1e-15, max_steps=6), on_failure="accept",
    )  # fmt: skip

    def at(steps):
        layer = ImplicitLayer(
            equation.f, solver=FixedPointIteration(),
            stopping=Stopping(rtol=1e-15, max_steps=steps), on_failure="accept",
        )  # fmt: skip
        return lambda x: layer(x)

    def tighten(factor):
        return at(6 + math.ceil(math.log(factor) / math.log(0.8)))

    assert verify(at(6), wanted(3, 4), tighten=tighten).verdict is Verdict.UNCONVERGED
    assert verify(equation, wanted(3, 4)).verdict is Verdict.UNCONVERGED
    # The number of steps never changes, so nothing tells it from the function that is meant.
    assert verify(at(6), wanted(3, 4)).verdict is Verdict.WRONG


@pytest.mark.long
def test_second_derivatives_are_those_of_the_tightened_layer():
    at = layer_with()
    report = verify(
        at(1e-6), wanted(3, 4), tighten=lambda factor: at(max(1e-6 * factor, 1e-14)), effort="full"
    )
    assert report["output, second order", "input 0"].verdict in (
        Verdict.CORRECT,
        Verdict.UNCONVERGED,
    )
    assert "bytes are saved for the backward pass" in str(report)


@pytest.mark.parametrize(
    ("tighten", "says"),
    [
        (lambda factor: 3, "tighten= gives no layer: it must be a layer, got 3"),
        (lambda factor: 1 / 0, "tighten(0.01) raised ZeroDivisionError"),
        (lambda factor: lambda x: torch.tanh(x), "it must use the same tensors, but has not the"),
    ],
)
def test_a_knob_that_gives_no_such_layer_is_told(tighten, says):
    report = verify(unrolled(5), wanted(3, 4), tighten=tighten)
    assert report.verdict is Verdict.UNRELIABLE
    assert says in str(report)


def test_a_knob_that_stops_at_once_is_not_believed():
    def tighten(factor):
        if factor < 1e-2:
            raise ValueError("no tighter than this")
        return unrolled(20)

    report = verify(unrolled(5), wanted(3, 4), tighten=tighten)
    assert report.verdict is Verdict.UNRELIABLE
    assert "two tolerances are needed" in str(report)


def test_a_knob_must_be_callable():
    with pytest.raises(TypeError, match="tighten must be callable or None, got .1e-3."):
        verify(unrolled(5), wanted(3, 4), tighten="1e-3")
