"""Gradient modes see a small protocol and are tested without a call."""

from dataclasses import dataclass, field

import implicitly as im
import torch
from implicitly.implicit.calls.outcome import Record
from implicitly.implicit.equations.derived import AdjointEquation, Packed
from implicitly.implicit.equations.equation import GivenEquation

A = torch.tensor([[0.5, 0.1], [-0.2, 0.3]], dtype=torch.float64)
Z, BAR = (torch.tensor(entries, dtype=torch.float64) for entries in ([1.0, 2.0], [3.0, -1.0]))


@dataclass
class Fake:
    """An adjoint equation `u = Aᵀu + z̄` that answers with the solver it is given."""

    equation: AdjointEquation
    args: tuple[torch.Tensor, ...]
    record: Record

    solver: im.Solver = field(default_factory=im.Anderson)

    def solve(self, solver, stopping, start=None, *, accept_failure=False):
        return (solver, stopping, start, accept_failure)


def adjoint():
    given = GivenEquation(lambda args: lambda z: (A @ z[0],), form="fixed_point", batch_dims=0)
    return Fake(AdjointEquation(given, 1), Packed((Z,), (BAR,), ()).flat, Record())


def test_exact_asks_for_a_solution_from_zero_by_its_solver():
    solver, stopping = im.BiCGStab(), im.Stopping(rtol=1e-3)
    asked = im.Exact(solver, stopping).solve_linear(adjoint())
    assert asked == (solver, stopping, None, False)


def test_exact_falls_back_on_factors_unless_its_steps_are_limited():
    def solver(**stopping):
        rule = im.Stopping(**stopping) if stopping else None
        return im.Exact(stopping=rule).solve_linear(adjoint())[0]

    assert solver() == solver(rtol=1e-6) == im.Polyalgorithm(remember=False)
    assert solver(max_steps=20) == solver(max_evaluations=20) == im.GMRES()


def test_neumann_sums_its_terms_itself():
    (u,) = im.Neumann(terms=3).solve_linear(adjoint())
    torch.testing.assert_close(u, sum(torch.linalg.matrix_power(A.mT, k) @ BAR for k in range(4)))


def test_jacobian_free_gives_the_cotangent():
    assert torch.equal(im.JacobianFree().solve_linear(adjoint())[0], BAR)
