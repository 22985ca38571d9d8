"""`scipy.optimize.root` by itself: its result and its own report."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ...options.text import Value
from .alone import Library
from .equation import StudyEquation
from .method import Attempt

_METHODS = (
    "hybr",
    "lm",
    "broyden1",
    "broyden2",
    "anderson",
    "linearmixing",
    "diagbroyden",
    "excitingmixing",
    "krylov",
    "df-sane",
)
# Tolerances for a target of 1: those of MINPACK are on other quantities than the residual.
_TOLERANCES: dict[str, dict[str, float]] = {
    "hybr": {"xtol": 1e-5},
    "lm": {"xtol": 1e-6, "ftol": 1e-6},
    "df-sane": {"fatol": 0.5},
}
_FURTHER: dict[str, dict[str, float]] = {"df-sane": {"ftol": 0.0}}
_LEAST = float(np.finfo(np.float64).eps)


def _solve(method: str, given: Mapping[str, Value], equation: StudyEquation) -> Attempt:
    """Solve with a method of `scipy.optimize.root`; the whole unknown is one vector.

    Jacobians are differences. The tolerance becomes `fatol`; `df-sane`, which measures the square, gets
    half of it. `hybr` and `lm`, which measure steps, get one that is 10⁵ or 10⁶ times smaller.
    The study's limit takes the place of SciPy's own.
    """
    from scipy.optimize import root

    like, steps = equation.z0, 0

    def function(z: np.ndarray) -> np.ndarray:
        point = torch.from_numpy(np.array(z, dtype=np.float64)).view(like.shape)
        with torch.no_grad():
            residual = equation.residual(point.to(like))
        return residual.double().flatten().numpy()

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1

    extra: dict[str, Callable[..., None]] = {} if method in ("hybr", "lm") else {"callback": count}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        start = like.double().flatten().numpy().copy()
        result = root(
            function, start, method=method, options=_options(method, given, equation), **extra
        )
    value = torch.from_numpy(np.array(result.x, dtype=np.float64)).view(like.shape)
    return Attempt(
        value=value.to(like),
        claimed=bool(result.success),
        status="SUCCESS" if result.success else f"FAILURE {result.get('status', '')}".strip(),
        residual=float(np.max(np.abs(result.fun))),
        steps=steps or None,
        reason=None if result.success else " ".join(str(result.message).split()),
    )


def _options(method: str, given: Mapping[str, Value], equation: StudyEquation) -> dict[str, Any]:
    limit = "maxfev" if method in ("hybr", "df-sane") else "maxiter"
    shares = _TOLERANCES.get(method, {"fatol": 1.0})
    return {
        **{name: max(share * equation.target, _LEAST) for name, share in shares.items()},
        **_FURTHER.get(method, {}),
        limit: equation.limit,
        **given,
    }


SCIPY = Library("scipy", _METHODS, _solve, packages=("scipy",), family="scipy")
