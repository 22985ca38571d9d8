"""Other libraries for PyTorch by themselves: TorchDEQ and xitorch, on the equation as it is."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch

from ...options.text import Value
from .alone import Library
from .equation import StudyEquation
from .method import Attempt


def _torchdeq(method: str, given: Mapping[str, Value], equation: StudyEquation) -> Attempt:
    """Solve with TorchDEQ, which solves fixed points; a root is given as `z + F(z)`.

    Its tolerance is on the Euclidean norm for each row of a batch, and the target bounds every entry. An
    attempt claims success if its statistics report a small enough residual.
    """
    from torchdeq.solver import get_solver

    shape = equation.z0.shape
    rows = equation.z0.reshape(-1, shape[-1])

    def function(z: torch.Tensor) -> torch.Tensor:
        return z + equation.residual(z.view(shape)).view_as(z)

    options: dict[str, Any] = {
        "max_iter": equation.limit, "tol": equation.target, "stop_mode": "abs", **given,
    }  # fmt: skip
    if method == "broyden":
        # It allocates its memory at once, with a row for every possible iteration.
        options = {"LBFGS_thres": min(equation.limit, 200), **options}
    with torch.no_grad():
        value, _, info = get_solver(method)(function, rows, **options)
    residual = float(info["abs_lowest"].max())
    return _attempt(value.view(shape), residual <= equation.target, residual)


def _xitorch(method: str, given: Mapping[str, Value], equation: StudyEquation) -> Attempt:
    """Solve with `xitorch.optimize`: `equilibrium` for `anderson_acc`, else `rootfinder`.

    It takes one system, so a batch is a single unknown. An attempt claims success if there is no warning.
    """
    from xitorch.optimize import equilibrium, rootfinder

    mixing = method == "anderson_acc"

    def function(z: torch.Tensor) -> torch.Tensor:
        residual = equation.residual(z)
        return z + residual if mixing else residual

    options: dict[str, Any] = {
        "maxiter": equation.limit,
        "f_tol": equation.target,
        **given,
    }
    with warnings.catch_warnings(record=True) as said, torch.no_grad():
        warnings.simplefilter("always")
        solve = equilibrium if mixing else rootfinder
        value = solve(function, equation.z0, method=method, **options)
    doubts = [str(one.message) for one in said if "onverge" in type(one.message).__name__]
    return _attempt(value, not doubts, reason=doubts[0] if doubts else None)


def _attempt(
    value: torch.Tensor, claimed: bool, residual: float | None = None, reason: str | None = None
) -> Attempt:
    return Attempt(
        value=value.detach(),
        claimed=claimed,
        status="SUCCESS" if claimed else "FAILURE",
        residual=residual,
        reason=reason,
    )


TORCHDEQ = Library(
    "torchdeq", ("anderson", "broyden", "fixed_point_iter"), _torchdeq, packages=("torchdeq",)
)
XITORCH = Library(
    "xitorch",
    ("broyden1", "broyden2", "linearmixing", "anderson_acc"),
    _xitorch,
    packages=("xitorch",),
)
