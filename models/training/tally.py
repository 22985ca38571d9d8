"""Tally of the solves of a pass, as plain numbers."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ...solvers import Solution
from ..output import Output


def forward_work(output: Output) -> dict[str, float]:
    """Evaluations, mean residual and share of unsolved systems of a forward pass; empty without solves.

    Examples:
        >>> import torch
        >>> from implicitly.models import Memory
        >>> z = torch.zeros(2, 5, 3)
        >>> forward_work(Output(z, Memory((z,), z), z, ()))
        {}
    """
    return _work("forward", output.solutions)


def backward_work(output: Output) -> dict[str, float]:
    """The same for the adjoint solves of a backward pass."""
    return _work("backward", [s.adjoints[0] for s in output.solutions if s.adjoints])


def _work(which: str, solutions: Iterable[Solution]) -> dict[str, float]:
    solutions = list(solutions)
    if not solutions:
        return {}
    residual = torch.cat([solution.residual_norm.flatten() for solution in solutions])
    solved = torch.cat([solution.converged.flatten() for solution in solutions])
    # One transfer from the device for both.
    mean, share = torch.stack((residual.float().mean(), solved.float().mean())).tolist()
    products = sum(s.counts.evaluations + s.counts.jvps + s.counts.vjps for s in solutions)
    return {
        f"{which} evaluations": float(products),
        f"{which} residual": mean,
        f"{which} unsolved": 1.0 - share,
    }
