"""The unrolled network of a layer tends to the layer, at the rate of the spectral radius."""

from itertools import pairwise

import pytest
import torch
from implicitly import ImplicitLayer, JacobianFree, Stopping
from implicitly.verification import Verdict, agreement, unrolled, verify
from layers import draw, wanted, weight

from .implicit_layers import tanh_layer


def linear_layer():
    # The spectral radius of the map is 1/2 in every direction.
    W = 0.5 * torch.linalg.qr(draw(4, 4)).Q
    return ImplicitLayer(lambda z, x: z @ W.mT + x, stopping=Stopping(rtol=1e-14))


def gradient(function, x):
    return torch.autograd.grad(function(x).sin().sum(), x)[0]


def test_values_and_gradients_come_closer_by_the_spectral_radius_in_each_step():
    layer, x = linear_layer(), wanted(3, 4)
    for measure in (lambda f: f(x).detach(), lambda f: gradient(f, x)):
        right = measure(layer)
        errors = [float((measure(unrolled(layer, k)) - right).norm()) for k in (10, 20, 30)]
        for before, after in pairwise(errors):
            # 2^-10 in ten steps; the direction of the error may turn.
            assert 2.0**-12 < after / before < 2.0**-8


def test_what_cannot_be_unrolled_is_refused():
    with pytest.raises(TypeError, match="layer must be an ImplicitLayer, got Linear"):
        unrolled(torch.nn.Linear(2, 2), 3)
    with pytest.raises(ValueError, match="only a layer with form='fixed_point'"):
        unrolled(ImplicitLayer(lambda z, x: z - x, "root"), 3)
    with pytest.raises(ValueError, match="depth must be an integer ≥ 1, got 0"):
        unrolled(linear_layer(), 0)


def test_the_rates_of_output_and_gradient_are_the_spectral_radius():
    found = agreement(linear_layer(), wanted(3, 4), range(4, 40, 4))
    assert found.spectral_radius == pytest.approx(0.5, abs=1e-12)
    # A scaled isometry: every error is halved exactly.
    assert found.value_rate.value == pytest.approx(0.5, abs=1e-6)
    # The gradient of a linear map is a Neumann series, which is cut off where the value is.
    assert found.gradient_rate.value == pytest.approx(0.5, abs=1e-3)
    assert found.values[-1] < 1e-9


def test_the_gradient_comes_later_by_a_factor_that_grows_with_the_depth():
    layer = ImplicitLayer(lambda z, x: 0.6 * torch.sin(z) + x, stopping=Stopping(rtol=1e-13))
    found = agreement(layer, wanted(1, 1), range(2, 26, 2))
    lag = [g / v for g, v in zip(found.gradients, found.values, strict=True)]
    assert lag[-1] > lag[1] > 1
    assert found.gradient_rate.low < found.spectral_radius * 1.2


def test_an_agreement_reads_well_and_is_drawn():
    found = agreement(linear_layer(), wanted(3, 4), (2, 4, 8, 16))
    text = str(found)
    assert text.splitlines()[0] == "depth    output  gradient"
    assert "spectral radius at the equilibrium: 0.500" in text
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    axes = found.plot()
    assert [line.get_label() for line in axes.get_lines()] == [
        "output", "gradient", "spectral radius 0.50",
    ]  # fmt: skip


def test_depths_must_increase():
    with pytest.raises(ValueError, match=r"depths must increase from 1 or more, got \(3, 3\)"):
        agreement(linear_layer(), wanted(3, 4), (3, 3))
    with pytest.raises(ValueError, match=r"got \(\)"):
        agreement(linear_layer(), wanted(3, 4), ())


def unrolled_evidence(layer):
    report = verify(layer, wanted(3, 4), effort="full")
    pieces = [
        piece
        for finding in report.findings
        for piece in finding.evidence
        if piece.check == "unrolled network"
    ]
    return pieces, dict(report.not_exercised)


def test_a_verification_compares_with_the_unrolled_network_and_states_its_rate():
    W = weight(4, norm=0.8)
    pieces, _ = unrolled_evidence(tanh_layer(W))
    assert [piece.verdict for piece in pieces] == [Verdict.CORRECT] * 2
    assert all(piece.error <= 1e-8 * piece.scale for piece in pieces)
    assert "factor per layer 0." in pieces[0].detail
    wrong, _ = unrolled_evidence(tanh_layer(W, gradient=JacobianFree()))
    assert [piece.verdict for piece in wrong] == [Verdict.WRONG] * 2


def test_a_map_that_does_not_contract_is_not_unrolled():
    _, skipped = unrolled_evidence(ImplicitLayer(lambda z, x: x - 2 * z))
    assert "does not converge" in skipped["unrolled network"]
