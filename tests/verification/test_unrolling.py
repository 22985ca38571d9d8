"""The unrolled network of a layer tends to the layer, at the rate of the spectral radius."""

from itertools import pairwise

import pytest
import torch
from implicitly import ImplicitLayer, Stopping
from implicitly.verification import unrolled
from layers import draw, wanted


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
