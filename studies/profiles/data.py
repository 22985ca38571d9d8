"""Data profiles (Moré & Wild 2009), with residuals in place of objective values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .steps import Array, Steps, checked, cumulative_share


def data_profile(evaluations: Array, dimensions: Array) -> tuple[Steps, ...]:
    """Share of problems that each solver solves within a budget of `α (n + 1)` evaluations.

    `d_s(α) = |{p: t[p, s] / (n_p + 1) ≤ α}| / |P|` (Moré & Wild 2009, section 2). `n + 1` evaluations are
    those of one Jacobian by differences: `α` counts such "simplex gradients". Unlike a performance profile,
    it does not depend on the other solvers.

    Args:
        evaluations: Evaluations needed, shape `(problems, solvers)`, `inf` for failures; see
            `evaluations_to_reach`.
        dimensions: Unknowns `n_p` of each problem, shape `(problems,)`.

    Returns:
        A step function of `α` for each solver.

    Raises:
        ValueError: The arrays have other shapes or values.

    Examples:
        >>> (only,) = data_profile(np.array(((6.0,), (22.0,), (np.inf,))), np.array((2, 10, 3)))
        >>> tuple(only.jumps.tolist())
        (2.0,)
    """
    evaluations = checked(evaluations, positive=True)
    dimensions = np.asarray(dimensions, dtype=np.float64)
    if dimensions.shape != evaluations.shape[:1]:
        raise ValueError(
            f"expected a dimension for each of {evaluations.shape[0]} problems, got {dimensions.shape}"
        )
    return cumulative_share(evaluations / (dimensions[:, None] + 1))


def evaluations_to_reach(
    evaluations: Array,
    residuals: Array,
    lengths: NDArray[np.int64],
    start: Array,
    tau: float,
) -> Array:
    """Evaluations at which each history first meets `‖F(z)‖ ≤ τ ‖F(z₀)‖`.

    Moré & Wild's convergence test is `f(x₀) − f(x) ≥ (1 − τ) (f(x₀) − f_L)` (2009, section 2). With
    `f = ‖F‖`, whose least value `f_L = 0` is known, it becomes this one.

    Args:
        evaluations: Evaluations of all histories, one after the other, shape `(entries,)`.
        residuals: The residual norms there, shape `(entries,)`.
        lengths: Entries of each history, shape `(histories,)`.
        start: `‖F(z₀)‖` of each history, shape `(histories,)`.
        tau: Reduction that counts as convergence, between 0 and 1.

    Returns:
        Shape `(histories,)`, `inf` if the residual never became so small.

    Raises:
        ValueError: `tau` is not between 0 and 1, or lengths do not add up.

    Examples:
        >>> needed = evaluations_to_reach(np.array((1, 2, 3, 1, 2)), np.array((8.0, 1.0, 1e-6, 5.0, 4.0)),
        ...                               np.array((3, 2)), np.array((8.0, 5.0)), 0.2)
        >>> tuple(needed.tolist())
        (2.0, inf)
    """
    if not 0 < tau < 1:
        raise ValueError(f"tau must lie between 0 and 1, got {tau}")
    lengths = np.asarray(lengths)
    if int(lengths.sum()) != len(residuals) or len(evaluations) != len(residuals):
        raise ValueError(
            f"lengths add up to {int(lengths.sum())}, and there are {len(evaluations)} evaluations "
            f"and {len(residuals)} residuals"
        )
    met = np.asarray(residuals) <= tau * np.repeat(np.asarray(start, dtype=np.float64), lengths)
    owner = np.repeat(np.arange(len(lengths)), lengths)[met]
    histories, first = np.unique(owner, return_index=True)
    needed = np.full(len(lengths), np.inf)
    needed[histories] = np.asarray(evaluations, dtype=np.float64)[met][first]
    return needed
