"""Derivatives without cancellation, and the orders of Taylor remainders."""

import numpy as np
import pytest
import torch
from implicitly.verification import Verdict, verify
from implicitly.verification.checks.taylor import fitted_order
from layers import function, wanted, weight

from .implicit_layers import tanh_layer


def evidence(report, check):
    return [
        piece
        for finding in report.findings
        for piece in finding.evidence
        if piece.check.startswith(check)
    ]


def reason(report, check):
    return dict(report.not_exercised)[check]


# --- Complex step ----------------------------------------------------------------------------------


def test_the_complex_step_agrees_to_rounding():
    pieces = evidence(verify(lambda x: x.sin() * x.exp(), wanted(3, 4), effort="full"), "complex")
    assert pieces
    # A sum of twelve products, each rounded; finite differences reach 1e-12.
    assert all(piece.error <= 1e-14 * max(1, piece.scale) * 12 for piece in pieces)


def test_the_complex_step_alone_calls_a_small_error_wrong():
    layer = function(torch.sin, lambda x, g: g * x.cos() * (1 + 1e-8))
    pieces = evidence(verify(layer, wanted(3, 4), effort="full"), "complex step")
    assert any(piece.verdict is Verdict.WRONG for piece in pieces)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (lambda x: (x.abs() ** 2).sum(-1), "the layer gives real values"),
        (lambda x: x * x.conj(), "disagree"),
        (lambda x: torch.erf(x), "takes no complex inputs"),
    ],
    ids=["real values", "conjugates", "refuses"],
)
def test_where_it_does_not_hold_it_says_so(layer, says):
    report = verify(layer, wanted(3, 4), effort="full")
    assert report.verdict is Verdict.CORRECT
    assert says in reason(report, "complex step")


# --- Taylor remainders -----------------------------------------------------------------------------


def test_the_fit_is_not_upset_by_a_remainder_that_changes_its_sign():
    t = np.geomspace(1e-4, 1e-1, 10)
    fit = fitted_order(t, np.abs(t**2 - 10.5 * t**3))
    assert fit.high > 1.9
    assert abs(fit.value - 2) < 0.1


def test_a_fit_of_noise_has_a_wide_interval():
    noise = np.exp(np.random.default_rng(0).normal(size=12))
    fit = fitted_order(np.geomspace(1e-4, 1e-1, 12), noise)
    assert fit.low < 0 < fit.high


# Without the equation it takes seconds.
@pytest.mark.parametrize("known", [True, pytest.param(False, marks=pytest.mark.long)])
def test_remainders_of_a_right_layer_have_the_orders_1_to_3(known):
    W = weight(4)
    layer = tanh_layer(W)
    pieces = evidence(
        verify(layer if known else lambda x: layer(x), wanted(3, 4), effort="full"), "Taylor"
    )
    found = {piece.check[-7:]: piece.detail for piece in pieces if piece.input == "input 0"}
    assert set(found) == {"order 1", "order 2", "order 3"}
    for order in (1, 2, 3):
        value = float(found[f"order {order}"].split()[1])
        assert abs(value - order) < 0.2


def test_a_wrong_gradient_makes_the_remainder_of_order_2_one_of_order_1():
    layer = function(torch.sin, lambda x, g: 1.01 * g * x.cos())
    pieces = evidence(verify(layer, wanted(3, 4), effort="full"), "Taylor remainders, order 2")
    assert [piece.verdict for piece in pieces] == [Verdict.WRONG]
    assert float(pieces[0].detail.split()[1]) == pytest.approx(1, abs=0.1)
    # The slowest term is the error of the gradient along the direction, 1 % of a Gaussian product.
    assert 0.001 * pieces[0].scale < pieces[0].error < 0.04 * pieces[0].scale
