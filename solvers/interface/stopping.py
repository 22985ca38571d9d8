"""When a solve ends: tolerances, limits, and how often they are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch

from ...options.options import Options, check_integer, check_optional_integer, is_integer, is_number

DEFAULT_RTOL = {
    torch.float64: 1e-10,
    torch.float32: 1e-6,
    torch.float16: 4 * torch.finfo(torch.float16).eps,
    torch.bfloat16: 4 * torch.finfo(torch.bfloat16).eps,
}


@dataclass(frozen=True)
class Stopping(Options):
    """The stopping rule of one solve, the same for every solver.

    A system claims to have converged when the root-mean-square norm of its residual satisfies
    `‖r‖ ≤ atol + rtol · reference`. The reference is `‖z‖` for a fixed point `r = f(z) − z`, and the
    residual at the start for a root and for a linear equation. Both scale with the problem, so
    that rescaling the equation or the unknown leaves the iteration as it is.

    Of a linear equation that is all. A nonlinear one is then examined by an estimate of the error of `z`,
    which `Solution.error` has: `rtol` is the tolerance on it. The step of Newton's method that is still
    missing must be at most `rtol` times every unknown, or every equation be met to rounding. A refused
    system goes on to a smaller residual.

    Tolerances on the residual are `rtol_residual`, on its norm beside the reference, `atol_residual`, on each
    equation, and `atol`, on its norm:

    | given | accepted where |
    |---|---|
    | nothing, or `rtol` | the error of every unknown is at most `rtol` |
    | `rtol_residual`, `atol_residual` | the residual is small enough, whatever the error is |
    | the same and `rtol` > 0 | both: the residual is small enough, *and* the error |
    | `atol`, with any other | the norm of the residual is at most `atol`, *or* as above |

    Attributes:
        rtol: Relative tolerance on the error of every unknown, of at most 0.1 and no less than 64 roundings.
            `None` takes 1e-8 in float64, 1e-4 in float32 and 0.1 in half precision. 0 asks for nothing. Of a
            linear equation it is the tolerance on the residual.
        rtol_residual: Relative tolerance on the norm of the residual. `None` takes `rtol`; where that is not
            given either, 1e-10 in float64, 1e-6 in float32 and four roundings in half precision.
        atol: Absolute tolerance on the norm of the residual; `None` takes 0, and for fixed points the square
            of the epsilon of the dtype of iterates, as a part of the size of the start or of its residual:
            it only ends iterations towards zero.
        atol_residual: Absolute tolerance on the residual of each equation: a number, or a tensor or sequence
            with one for each equation of a system (in the order of the flattened unknown), or for each
            equation of all systems.
        max_steps: Limit on solver steps; `None` takes the solver's own default.
        max_evaluations: Limit on evaluations of the equation; `None` for no limit.
        max_products: Limit on products with the Jacobian and its transpose, those of linear solvers
            included; `None` for no limit.
        max_seconds: Limit on the time of the solve; `None` for no limit. Like the other limits it is looked
            at between steps, so that the last step may exceed it; compiled code of `NumbaRoot` looks at
            no clock.
        check_every: Steps between looks at the residual; each look reads one small tensor back to
            the host. `None` takes 1 on a CPU and 4 on an accelerator.
        patience: Steps in which the smallest residual falls by less than a thousandth in all, after
            which a system counts as stalled. At the rounding level of the dtype a tenth of it suffices.
            Krylov methods are given no fewer steps than there are unknowns, up to 512 (at the
            rounding level: up to `patience`).
        divergence: A system has diverged when its residual exceeds this multiple of its first.

    Raises:
        ValueError: A tolerance is negative or a limit is not positive.

    Examples:
        >>> Stopping(rtol=1e-4, max_steps=20).max_steps
        20
    """

    rtol: float | None = None
    rtol_residual: float | None = None
    atol: float | None = None
    atol_residual: float | tuple[float, ...] | None = None
    max_steps: int | None = None
    max_evaluations: int | None = None
    max_products: int | None = None
    max_seconds: float | None = None
    check_every: int | None = None
    patience: int = 100
    divergence: float = 1e10

    def __post_init__(self) -> None:
        for name in ("rtol", "rtol_residual", "atol"):
            tolerance = getattr(self, name)
            if tolerance is not None and not is_number(tolerance, 0):
                raise ValueError(f"{name} must be a number ≥ 0 or None, got {tolerance!r}")
        object.__setattr__(self, "atol_residual", _limits(self.atol_residual))
        for name in ("max_steps", "max_evaluations", "max_products"):
            check_optional_integer(name, getattr(self, name), 0)
        if self.max_seconds is not None and not is_number(self.max_seconds, 0):
            raise ValueError(f"max_seconds must be a number ≥ 0 or None, got {self.max_seconds!r}")
        if self.check_every is not None and not is_integer(self.check_every, 1):
            raise ValueError(f"check_every must be an integer ≥ 1, got {self.check_every!r}")
        check_integer("patience", self.patience, 1)
        if not (isinstance(self.divergence, Real) and self.divergence > 1):
            raise ValueError(f"divergence must be a number > 1, got {self.divergence!r}")

    @property
    def limited(self) -> bool:
        """True if any limit on the work is given."""
        limits = (self.max_steps, self.max_evaluations, self.max_products, self.max_seconds)
        return any(limit is not None for limit in limits)

    @property
    def residual_alone(self) -> bool:
        """True if the residual decides, whatever the error is."""
        limited = self.atol_residual is not None or self.rtol_residual is not None
        return limited and not self.rtol

    @property
    def is_default(self) -> bool:
        """True if no relative tolerance and none on single equations is given."""
        return (self.rtol, self.rtol_residual, self.atol_residual) == (None, None, None)

    def relative(self, dtype: torch.dtype) -> float:
        """The relative tolerance in force for residuals computed in `dtype`."""
        if self.rtol_residual is not None:
            return self.rtol_residual
        if self.atol_residual is not None and not self.rtol:
            return 0.0
        return DEFAULT_RTOL[dtype] if self.rtol is None else self.rtol


def _limits(given: Any) -> float | tuple[float, ...] | None:
    """Tolerances on residuals as numbers, which can be compared and written."""
    if given is None or is_number(given, 0):
        return given
    fault = f"atol_residual must be a number ≥ 0, numbers ≥ 0 or None, got {given!r}"
    try:
        flat = torch.as_tensor(given, dtype=torch.float64).detach().flatten().tolist()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(fault) from None
    if not flat or not all(is_number(limit, 0) for limit in flat):
        raise ValueError(fault)
    return tuple(flat)


DEFAULTS = Stopping()
"""The rule where none is given."""
