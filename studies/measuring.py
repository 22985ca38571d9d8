"""Measurement of one cell, in the process that runs it."""

from __future__ import annotations

import dataclasses
import math
import random
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..problems import TestProblem
from .catalogue import Catalogue
from .cell import Cell
from .methods.equation import BudgetSpentError, StudyEquation, Watch
from .methods.method import Attempt, Method
from .row import Outcome

_MOVED_BY = 0.1


@dataclass(frozen=True)
class Prepared:
    """A cell with its equation and method, ready to run."""

    problem: TestProblem
    method: Method
    equation: StudyEquation
    residual_start: float


def prepare(cell: Cell, catalogue: Catalogue) -> Prepared:
    """The equation and method of a cell.

    Raises:
        StudyError: A name or an option is wrong.
    """
    problem, n = catalogue.problem(cell.problem, cell.seed)
    method = catalogue.method(cell.solver, cell.gradient, cell.adjoint)
    dtype: torch.dtype = getattr(torch, cell.dtype)
    z0 = problem.start(n)
    if cell.seed and not hasattr(problem, "seed"):
        normal = torch.randn(
            z0.shape, generator=torch.Generator().manual_seed(cell.seed), dtype=z0.dtype
        )
        z0 = z0 + _MOVED_BY * (1 + z0.abs()) * normal
    z0 = z0.to(dtype=dtype, device=cell.device)
    start = _largest(problem, z0)
    target = cell.tolerance * (start if cell.relative else 1.0)
    args = problem.args(n, dtype, cell.device) if cell.gradient is not None else ()
    equation = StudyEquation(problem, z0, target, cell.limits.evaluations, args)
    return Prepared(problem, method, equation, start)


def measure(prepared: Prepared) -> dict[str, Any]:
    """Run a cell once, recheck its result, and return the columns of its row from `outcome` on.

    An exception of the method becomes part of the row, unless it ends the process or concerns memory. In
    methods without a limit on evaluations, an evaluation beyond the study's limit raises.
    """
    _quiet_globals()
    equation = prepared.equation
    limited = prepared.method.family in ("scipy", "peer")
    watch = Watch(equation.limit if limited else None)
    try:
        attempt = prepared.method.solve(dataclasses.replace(equation, watch=watch))
        failure = None
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # Every exception becomes a row.
        if out_of_memory(error):
            raise MemoryError(str(error)) from error
        attempt = Attempt(None, False, _status_of(error))
        failure = None if _spent(error) else f"{type(error).__name__}: {error}"
    return _columns(prepared, attempt, watch, failure)


def timed(prepared: Prepared) -> float:
    """Seconds of one solve, unwatched."""
    _quiet_globals()
    equation = prepared.equation.unwatched
    began = time.perf_counter()
    prepared.method.solve(equation)
    return time.perf_counter() - began


def out_of_memory(error: BaseException) -> bool:
    """True if an exception says that memory could not be allocated."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return "alloc" in text and ("memory" in text or "bad_alloc" in text)


def _columns(
    prepared: Prepared, attempt: Attempt, watch: Watch, failure: str | None
) -> dict[str, Any]:
    target = prepared.equation.target
    residual, distance, root = None, None, None
    if attempt.value is not None:
        value = attempt.value.detach()
        if value.shape != prepared.equation.z0.shape:
            failure = (
                f"returned shape {tuple(value.shape)}, not {tuple(prepared.equation.z0.shape)}"
            )
        else:
            residual = _largest(prepared.problem, value)
            distance, root = _nearest_root(prepared.problem, value)
    solved = residual is not None and residual <= target
    history = watch.ended()
    return {
        "outcome": _outcome(solved, attempt, failure),
        "status": attempt.status,
        "residual_reported": attempt.residual,
        "residual": residual,
        "residual_start": prepared.residual_start,
        "target": target,
        "distance": distance,
        "root": root,
        "evaluations": watch.evaluations if attempt.evaluations is None else attempt.evaluations,
        "jvps": attempt.jvps or 0,
        "vjps": attempt.vjps,
        "linear_iterations": attempt.linear_iterations,
        "steps": attempt.steps,
        "history_evaluations": tuple(evaluations for evaluations, _ in history),
        "history_residual": tuple(smallest for _, smallest in history),
        "gradient_error": attempt.gradient_error,
        "exception": failure or attempt.reason,
    }


def _outcome(solved: bool, attempt: Attempt, failure: str | None) -> Outcome:
    if failure is not None:
        return "error"
    if solved:
        return "solved"
    return "false success" if attempt.claimed else "not solved"


def _largest(problem: TestProblem, z: Tensor) -> float:
    """The largest entry of the residual, from an uncounted evaluation of the problem's function."""
    with torch.no_grad():
        return float(problem.residual(z.clone()).double().abs().max())


def _nearest_root(problem: TestProblem, z: Tensor) -> tuple[float | None, int | None]:
    """Root-mean-square distance to the nearest root; the largest of all systems."""
    known = problem.roots(z.shape[-1])
    if not known or not bool(torch.isfinite(z).all()):
        return None, None
    point = z.double().cpu()
    distances = torch.stack(
        [(point - root.value.double()).square().mean(-1).sqrt().flatten() for root in known]
    )
    nearest, index = distances.min(0)
    system = int(nearest.argmax())
    found = float(nearest[system])
    return (found, int(index[system])) if math.isfinite(found) else (None, None)


def _spent(error: BaseException | None) -> bool:
    """True if an exception comes from the limit on evaluations, even as the cause of others."""
    while error is not None:
        if isinstance(error, BudgetSpentError) or BudgetSpentError.__name__ in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _status_of(error: BaseException) -> str:
    return "BUDGET_SPENT" if _spent(error) else type(error).__name__


def _quiet_globals() -> None:
    """Reset global state that an earlier cell may have changed."""
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    torch.manual_seed(0)
    np.random.seed(0)  # Libraries draw from the global generator.
    random.seed(0)
