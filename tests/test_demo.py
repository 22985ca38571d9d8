"""The command, and the pure pieces that the demonstration is made of."""

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from implicitly import Anderson, Exact, JacobianFree, Solver, Stopping, __version__
from implicitly.cli.app import app
from implicitly.cli.demo import demonstration
from implicitly.cli.demo.baseline import bigram_bits, unigram_bits
from implicitly.cli.demo.checks import (
    HeldOut,
    SolverReport,
    gradient_uncertainty,
    saved_by_layer,
    saved_by_unrolled,
)
from implicitly.cli.demo.gradients import (
    DepthStudy,
    GradientCheck,
    Tensors,
    check_gradient,
    directional_derivative,
    distance,
    random_direction,
)
from implicitly.cli.demo.network import EquilibriumNetwork
from implicitly.cli.demo.objective import Objective
from implicitly.cli.demo.solving import SOLVERS, SolverRun, largest_residuals, spectral_radius
from implicitly.cli.demo.text import evenly_spaced, windows
from implicitly.implicit import Gradient
from implicitly.models.data import standard_library
from implicitly.verification.saved import saved_bytes
from torch import Tensor
from typer.testing import CliRunner

DOUBLE = torch.float64
UNIT = torch.finfo(DOUBLE).eps


# --- The command -------------------------------------------------------------------------------


def test_version_and_help_are_there() -> None:
    version = CliRunner().invoke(app, ["--version"])
    assert version.exit_code == 0
    assert version.output.strip() == f"implicitly {__version__}"
    assert "demo" in CliRunner().invoke(app, ["--help"]).output


@pytest.mark.usefixtures("shared_processes")
def test_demo_prints_the_table_and_saves_the_figure(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--fast", "--output", str(tmp_path / "new")])
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines()]
    names = [row[0] for row in rows if row and len(row) == 8 and row[2] == "6/6"]
    assert names == [type(solver).__name__ for solver in SOLVERS]
    assert "All checks passed" in result.output
    png = (tmp_path / "new" / "demo.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert "DEQ-Transformer" in result.output
    for model in ("equilibrium", "8 layers"):
        assert re.search(rf"^{model} +[\d,]+ ", result.output, re.MULTILINE)
    assert "Polyalgorithm(remember=False) solves 2 of 2" in result.output
    assert (tmp_path / "new" / "study" / "report.html").exists()


def test_demo_fails_on_a_wrong_gradient_and_does_without_extras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Objective.gradient
    monkeypatch.setattr(
        Objective, "gradient", lambda self: tuple(1.000001 * g for g in right(self))
    )
    some = SOLVERS[1:3]
    monkeypatch.setattr(demonstration, "SOLVERS", some)
    monkeypatch.setattr(demonstration, "missing", lambda extra: [f"a module of {extra}"])
    result = CliRunner().invoke(app, ["demo", "--fast", "--output", str(tmp_path)])
    assert result.exit_code == 1
    assert "pip install 'implicitly[figures]'" in result.output
    assert "pip install 'implicitly[studies]'" in result.output
    assert "pip install 'implicitly[models]'" in result.output
    for solver in some:
        assert f"Failed: {type(solver).__name__}: the gradient differs" in result.output
    assert not list(tmp_path.iterdir())


def test_demo_says_when_there_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        demonstration,
        "standard_library",
        lambda characters: standard_library(characters, folder=tmp_path),
    )
    result = CliRunner().invoke(app, ["demo", "--fast", "--output", str(tmp_path)])
    assert result.exit_code == 1
    assert "0 modules, at least 3" in " ".join(result.output.split())


# --- Text --------------------------------------------------------------------------------------


def test_windows_are_followed_by_the_next_character() -> None:
    text = torch.arange(8)
    starts = evenly_spaced(text, 3, context=2)
    before, following = windows(text, starts, 2)
    assert starts.tolist() == [0, 2, 5]  # first, middle (2.5, cut) and last of the six windows
    assert torch.equal(before, torch.stack([text[0:2], text[2:4], text[5:7]]))
    assert torch.equal(following, text[[2, 4, 7]])


# --- Baselines ---------------------------------------------------------------------------------


def test_baselines_agree_with_counting_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    training, held_out = (torch.randint(0, 4, (n,), generator=generator) for n in (200, 50))
    single = Counter(training.tolist())
    pairs = Counter(zip(training.tolist(), training.tolist()[1:], strict=False))
    firsts = Counter(training.tolist()[:-1])

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    by_hand = mean([-math.log2((single[c] + 0.1) / (200 + 0.5)) for c in held_out.tolist()])
    assert unigram_bits(training, held_out, 5) == pytest.approx(by_hand, rel=1e-12)
    by_hand = mean(
        [
            -math.log2((pairs[a, b] + 0.1) / (firsts[a] + 0.5))
            for a, b in zip(held_out.tolist(), held_out.tolist()[1:], strict=False)
        ]
    )
    assert bigram_bits(training, held_out, 5) == pytest.approx(by_hand, rel=1e-12)


# --- Gradients ---------------------------------------------------------------------------------


def smooth(at: Tensors) -> Tensor:
    a, b = at
    return (a.sin() * b.exp()).sum()


@pytest.fixture
def point() -> Tensors:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(5, generator=generator, dtype=DOUBLE) for _ in range(2))


def smooth_gradient(point: Tensors) -> Tensors:
    a, b = point
    return a.cos() * b.exp(), a.sin() * b.exp()


def check(point: Tensors, gradient: Tensors, uncertainty: float = 0.0) -> GradientCheck:
    generator = torch.Generator().manual_seed(2)
    directions = [random_direction(point, (True, True), generator) for _ in range(3)]
    # Ten terms of size 1, each right to a few units.
    return check_gradient(
        smooth, point, gradient, directions, noise=10 * UNIT, uncertainty=uncertainty
    )


def test_right_gradient_passes(point: Tensors) -> None:
    result = check(point, smooth_gradient(point))
    assert result.passed
    assert result.floor < 1e-10


@pytest.mark.parametrize("wrong", [0, 1])
def test_slightly_wrong_gradient_is_caught(point: Tensors, wrong: int) -> None:
    gradient = list(smooth_gradient(point))
    gradient[wrong] = gradient[wrong] * (1 + 1e-8)
    result = check(point, tuple(gradient))
    assert not result.passed
    assert check(point, tuple(gradient), uncertainty=1e-6).passed


@pytest.mark.parametrize("noise", [1e-15, 1e-12, 1e-8, 1e-4])
def test_derivative_is_within_its_error_whatever_the_noise(noise: float) -> None:
    x = torch.tensor([0.3], dtype=DOUBLE)
    generator = torch.Generator().manual_seed(3)

    def noisy(at: Tensors) -> Tensor:
        uniform = 2 * torch.rand((), generator=generator, dtype=DOUBLE) - 1
        return (5 * at[0]).sin().sum() + noise * uniform

    # sin itself, and its argument, are rounded too.
    value, error = directional_derivative(
        noisy, (x,), (torch.ones_like(x),), noise=noise + 4 * UNIT
    )
    assert abs(value - 5 * math.cos(1.5)) <= error
    # Not by claiming little: at the longest step the noise alone is divided by 1.6e-3.
    assert error <= 1e4 * (noise + 1e-13)


def test_random_direction_has_the_size_of_its_tensor_or_is_zero() -> None:
    at = (torch.full((1000,), 3.0), torch.ones(4), torch.zeros(1000))
    direction = random_direction(at, (True, False, True), torch.Generator().manual_seed(0))
    # The standard deviation of a thousand numbers is known to 1/√2000.
    assert direction[0].std().item() == pytest.approx(3, rel=0.1)
    assert not direction[1].any()
    assert direction[2].std().item() == pytest.approx(1, rel=0.1)


def test_distance_is_that_of_the_worst_tensor() -> None:
    reference = (torch.ones(4), torch.full((1,), 10.0))
    other = (torch.ones(4), torch.full((1,), 11.0))
    assert distance(other, reference) == pytest.approx(0.1)


def study(errors: Callable[[int], float], floor: float = 1e-12) -> DepthStudy:
    depths = (1, 2, 4, 8, 16, 32, 64)
    return DepthStudy(depths, tuple(errors(k) for k in depths), contraction=0.7, floor=floor)


def test_decay_of_a_truncated_series_is_geometric_and_its_rate_is_found() -> None:
    found = study(lambda k: 0.5 * k * 0.6**k)
    assert found.geometric
    assert found.rate == pytest.approx(0.6, rel=1e-10)


@pytest.mark.parametrize(
    "errors",
    [
        lambda k: 1 / k,
        lambda k: max(0.6**k, 1e-9),
        lambda k: k * 0.8**k,
        lambda k: math.nan,
        lambda k: math.inf if k == 1 else k * 0.6**k,
    ],
    ids=[
        "algebraic",
        "stagnating",
        "slower than the contraction",
        "undefined",
        "infinite at first",
    ],
)
def test_other_decay_is_not(errors: Callable[[int], float]) -> None:
    assert not study(errors).geometric


def network_and_batch(gradient: Gradient) -> tuple[EquilibriumNetwork, HeldOut]:
    torch.manual_seed(0)
    network = EquilibriumNetwork(97, 3, 4, 10).double()
    tight = Stopping(rtol=3e-14)
    network = network.solved_by(Anderson(), tight, gradient)
    characters = torch.arange(12).reshape(4, 3)
    embedded = network.embed(characters).detach()
    return network, HeldOut(embedded, torch.tensor([5, 1, 7, 7]))


def network_check(gradient_mode: Gradient) -> GradientCheck:
    network, batch = network_and_batch(Exact(stopping=Stopping(rtol=3e-14)))
    exact = Objective(network, batch.embedded, batch.following)
    exact.gradient()
    noise = exact.noise()
    mode = network.solved_by(Anderson(), Stopping(rtol=3e-14), gradient_mode)
    gradient = Objective(mode, batch.embedded, batch.following).gradient()
    generator = torch.Generator().manual_seed(4)
    directions = [random_direction(exact.point, [True] * len(exact.point), generator)]
    uncertainty = gradient_uncertainty(network.cell.contraction())
    return check_gradient(
        exact, exact.point, gradient, directions, noise=noise, uncertainty=uncertainty
    )


def test_exact_gradient_of_the_network_passes_and_a_jacobian_free_one_is_caught() -> None:
    assert network_check(Exact(stopping=Stopping(rtol=3e-14))).passed
    wrong = network_check(JacobianFree())
    assert not wrong.passed
    assert wrong.error > 1e-3


def test_noise_needs_the_adjoint() -> None:
    network, batch = network_and_batch(Exact())
    with pytest.raises(RuntimeError, match="gradient"):
        Objective(network, batch.embedded, batch.following).noise()


def test_noise_covers_what_a_loose_solve_does_to_the_loss() -> None:
    network, batch = network_and_batch(Exact())
    loose = network.solved_by(Anderson(), Stopping(rtol=1e-4), Exact())
    objective = Objective(loose, batch.embedded, batch.following)
    objective.gradient()
    noise = objective.noise()
    tight = Objective(network, batch.embedded, batch.following)
    change = abs(float(objective(objective.point) - tight(tight.point)))
    assert 0 < change <= noise
    assert noise < 1e-3


def test_spectral_radius_is_that_of_the_jacobian_by_hand() -> None:
    network, batch = network_and_batch(Exact())
    z = network.equilibrium(network.injection(batch.embedded)).detach().numpy()
    weight = network.cell.linear.weight.detach().numpy()
    by_hand = max(np.abs(np.linalg.eigvals((1 - row**2)[:, None] * weight)).max() for row in z)
    assert spectral_radius(network, batch.embedded) == pytest.approx(by_hand, rel=1e-9)


def test_projection_bounds_the_contraction_and_leaves_smaller_weights_alone() -> None:
    network, _ = network_and_batch(Exact())
    before = network.cell.linear.weight.clone()
    network.cell.project(0.9)
    assert torch.equal(network.cell.linear.weight, before)
    network.cell.project(0.3)
    assert np.linalg.norm(network.cell.linear.weight.detach().numpy(), 2) == pytest.approx(0.3)


def test_residuals_of_ended_systems_are_held() -> None:
    trace = np.array([[3.0, 1.0], [2.0, 0.5], [0.1, np.nan], [0.05, np.nan]])
    assert largest_residuals(trace) == (3.0, 2.0, 0.5, 0.5)


# --- Memory ------------------------------------------------------------------------------------


def test_saved_bytes_counts_a_storage_once_and_parameters_not_at_all() -> None:
    x = torch.ones(10, dtype=DOUBLE, requires_grad=True)
    weight = torch.ones(10, dtype=DOUBLE, requires_grad=True)
    assert saved_bytes(lambda: x.exp()) == 80  # its result
    assert saved_bytes(lambda: x * x) == 80  # the same tensor twice
    assert saved_bytes(lambda: x.view(2, 5) * x.view(2, 5)) == 80  # two views
    assert saved_bytes(lambda: x * weight) == 160
    assert saved_bytes(lambda: x * weight, excluding=[weight]) == 80
    assert saved_bytes(lambda: x + weight) == 0


def test_saved_bytes_leaves_out_graphs_that_were_dropped() -> None:
    x = torch.ones(10, dtype=DOUBLE, requires_grad=True)

    def forward() -> Tensor:
        torch.autograd.grad(x.exp().sum(), x)
        return x.exp()

    assert saved_bytes(forward) == 80


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_layer_saves_its_input_and_solution_and_the_unrolled_network_every_iterate(
    solver: Solver,
) -> None:
    network, batch = network_and_batch(Exact())
    one = 4 * 10 * 8  # four systems of ten unknowns in float64
    assert saved_by_layer(network, batch, solver, Stopping()) == 2 * one
    # The start, which the first product with W needs, and the result of every tanh.
    assert [saved_by_unrolled(network, batch, n) for n in (1, 2, 20)] == [
        2 * one,
        3 * one,
        21 * one,
    ]


# --- What counts as failed ---------------------------------------------------------------------

RUN = SolverRun("Anderson", 9, 0, 1e-11, 0.01, 4, 4, (1, 9), (1.0, 1e-11))
GOOD = SolverReport(
    RUN,
    GradientCheck(1e-12, 1e-11, 2e-11),
    study(lambda k: k * 0.6**k),
    saved=10,
    saved_unrolled=80,
)


def test_good_report_has_no_failures() -> None:
    assert GOOD.failures == []
    assert GOOD.memory_ratio == 1 / 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": replace(RUN, converged=3)}, "did not solve 1 of 4 systems"),
        ({"differences": GradientCheck(3e-11, 1e-11, 2e-11)}, "differs from finite differences"),
        ({"differences": GradientCheck(math.nan, 1e-11, 2e-11)}, "differs from finite differences"),
        ({"unrolled": study(lambda k: 1 / k)}, "does not fall geometrically"),
    ],
)
def test_each_failure_is_named(change: dict[str, Any], message: str) -> None:
    (failure,) = replace(GOOD, **change).failures
    assert message in failure
