"""When a solve ends: tolerances, limits, and how often they are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

import torch

from ...options.options import Options, is_integer, is_number

DEFAULT_RTOL = {
    torch.float64: 1e-10,
    torch.float32: 1e-6,
    torch.float16: 4 * torch.finfo(torch.float16).eps,
    torch.bfloat16: 4 * torch.finfo(torch.bfloat16).eps,
}


@dataclass(frozen=True)
class Stopping(Options):
    """The stopping rule of one solve, the same for every solver.

    A system has converged when the root-mean-square norm of its residual satisfies
    `‖r‖ ≤ atol + rtol · reference`. The reference is `‖z‖` for a fixed point `r = f(z) − z`, and the
    residual at the start for a root and for a linear equation. Both scale with the problem, so
    that rescaling the equation or the unknown leaves the iteration as it is.

    Of a nonlinear root with up to 64 unknowns this is a claim that is examined: the step of Newton's
    method that is still missing must be small beside every unknown (1e-8 of it in float64, 1e-4 in
    float32; 100 · `rtol` if that is given and larger, at most 0.1), or every equation met to rounding. A
    refused system goes on to a smaller residual. A residual of at most `atol`, where that is given, is
    taken at its word. `Solution.error` has the estimate.

    Attributes:
        rtol: Relative tolerance; `None` takes 1e-10 in float64, 1e-6 in float32 and four units of
            rounding in half precision.
        atol: Absolute tolerance; `None` takes 0, and for fixed points the square of the epsilon of the
            dtype of iterates, as a part of the size of the start or of its residual: it only ends
            iterations towards zero.
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
    atol: float | None = None
    max_steps: int | None = None
    max_evaluations: int | None = None
    max_products: int | None = None
    max_seconds: float | None = None
    check_every: int | None = None
    patience: int = 100
    divergence: float = 1e10

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            tolerance = getattr(self, name)
            if tolerance is not None and not is_number(tolerance, 0):
                raise ValueError(f"{name} must be a number ≥ 0 or None, got {tolerance!r}")
        for name in ("max_steps", "max_evaluations", "max_products"):
            limit = getattr(self, name)
            if limit is not None and not is_integer(limit, 0):
                raise ValueError(f"{name} must be an integer ≥ 0 or None, got {limit!r}")
        if self.max_seconds is not None and not is_number(self.max_seconds, 0):
            raise ValueError(f"max_seconds must be a number ≥ 0 or None, got {self.max_seconds!r}")
        if self.check_every is not None and not is_integer(self.check_every, 1):
            raise ValueError(f"check_every must be an integer ≥ 1, got {self.check_every!r}")
        if not is_integer(self.patience, 1):
            raise ValueError(f"patience must be an integer ≥ 1, got {self.patience!r}")
        if not (isinstance(self.divergence, Real) and self.divergence > 1):
            raise ValueError(f"divergence must be a number > 1, got {self.divergence!r}")

    @property
    def limited(self) -> bool:
        """True if any limit on the work is given."""
        limits = (self.max_steps, self.max_evaluations, self.max_products, self.max_seconds)
        return any(limit is not None for limit in limits)

    def relative(self, dtype: torch.dtype) -> float:
        """The relative tolerance in force for residuals computed in `dtype`."""
        return DEFAULT_RTOL[dtype] if self.rtol is None else self.rtol
