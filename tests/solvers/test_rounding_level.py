"""A root that is started at the solution, to rounding, is solved."""

import implicitly
import pytest
import torch
from implicitly import Anderson, Broyden, Newton, NewtonKrylov, Solver, root


@pytest.mark.parametrize("solver", [NewtonKrylov(), Newton(), Broyden(), Anderson()], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_root_started_at_its_solution_is_solved(solver: Solver, dtype: torch.dtype) -> None:
    # Rounded square roots: the residuals are of the size of eps·z² and no tolerance relative to
    # them can be met.
    square = torch.tensor([[2.0], [3.0], [5.0]], dtype=dtype)
    start = square.double().sqrt().to(dtype)
    solution = root(lambda z, a: z**2 - a, start, square, solver=solver, batch_dims=1)
    assert solution.converged.all()
    # The derivative 2z maps a change of a few units in the last place of z to that of the residual.
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(solution.value, start, rtol=16 * eps, atol=0)


def test_rounding_explains_the_residual_of_one_system_and_of_no_other() -> None:
    nearly = torch.tensor([[1.0, 1.0], [1.0, 1.0 + 1e-12]], dtype=torch.float64)
    singular = torch.ones(2, 2, dtype=torch.float64)
    A = torch.stack([singular, nearly, torch.eye(2, dtype=torch.float64), singular])
    b = torch.tensor([1.0, 0.3], dtype=torch.float64)
    solution = implicitly.root(
        lambda z, A: (A @ z.unsqueeze(-1)).squeeze(-1) - b,
        torch.zeros(4, 2, dtype=torch.float64), A,
        solver=implicitly.DenseLU(), linear=True, batch_dims=1, on_failure="accept",
    )  # fmt: skip
    assert solution.converged.tolist() == [False, True, True, False]
