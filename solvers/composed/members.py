"""Members of the default polyalgorithm, in order."""

from __future__ import annotations

from dataclasses import replace

from ..interface.solver import Solver
from ..linear.bicgstab import BiCGStab
from ..linear.dense_lu import DenseLU
from ..linear.gmres import GMRES
from ..linear.neumann_series import NeumannSeries
from ..linear.sparse_lu import SparseLU
from ..newton.levenberg_marquardt import LevenbergMarquardt
from ..newton.newton import Newton
from ..newton.newton_krylov import NewtonKrylov
from ..newton.trust_region import TrustRegion
from ..quasi_newton.broyden import Broyden
from ..quasi_newton.df_sane import DFSANE
from ..scalar.bracketing import Bracketing
from .homotopy import Homotopy

# Up to this many unknowns dense Jacobians come first: a few batched products give all columns, which costs
# less than the products of Krylov methods on most equations.
_DENSE_FIRST = 512
# Limits on dense Jacobians. Beyond, a factorisation takes seconds, and a batch more than 64 MiB in float64.
_MOST_UNKNOWNS, _MOST_ENTRIES = 2048, 2**23
# Up to this many unknowns Krylov methods are not needed at all.
_FEW_UNKNOWNS = 64
# Limits on sparse Jacobians. Beyond, their factors may need gigabytes, for unknowns in space.
_MOST_SPARSE, _MOST_SPARSE_ENTRIES = 2**16, 2**20
# While terms of a Neumann series shrink at least so fast, it needs few products more than a Krylov space,
# whose bookkeeping costs more than a product.
_FAST_TERMS = 0.5
# A Krylov space of so many unknowns is exhausted before a series ends, and factors cost less.
_FEW_FOR_SERIES = 32
# Krylov solves in a row that may fail before a member with factors takes over.
_MOST_SHORT_SOLVES = 10


def default_members(
    batch: int, n: int, linear: bool = False, fixed_point: bool = False
) -> tuple[Solver, ...]:
    """The members of `Polyalgorithm()` for `batch` systems of `n` unknowns.

    Dense Jacobians need `batch · n²` numbers. They are used up to 2²³ numbers (64 MiB in float64) and
    `n ≤ 2048`. Up to `n = 512` they come first, since batched products of 64 columns give them. Above,
    `NewtonKrylov` comes first with `n / 2` linear steps for each system, about what the Jacobians of a whole
    solve cost: whichever suits, the cost is about twice that of the better one at most. The choice depends on
    sizes alone, not on measured times, so that answers do not depend on the machine. Sparse Jacobians take
    the place of dense ones beyond these limits, up to `n = 65536` and a million unknowns in all;
    `NewtonKrylov` before them ends once its linear solves fail ten times in a row. Other members store only
    the vectors of a Krylov space or of Broyden's updates.

    The order is: Newton steps within a trust region, and damped ones (Levenberg–Marquardt, or for many
    unknowns another globalisation), which must lower the residual; full Newton steps, which leave its
    local minima; the path of a homotopy; last, steps along the residual, which need no Jacobian.
    Scalar equations also try `Bracketing`.

    Linear equations, as those of derivatives are, begin with factors: roots up to 512 unknowns, fixed points
    up to 32. Unknowns and equations may then have any units, of which the residual of a Krylov method sees
    the largest alone. It follows for systems that are coupled with each other, as by batch statistics. Larger
    fixed points begin with the Neumann series, while its terms are at most half as large each time.

    Examples:
        >>> [type(member).__name__ for member in default_members(batch=1, n=3)]
        ['Newton', 'LevenbergMarquardt', 'Newton', 'Homotopy', 'DFSANE']
        >>> [type(member).__name__ for member in default_members(batch=1, n=1000)][:4]
        ['NewtonKrylov', 'Newton', 'LevenbergMarquardt', 'Newton']
        >>> [type(member).__name__ for member in default_members(batch=1, n=10_000)]
        ['NewtonKrylov', 'NewtonKrylov', 'NewtonKrylov', 'NewtonKrylov', 'Broyden', 'DFSANE', 'Homotopy']
        >>> [type(member).__name__ for member in default_members(batch=1, n=3, linear=True)]
        ['DenseLU', 'GMRES']
    """
    dense = n <= _MOST_UNKNOWNS and batch * n * n <= _MOST_ENTRIES
    sparse = n <= _MOST_SPARSE and batch * n <= _MOST_SPARSE_ENTRIES
    if linear:
        krylov_first = (GMRES(), DenseLU() if dense else SparseLU() if sparse else BiCGStab())
        if dense and n <= (_FEW_FOR_SERIES if fixed_point else _DENSE_FIRST):
            return DenseLU(), GMRES()
        if fixed_point and n > _FEW_FOR_SERIES:
            return (NeumannSeries(below=_FAST_TERMS), *krylov_first)
        return krylov_first
    krylov = NewtonKrylov(max_short_solves=_MOST_SHORT_SOLVES)
    if not dense:
        within, full = NewtonKrylov(globalisation=TrustRegion()), NewtonKrylov(globalisation=None)
        last = (within, full, Broyden(memory=100), DFSANE(), Homotopy(corrector=full))
        direct = NewtonKrylov(linear_solver=SparseLU(), globalisation=TrustRegion())
        return (krylov, direct, *last) if sparse else (NewtonKrylov(), *last)
    members: tuple[Solver, ...] = (Newton(), LevenbergMarquardt(), Newton(globalisation=None))
    if n == 1:
        members = (*members, Bracketing())
    if n > _FEW_UNKNOWNS:
        members = (*members, krylov)
    if n > _DENSE_FIRST:
        members = (replace(krylov, max_short_solves=None, linear_budget=n // 2), *members)
    return (*members, Homotopy(), DFSANE())
