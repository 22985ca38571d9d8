"""Every script in examples/ runs, and what it claims in print is true."""

import itertools
import math
import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


@pytest.fixture
def printed(capsys):
    def run(name):
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


def numbers(line):
    return [float(number) for number in NUMBER.findall(line)]


def test_every_example_is_tested():
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(f'printed("{path.name}")' in text for path in EXAMPLES.glob("*.py"))


def test_keplers_equation_and_its_derivatives(printed):
    solved, _, residual, errors = printed("scalar_equation.py")
    assert solved == "48 orbits solved: True"
    # Residuals start below 2π; the default relative tolerance in float64 is 1e-10.
    assert numbers(residual)[-1] < 2 * math.pi * 1e-10
    # One equation with one unknown: the adjoint is a division, exact to some roundings.
    assert max(numbers(errors)) < 1e-13


def test_the_spirals_are_told_apart(printed):
    last = printed("equilibrium_layer.py")[-1]
    accuracy = float(re.search(r"accuracy ([\d.]+)", last)[1])
    assert accuracy > 0.95


def test_the_penalty_ends_at_a_minimum(printed):
    lines = printed("hyperparameter_gradient.py")
    errors = [float(re.search(r"error ([\d.]+)", line)[1]) for line in lines[:-1]]
    assert errors == sorted(errors, reverse=True)
    # The first slope is of order one, and the tolerance of the linear solves is 1e-10.
    assert abs(numbers(lines[-1])[-1]) < 1e-9


def test_bratus_equation_converges_with_second_order_in_value_and_slope(printed):
    _, *lines = printed("bratu_sensitivity.py")
    errors = [[float(e) for e in re.findall(r"error ([\d.e+-]+)", line)] for line in lines]
    for coarse, fine in itertools.pairwise(errors):
        for before, after in zip(coarse, fine, strict=True):
            # Two printed digits: a quarter to within five per cent each.
            assert before / after == pytest.approx(4, rel=0.1)


def test_the_custom_solver_is_faster_and_its_gradient_exact(printed):
    plain, aitken = printed("custom_solver.py")
    for fewer, more in zip(numbers(aitken)[:2], numbers(plain)[:2], strict=True):
        assert fewer < more
    # Tolerance 1e-10 for solve and adjoint; ‖(I − J)⁻¹‖ is at most 1 / (1 − 0.9).
    assert max(numbers(aitken)[-1], numbers(plain)[-1]) < 2 * 10 * 1e-10


def test_a_mistake_in_a_backward_pass_is_found_named_and_mended(printed):
    lines = printed("verify_a_layer.py")
    assert lines[0].startswith("WRONG")
    assert sum("likely cause: the Jacobian is not transposed" in line for line in lines) == 2
    assert lines[-2] == "mended: CORRECT"
    assert numbers(lines[-1])[0] < 1e-7


def test_a_simulator_in_numpy_has_a_gradient(printed):
    alone, differences, exact = printed("numpy_simulator.py")
    voltages = {re.search(r"v = ([\d.]+)", line)[1] for line in (alone, differences, exact)}
    assert len(voltages) == 1
    # Central differences lose a third of the digits, and the curvature of the diode some more.
    assert numbers(differences)[-1] < 1e-6
    # The answer is known to a rounding of v, which the diode multiplies by v / v_T.
    assert numbers(exact)[-1] < 1e-12


def test_the_rod_buckles_at_eigenvalues_and_its_load_follows_perturbation_theory(printed):
    straight, *points, branches, slopes = printed("bifurcation_diagram.py")
    assert straight.startswith("straight rod: BOUND")
    assert len(points) == 2
    # Branch points are accepted at an estimated error of 1e-8.
    assert all(numbers(line)[-1] < 1e-8 for line in points)
    assert branches == "branches: ['BOUND', 'BOUND', 'BOUND', 'BOUND']"
    exact, perturbed = numbers(slopes)
    assert abs(exact - perturbed) < 1e-5
