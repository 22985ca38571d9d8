"""The solvers under test, and equations whose answers NumPy finds without any code of the package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from implicitly import (
    DFSANE,
    GMRES,
    LSMR,
    Aitken,
    Anderson,
    BiCGStab,
    Broyden,
    DenseLU,
    FixedPointIteration,
    Homotopy,
    LevenbergMarquardt,
    LineSearch,
    NeumannSeries,
    Newton,
    NewtonKrylov,
    NonmonotoneLineSearch,
    Polyalgorithm,
    PseudoTransient,
    ScipyRoot,
    Solution,
    Solver,
    SparseLU,
    SteadyState,
    Steffensen,
    TrustRegion,
    fixed_point,
    root,
)
from oracle import Array
from torch import Tensor

Form = Literal["fixed_point", "root"]
FORMS: tuple[Form, ...] = ("fixed_point", "root")

NONLINEAR: dict[str, Solver] = {
    "FixedPointIteration": FixedPointIteration(),
    "Anderson-II": Anderson(kind="II"),
    "Anderson-I": Anderson(kind="I"),
    "Anderson-compiled": Anderson(compiled=True),
    "Broyden-good": Broyden(kind="good"),
    "Broyden-bad": Broyden(kind="bad"),
    "Broyden-compiled": Broyden(compiled=True),
    "NewtonKrylov-GMRES": NewtonKrylov(linear_solver=GMRES()),
    "NewtonKrylov-BiCGStab": NewtonKrylov(linear_solver=BiCGStab()),
    "NewtonKrylov-trust-region": NewtonKrylov(globalisation=TrustRegion()),
    "Newton": Newton(),
    "Newton-line-search": Newton(globalisation=LineSearch()),
    "Newton-full-steps": Newton(globalisation=None),
    "Newton-chord": Newton(globalisation=NonmonotoneLineSearch(), refresh=None),
    "Newton-Shamanskii": Newton(refresh=3),
    "LevenbergMarquardt": LevenbergMarquardt(),
    "PseudoTransient": PseudoTransient(),
    "DFSANE": DFSANE(),
    "Aitken": Aitken(),
    "Steffensen": Steffensen(),
}

# These run whole: the driver's steps, looks and limits are those of their parts.
WHOLE: dict[str, Solver] = {
    "Homotopy": Homotopy(),
    # What it remembers would make a solve depend on those before.
    "Polyalgorithm": Polyalgorithm(remember=False),
}
STEPPED = NONLINEAR
NONLINEAR = {**STEPPED, **WHOLE}

# CG solves symmetric definite equations only, and most of those that these properties draw are not:
# test_cg.py repeats them on equations that are.
LINEAR: dict[str, Solver] = {
    "GMRES": GMRES(),
    "GMRES-restarted": GMRES(restart=4),
    "BiCGStab": BiCGStab(),
    "NeumannSeries": NeumannSeries(),
    "DenseLU": DenseLU(),
    "LSMR": LSMR(),
    "SparseLU": SparseLU(),
}

# Adapters to other libraries, with what they need to solve a contraction: mixing methods and explicit
# integrators of high order are unstable where their steps are too long.
ADAPTERS: dict[str, Solver] = {
    **{
        f"ScipyRoot-{method}": ScipyRoot(method)
        for method in ("hybr", "lm", "broyden1", "broyden2", "anderson", "krylov", "df-sane")
    },
    **{
        f"ScipyRoot-{method}": ScipyRoot(method, options={"jac_options": {"alpha": 0.5}})
        for method in ("linearmixing", "diagbroyden", "excitingmixing")
    },
    **{
        f"SteadyState-{method}": SteadyState(method)
        for method in (
            "dopri8", "dopri5", "bosh3", "fehlberg2", "adaptive_heun", "euler", "midpoint", "heun2",
            "heun3", "rk4", "implicit_adams", "fixed_adams", "scipy_solver",
        )
    },
    "SteadyState-explicit_adams": SteadyState(
        "explicit_adams", step_size=0.1, options={"max_order": 4}
    ),
}  # fmt: skip

ALL: dict[str, Solver] = {**NONLINEAR, **LINEAR}


@dataclass(frozen=True)
class TanhSystems:
    """`z = tanh(W z + x)` for a batch of systems with `‖W‖₂ = norm` each: contractive below one."""

    W: Array
    x: Array
    norm: float

    @staticmethod
    def draw(
        batch: int, n: int, norm: float, seed: int, dtype: torch.dtype = torch.float64
    ) -> TanhSystems:
        """Random systems whose numbers are exact in `dtype`: both sides see the same equation."""
        generator = np.random.default_rng(seed)
        W = generator.standard_normal((batch, n, n))
        if W.size:
            W *= norm / np.linalg.norm(W, 2, axis=(1, 2), keepdims=True)
        x = generator.standard_normal((batch, n))
        return TanhSystems(rounded(W, dtype), rounded(x, dtype), norm)

    def tensors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """`W` and `x`."""
        return torch.from_numpy(self.W).to(dtype), torch.from_numpy(self.x).to(dtype)

    def residual(self, z: Array) -> Array:
        """`f(z) − z` of every system, in float64."""
        return np.tanh(np.einsum("bij,bj->bi", self.W, z) + self.x) - z

    def answer(self) -> Array:
        """The fixed points, by dense Newton in NumPy to rounding."""
        z = np.zeros_like(self.x)
        identity = np.eye(self.x.shape[1])
        for _ in range(50):
            slope = 1 - np.tanh(np.einsum("bij,bj->bi", self.W, z) + self.x) ** 2
            jacobian = slope[:, :, None] * self.W - identity
            z = z - np.linalg.solve(jacobian, self.residual(z)[:, :, None])[:, :, 0]
        return z

    def rounding(self, z: Array, dtype: torch.dtype) -> Array:
        """A bound on the rounding errors of one residual in `dtype`, in the 2-norm, per system.

        A dot product of length n is off by at most n·eps of the sum of absolute values, and
        `‖ |W| |z| ‖ ≤ √n ‖W‖ ‖z‖`; tanh, the addition and the difference add a few units.
        """
        n = self.x.shape[1]
        size = np.sqrt(n) * (norms(z) + norms(self.x))
        return (n + 5) * torch.finfo(dtype).eps * size


def rounded(values: Array, dtype: torch.dtype) -> Array:
    """The nearest numbers of `dtype`, as float64."""
    return torch.from_numpy(values).to(dtype).double().numpy()


def norms(rows: Array) -> Array:
    """2-norms along the last axis."""
    return np.asarray(np.linalg.norm(rows, axis=-1))


def as_float64(tensor: Tensor) -> Array:
    """The numbers of a tensor in NumPy."""
    return tensor.detach().double().numpy()


def tanh_map(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
    """One step for every system."""
    return torch.tanh(torch.einsum("bij,bj->bi", W, z) + x)


def affine_map(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
    """The same without the nonlinearity."""
    return torch.einsum("bij,bj->bi", W, z) + x


def solve_form(form: Form, f: Any, z0: Any, *args: Any, **options: Any) -> Solution:
    """The fixed point of `f`, stated as one or as the root of `z − f(z)`; `z0` is a tensor."""
    if form == "fixed_point":
        return fixed_point(f, z0, *args, **options)
    return root(lambda z, *args: z - f(z, *args), z0, *args, **options)
