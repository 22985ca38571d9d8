"""Noise of a computed function, and differences that state their own error."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from implicitly.verification.differences import slope
from implicitly.verification.noise import Noise


def of(function, relative=1e-9, scale=1.0):
    one = np.ones(1)
    return slope(lambda t: np.array([function(t)]), scale, relative * one, one)


@given(st.floats(-12, -3), st.integers(0, 10))
def test_the_noise_of_a_noisy_line_is_found_within_a_factor_of_four(decade, seed):
    level = 10.0**decade
    rng = np.random.default_rng(seed)
    t = np.arange(9.0)
    noise = Noise.of((1.0 + 0.3 * t + level * rng.standard_normal(9))[:, None])
    # Nine samples fix a standard deviation within a factor of four, as the source has it.
    assert level / 4 <= noise.level[0] <= 4 * level


def test_a_smooth_function_that_changes_much_over_the_samples_shows_no_noise():
    t = np.linspace(0, 4, 9)
    noise = Noise.of(np.exp(t)[:, None])
    assert not noise.found[0]


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="at least 6 points, got 5"):
        Noise.of(np.zeros((5, 1)))


@pytest.mark.parametrize(
    ("function", "derivative"),
    [
        (np.sin, 1.0),
        (lambda t: np.exp(3 * t), 3.0),
        (lambda t: np.tanh(100 * t), 100.0),
        (lambda t: 1e12 * np.sin(t), 1e12),
        (lambda t: 1e-200 * np.sin(t), 1e-200),
        (lambda t: 1 + 1e-6 * t, 1e-6),
    ],
)
def test_the_derivative_lies_within_the_error_that_is_stated(function, derivative):
    found = of(function)
    assert abs(found.value[0] - derivative) <= 4 * found.error[0] + 1e-15 * derivative
    # Rounding of the value 1, over the largest spacing, on the scale of the derivative.
    assert found.error[0] <= 1e-9 * max(derivative, abs(function(0.0)))


def test_the_error_stated_holds_for_a_noisy_function():
    rng = np.random.default_rng(0)
    found = of(lambda t: np.sin(t) + 1e-8 * rng.standard_normal())
    assert abs(found.value[0] - 1) <= 4 * found.error[0]
    # Noise over the largest spacing, times the weights of the highest order.
    assert 1e-8 < found.error[0] < 1e-5
    assert 2e-9 < found.noise[0] < 5e-8


def test_a_function_that_jumps_at_large_distances_only_is_differenced_at_small_ones():
    def jumps(t):
        return np.sin(t) + 1e-4 * np.floor(abs(t) / 1e-3)

    found = of(jumps)
    assert found.noise[0] > 1e-6
    # The slopes of the two spacings contradict each other by less than the jumps over the spacing.
    assert abs(found.value[0] - 1) <= found.error[0]


def test_a_kink_shows_as_a_jump_of_the_slope():
    assert of(lambda t: abs(t) + 0.5 * t).jump[0] == pytest.approx(2.0, rel=1e-6)
    assert of(lambda t: 0.5 * t + t**2).jump[0] == 0


def test_a_constant_is_recognised():
    found = of(lambda t: 3.0)
    assert found.constant[0]
    assert found.value[0] == 0


def test_a_function_without_values_nearby_is_an_arithmetic_error():
    with pytest.raises(ArithmeticError, match="no spacing of finite differences has values"):
        of(lambda t: 0.0 if t == 0 else np.nan)
