"""Solvers in turn: who goes on from where, what is held, what it costs, and what is remembered."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from implicitly import (
    DFSANE,
    Homotopy,
    ImplicitLayer,
    LineSearch,
    Newton,
    NewtonKrylov,
    Polyalgorithm,
    Solver,
    SparseLU,
    Status,
    Stopping,
    Unrolled,
    Winner,
    problems,
    root,
)
from implicitly.implicit.calls.settings import Settings
from implicitly.solvers import Problem
from implicitly.solvers.composed.members import default_members
from torch import Tensor


@dataclass
class Here:
    z: Tensor
    residual: Tensor


@dataclass(frozen=True)
class Moves(Solver):
    """Steps by `move`; keeps where it was told to start, and how many steps it made."""

    move: Callable[[Tensor], Tensor]
    starts: list[Tensor] = field(default_factory=list, compare=False)
    steps: list[int] = field(default_factory=list, compare=False)

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> Here:
        self.starts.append(z)
        self.steps.append(0)
        return Here(z, residual)

    def step(self, problem: Problem, state: Here) -> Here:
        self.steps[-1] += 1
        z = self.move(state.z)
        return Here(z, problem.residual(z))


def column(*entries: float) -> Tensor:
    return torch.tensor(entries, dtype=torch.float64)


def equation(z: Tensor) -> Tensor:
    return z - 1


def never(z: Tensor) -> Tensor:
    return z


def test_each_member_begins_at_the_start_of_the_solve() -> None:
    # The first member comes within 0.5 and leaves again: where one stalls others would too.
    values = iter([0.5, -3.0, -4.0])
    first = Moves(lambda z: torch.full_like(z, next(values)))
    second = Moves(lambda z: torch.ones_like(z))
    solver = Polyalgorithm(members=(first, second))
    solution = root(
        equation, column(-1.0), solver=solver, batch_dims=1, stopping=Stopping(max_steps=6)
    )
    assert second.starts[0].tolist() == [[-1.0]]
    assert solution.value.tolist() == [1.0]
    # Three steps of the first, one of the second.
    assert solution.steps.tolist() == [4]


def test_a_member_that_runs_away_may_come_back() -> None:
    # Alone it would have diverged: its residual grows by 5e11 before it is zero.
    values = iter([1e12, 1.0])
    members = (Moves(lambda z: torch.full_like(z, next(values))), Moves(never))
    solution = root(equation, column(-1.0), solver=Polyalgorithm(members=members), batch_dims=1)
    assert solution.value.tolist() == [1.0]
    assert solution.steps.tolist() == [2]


def test_the_tolerance_is_that_of_the_whole_solve_for_every_member() -> None:
    # From −1 to 0.5 and to 0.993: below a hundredth of the first residual, not of the second's.
    members = tuple(Moves(partial(torch.full_like, fill_value=to)) for to in (0.5, 0.993, 1.0))
    solution = root(
        equation, column(0.0), solver=Polyalgorithm(members=members), batch_dims=1,
        stopping=Stopping(rtol=1e-2, max_steps=8),
    )  # fmt: skip
    assert solution.converged.all()
    assert [len(member.steps) for member in members] == [1, 1, 0]


@pytest.mark.parametrize("dropping", [False, True])
def test_what_is_solved_is_held_to_the_last_bit(dropping: bool) -> None:
    # Newton's line search ends in the local minimum of Freudenstein and Roth's function from the
    # first start, and solves it from the second and third.
    problem = problems.get("freudenstein-roth")
    start = torch.stack((problem.start(), column(5.1, 4.1), column(4.0, 4.2)))
    seen: list[Tensor] = []

    def F(z: Tensor, unused: Tensor) -> Tensor:
        seen.append(z.detach().clone())
        return problem.residual(z)

    options: dict[str, Any] = {
        "batch_dims": 1, "batched_args": (True,) if dropping else None, "on_failure": "accept"
    }  # fmt: skip
    alone = root(F, start, start, solver=Newton(), **options)
    assert alone.converged.tolist() == [False, True, True]
    seen.clear()
    solution = root(F, start, start, solver=Polyalgorithm(), **options)
    assert solution.converged.all()
    assert torch.equal(solution.value[1:], alone.value[1:])
    assert torch.equal(solution.steps[1:], alone.steps[1:])
    assert solution.steps[0] > alone.steps[0]
    # Where systems are dropped, the very last evaluation is that of all answers.
    last = seen[-2 if dropping else -1]
    assert len(last) == (1 if dropping else 3)
    if not dropping:
        assert torch.equal(last[1:], alone.value[1:])


@pytest.mark.parametrize("n", [3, 100, 600])
@pytest.mark.parametrize("precision", [torch.float64, torch.float32], ids=str)
def test_an_easy_equation_costs_what_its_first_member_costs(n: int, precision: torch.dtype) -> None:
    def F(z: Tensor) -> Tensor:
        return z + 0.3 * torch.sin(z.roll(1, -1)) - 1

    start = torch.zeros(4, n, dtype=precision)
    first = default_members(4, n)[0]
    alone = root(F, start, solver=first, batch_dims=1)
    default = root(F, start, batch_dims=1)
    assert torch.equal(default.value, alone.value)
    assert torch.equal(default.steps, alone.steps)
    assert torch.equal(default.residual_norm, alone.residual_norm)
    assert default.counts == alone.counts


def test_members_are_chosen_by_the_memory_of_their_jacobians() -> None:
    def kinds(batch: int, n: int) -> list[str]:
        return [type(member).__name__ for member in default_members(batch, n)]

    assert kinds(1, 64)[0] == "Newton"
    assert kinds(1, 512)[0] == "Newton"
    assert "NewtonKrylov" in kinds(1, 65)
    assert kinds(1, 513)[:2] == kinds(1, 2048)[:2] == ["NewtonKrylov", "Newton"]
    assert "Newton" not in kinds(1, 2049)
    assert "Newton" not in kinds(3, 2048)

    # Beyond, sparse Jacobians up to 2¹⁶ unknowns, and 2²⁰ in all.
    def sparse(batch: int, n: int) -> bool:
        return any(
            isinstance(getattr(member, "linear_solver", None), SparseLU)
            for member in default_members(batch, n)
        )

    assert [sparse(1, 2048), sparse(1, 2049), sparse(1, 65536), sparse(1, 65537)] == [0, 1, 1, 0]
    assert [sparse(16, 65536), sparse(17, 65536)] == [1, 0]
    # 2048 · 64² = 2²³ numbers, and one system more.
    assert kinds(2048, 64)[0] == "Newton"
    assert "Newton" not in kinds(2049, 64)


def test_where_krylov_solves_fail_dense_jacobians_take_over() -> None:
    # Without a preconditioner GMRES needs n steps for the Jacobian of a long feeder, and has n / 2 in all.
    problem = problems.get("power-flow")
    start = problem.start(600)
    first = default_members(1, 600)[0]
    krylov = root(problem.function, start, solver=first, on_failure="accept")
    assert krylov.status.item() == Status.LINEAR_SOLVE_FAILED
    assert isinstance(first, NewtonKrylov)
    assert first.linear_budget == 300
    # The last of its solves may take 200 steps more.
    assert krylov.counts.linear_iterations <= 500 + krylov.steps.item()
    dense = root(problem.function, start, solver=Newton())
    assert krylov.residual_norm > 100 * dense.residual_norm
    default = root(problem.function, start)
    assert default.converged
    # Both within the tolerance, in units of the Jacobian's smallest singular value.
    (jacobian,) = torch.func.jacrev(problem.function, argnums=(0,))(dense.value)
    smallest = torch.linalg.svdvals(jacobian)[-1]
    distance = torch.linalg.vector_norm(default.value - dense.value)
    assert distance <= 2 * 600**0.5 * (default.residual_norm + dense.residual_norm) / smallest


def test_where_krylov_solves_fail_sparse_jacobians_take_over() -> None:
    problem = problems.get("power-flow")
    start = problem.start(5000)
    default = root(problem.function, start)
    assert default.converged
    direct = root(problem.function, start, solver=NewtonKrylov(linear_solver=SparseLU()))
    # Ten Krylov steps in vain, each with an evaluation for its slope and one for its trial at least.
    assert default.counts.evaluations <= 10 * (1 + 50) + 2 * direct.counts.evaluations
    # Both are within rounding of the tolerance, in units of the smallest singular value, ~ 10 / n².
    norm = torch.linalg.vector_norm(default.value - direct.value)
    residuals = default.residual_norm + direct.residual_norm
    assert norm <= 5000**0.5 * 5000**2 * residuals


def test_members_that_failed_from_the_start_begin_again_at_the_best_iterate() -> None:
    # Every member ends in the local minimum from here; from where they end a fresh trust region leaves it.
    problem = problems.get("boggs", start_scale=100)
    alone = [
        root(problem.residual, problem.start(), solver=member, on_failure="accept").converged
        for member in default_members(1, 2)
    ]
    assert not any(alone)
    solution = root(problem.residual, problem.start())
    assert problem.residual(solution.value).abs().max() <= 1e-10


@pytest.mark.parametrize(
    "without_root", [lambda z: torch.exp(-z), lambda z: 2 + torch.sin(z), lambda z: 1 / (1 + z**2)]
)
def test_an_iterate_far_out_is_no_second_start(without_root: Callable[[Tensor], Tensor]) -> None:
    for start in (1.0, 100.0):
        solution = root(
            without_root, torch.tensor([start], dtype=torch.float64), on_failure="accept"
        )
        assert not solution.converged


def test_a_budget_of_linear_steps_is_that_of_each_system() -> None:
    problem = problems.get("power-flow")
    start = problem.start(100)
    solver = NewtonKrylov(linear_budget=40)
    alone = root(problem.function, start, solver=solver, on_failure="accept")
    assert alone.status.item() == Status.LINEAR_SOLVE_FAILED
    # Beside one that is solved at its start, in the same steps and to the same bits.
    solved = root(problem.function, start).value
    both = root(
        lambda z: torch.stack([problem.function(row) for row in z]), torch.stack((start, solved)),
        solver=solver, batch_dims=1, on_failure="accept",
    )  # fmt: skip
    assert both.steps[0] == alone.steps
    torch.testing.assert_close(both.value[0], alone.value, rtol=1e-9, atol=0)


# --- Limits, callback, trace ----------------------------------------------------------------------


def test_a_limit_on_steps_is_halved_from_member_to_member() -> None:
    members = tuple(Moves(never) for _ in range(3))
    solution = root(
        equation, column(0.0), solver=Polyalgorithm(members=members), batch_dims=1,
        on_failure="accept", stopping=Stopping(max_steps=50),
    )  # fmt: skip
    assert [member.steps for member in members] == [[25], [13], [12]]
    assert solution.steps.tolist() == [50]
    assert solution.status.tolist() == [Status.MAX_STEPS]


def test_a_limit_on_evaluations_leaves_every_member_a_share() -> None:
    members = tuple(Moves(never) for _ in range(3))
    solution = root(
        equation, column(0.0), solver=Polyalgorithm(members=members), batch_dims=1,
        on_failure="accept", stopping=Stopping(rtol=1e-10, max_evaluations=81),
    )  # fmt: skip
    # One at the start, where each begins; half of the 80 that are left, and so on.
    assert [member.steps for member in members] == [[40], [20], [20]]
    assert solution.evaluations == 81


def test_the_share_of_a_system_does_not_depend_on_its_neighbours() -> None:
    def crawl(z: Tensor) -> Tensor:
        return 0.9 * z + 0.1

    for start in (column(0.0), column(0.0, 1.0), column(0.0, -1e6)):
        solution = root(
            equation, start, batch_dims=1, on_failure="accept",
            solver=Polyalgorithm(members=(Moves(crawl), Moves(crawl))),
            stopping=Stopping(max_steps=30),
        )  # fmt: skip
        assert solution.steps[0] == 30
        # Fifteen steps each, from the same start.
        assert solution.value[0].item() == pytest.approx(1 - 0.9**15)


def test_without_a_limit_each_member_has_its_own() -> None:
    first, second = Moves(lambda z: 0.99 * z + 0.01), Moves(torch.ones_like)
    solution = root(
        equation, column(0.0), solver=Polyalgorithm(members=(first, second)), batch_dims=1
    )
    assert first.steps == [Solver.default_max_steps]
    assert solution.steps.tolist() == [Solver.default_max_steps + 1]


def test_the_callback_counts_steps_over_all_members_and_ends_them_all() -> None:
    seen: list[int] = []

    def callback(step: int, norms: np.ndarray[Any, Any]) -> bool:
        assert norms.shape == (1,)
        seen.append(step)
        return step == 4

    members = tuple(Moves(never) for _ in range(3))
    solution = root(
        equation, column(0.0), solver=Polyalgorithm(members=members), batch_dims=1,
        on_failure="accept", stopping=Stopping(max_steps=6), callback=callback,
    )  # fmt: skip
    assert seen == [0, 1, 2, 3, 4]
    assert [member.steps for member in members] == [[3], [1], []]
    assert solution.status.tolist() == [Status.MAX_STEPS]


def test_the_trace_goes_on_from_member_to_member() -> None:
    first = Moves(lambda z: z / 2 + 0.5)
    second = Moves(torch.ones_like)
    solution = root(
        equation, column(0.0, 1 - 2.0**-40), solver=Polyalgorithm(members=(first, second)),
        batch_dims=1, trace=True, stopping=Stopping(rtol=0.0, atol=1e-12, max_steps=4),
    )  # fmt: skip
    assert solution.trace is not None
    np.testing.assert_array_equal(solution.trace[:, 0], [1.0, 0.5, 0.25, 0.0])
    np.testing.assert_array_equal(solution.trace[1:, 1], [np.nan] * 3)


# --- Memory --------------------------------------------------------------------------------------


def test_the_winner_begins_the_next_call_until_it_is_reset() -> None:
    first, second = Moves(never), Moves(torch.ones_like)
    solver = Polyalgorithm(members=(first, second))
    stopping = Stopping(max_steps=4)

    def call() -> None:
        root(equation, column(0.0), solver=solver, batch_dims=1, stopping=stopping)

    assert solver.winner == Winner(None)
    call()
    assert solver.winner.member is second
    call()
    assert (first.steps, second.steps) == ([2], [1, 1])
    solver.winner.reset()
    call()
    assert (first.steps, second.steps) == ([2, 2], [1, 1, 1])


def test_the_winner_is_the_member_that_solved_most_systems() -> None:
    first = Moves(lambda z: torch.where(z < 0, z, 1.0))
    solver = Polyalgorithm(members=(first, Moves(torch.ones_like)))
    for start, winner in ((column(-1.0, 0.5, 0.2), 0), (column(-1.0, -2.0, 0.2), 1)):
        solver.winner.reset()
        root(equation, start, solver=solver, batch_dims=1, stopping=Stopping(max_steps=4))
        assert solver.members is not None
        assert solver.winner.member is solver.members[winner]


def test_memory_can_be_switched_off() -> None:
    first, second = Moves(never), Moves(torch.ones_like)
    solver = Polyalgorithm(members=(first, second), remember=False)
    for _ in range(2):
        root(equation, column(0.0), solver=solver, batch_dims=1, stopping=Stopping(max_steps=4))
    assert solver.winner.member is None
    assert first.steps == [2, 2]


def test_copies_have_memories_of_their_own_and_replacements_share_one() -> None:
    solver = Polyalgorithm()
    solver.winner.member = Homotopy()
    for copied in (copy.deepcopy(solver), pickle.loads(pickle.dumps(solver))):
        assert copied == solver
        assert copied.winner == solver.winner
        copied.winner.reset()
        assert solver.winner.member == Homotopy()
    assert dataclasses.replace(solver, remember=False).winner is solver.winner
    # What is remembered is not what the solver is.
    assert Polyalgorithm() == solver
    assert hash(Polyalgorithm()) == hash(solver)


def test_a_winner_that_is_no_member_at_another_size_is_left_out() -> None:
    solver = Polyalgorithm()
    solver.winner.member = DFSANE(memory=3)
    solution = root(equation, column(0.0), solver=solver, batch_dims=1)
    assert solution.converged.all()
    assert repr(solver.winner.member) == repr(Newton())


@pytest.mark.parametrize("batched", [None, (True,)], ids=["whole", "dropping"])
def test_a_layer_remembers_between_calls_and_a_call_of_root_does_not(batched: Any) -> None:
    class Cubic(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slope = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            return z**3 + self.slope * z - x

    layer = ImplicitLayer(Cubic(), form="root", batched_args=batched)
    layer(torch.ones(3, 2, dtype=torch.float64)).sum().backward()
    solver = layer.settings.chosen_solver
    assert isinstance(solver, Polyalgorithm)
    assert solver.winner.member == Newton()
    again = copy.deepcopy(layer).settings.chosen_solver
    assert isinstance(again, Polyalgorithm)
    assert again.winner is not solver.winner
    fresh = Settings("root").chosen_solver
    assert isinstance(fresh, Polyalgorithm)
    assert fresh.winner.member is None


# --- As the default of root ----------------------------------------------------------------------


def test_unrolling_with_the_default_solver_records_newton_krylov() -> None:
    a = torch.tensor([2.0, 5.0], dtype=torch.float64, requires_grad=True)
    z = root(lambda z, a: z**2 - a, torch.ones(2).double(), a, gradient=Unrolled(), batch_dims=1)
    (gradient,) = torch.autograd.grad(z.value.sum(), a)
    # d√a/da; the last Newton step is exact to the square of the error before it.
    torch.testing.assert_close(gradient, 0.5 / a.detach().sqrt(), rtol=1e-6, atol=0)
    assert Settings("root", gradient=Unrolled()).chosen_solver == NewtonKrylov()
    with pytest.raises(TypeError, match="Polyalgorithm runs whole"):
        root(
            lambda z, a: z**2 - a, torch.ones(2).double(), a, gradient=Unrolled(), batch_dims=1,
            solver=Polyalgorithm(),
        )  # fmt: skip


def test_a_start_whose_residual_is_not_finite_ends_at_once() -> None:
    solution = root(
        lambda z: torch.log(z) - 1, column(-1.0, 1.0), batch_dims=1, on_failure="accept"
    )
    assert solution.status.tolist() == [Status.NON_FINITE, Status.CONVERGED]
    assert solution.steps[0] == 0


def test_an_equation_without_solution_says_how_its_best_iterate_ended() -> None:
    shift = column(1.0, -1.0)
    solution = root(lambda z: z**2 + shift, column(3.0, 3.0), batch_dims=1, on_failure="accept")
    assert solution.converged.tolist() == [False, True]
    assert Status(int(solution.status[0])) in (Status.STALLED, Status.MAX_STEPS)
    # The minimum of z² + 1 is 1, at 0.
    assert solution.residual_norm[0].item() == pytest.approx(1.0, abs=1e-6)


def test_linear_equations_are_solved_by_linear_members() -> None:
    matrix = torch.tensor([[4.0, 1.0], [2.0, 5.0]], dtype=torch.float64)
    right = column(6.0, 12.0)
    solution = root(
        lambda z: matrix @ z - right, torch.zeros(2).double(), solver=Polyalgorithm(), linear=True
    )
    np.testing.assert_allclose(
        solution.value.numpy(), np.linalg.solve(matrix.numpy(), right.numpy()), rtol=1e-9
    )


@pytest.mark.parametrize(
    ("members", "error", "message"),
    [
        ((), ValueError, "members must hold at least one solver, got none"),
        (Newton(), TypeError, r"members must be a tuple of solvers or None, got Newton\("),
        ((Newton(), 3), TypeError, r"members must be solvers such as Newton\(\), got 3"),
    ],
    ids=["none", "one", "number"],
)
def test_members_are_checked(members: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Polyalgorithm(members=members)


# --- The classical problems -----------------------------------------------------------------------


def solved(name: str, scale: float) -> bool:
    """Whether the default of `root` finds a root within 10,000 evaluations and products."""
    problem = problems.get(name)
    start = scale * problem.start()
    # A root-mean-square norm of 1e-8 / √n is a largest entry of at most 1e-8.
    stopping = Stopping(rtol=0.0, atol=1e-8 / len(start) ** 0.5, max_evaluations=10_000)
    solution = root(problem.residual, start, stopping=stopping, on_failure="accept")
    small = problem.residual(solution.value).abs().max().item() <= 1e-8
    # No success is claimed where there is none, and none is missed.
    assert bool(solution.converged) == small
    counts = solution.counts
    return small and counts.evaluations + counts.jvps + counts.vjps <= 10_000


@pytest.mark.parametrize("name", problems.names(tag="classical"))
def test_every_classical_problem_is_solved_from_its_standard_start(name: str) -> None:
    assert solved(name, 1.0)


@pytest.mark.long
def test_most_classical_problems_are_solved_from_ten_and_a_hundred_times_their_start() -> None:
    names = problems.names(tag="classical")
    found = sum(solved(name, scale) for name in names for scale in (1.0, 10.0, 100.0))
    # Of 69; the best method of SciPy solves 55.
    assert found >= 60


def test_the_battery_is_solved_where_a_line_search_alone_is_not() -> None:
    problem = problems.get("battery")
    start = problem.start()
    stopping = Stopping(rtol=0.0, atol=1e-6)
    alone = root(
        problem.residual, start, stopping=stopping, on_failure="accept",
        solver=Newton(globalisation=LineSearch()),
    )  # fmt: skip
    assert not alone.converged
    solution = root(problem.residual, start, stopping=stopping)
    # The residual at the published root, rounded to float64, is 6e-7.
    assert problem.residual(solution.value).abs().max().item() <= 1e-6 * len(start) ** 0.5


def test_what_rounding_leaves_of_the_battery_is_accepted_soon() -> None:
    # 1e-10 of the first residual is 5e-9; the smallest that float64 reaches is 1e-7.
    problem = problems.get("battery")
    solution = root(problem.residual, problem.start())
    assert problem.residual(solution.value).abs().max().item() <= 1e-6
    # Eleven Newton steps lead to rounding, and another eight find no progress; a lucky rounding on the
    # way counts as some, and eight more follow. Without the question it would be a hundred.
    assert solution.counts.jvps <= 40 * 33


def test_what_rounding_leaves_of_the_battery_is_accepted_where_the_steps_end() -> None:
    problem = problems.get("battery")
    solution = root(
        problem.residual, problem.start(), solver=Newton(), stopping=Stopping(max_steps=15)
    )
    assert int(solution.steps) == 15
    assert problem.residual(solution.value).abs().max().item() <= 1e-6
