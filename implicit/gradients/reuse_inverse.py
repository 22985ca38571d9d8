"""The solver's approximate inverse Jacobian in place of the adjoint equation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...options.options import check_optional_integer
from ...solvers import GMRES, Broyden, Solver, Stopping
from ...solvers.interface.problem import Form
from ..calls.outcome import Record
from ..equations.derived import AdjointEquation
from ..equations.differentiation import constants
from ..equations.layout import Layout, Leaves
from ..equations.mapping import in_front
from .mode import ImplicitGradient, LinearSolve


@dataclass(frozen=True)
class ReuseInverse(ImplicitGradient):
    """Approximate: the inverse Jacobian is the one that the forward solver has learned.

    A quasi-Newton solver ends with an approximation `H` of the inverse Jacobian, Newton's method with the
    factors of the Jacobian at the iterate before the last. The product of its transpose with the cotangent
    costs no evaluation. Broyden's `H` is accurate in the directions of the solve, which may differ from
    the cotangent's; the error of Newton's is proportional to its last step. `refine` steps of a linear
    solver, started from the product, reduce the error. Forward mode uses `H` itself. Only first
    derivatives exist. Each system has the `H` of its own last step, or minus the identity if it took none.

    Attributes:
        refine: Steps of `solver` on the adjoint equation from that estimate; `None` for none. Their
            residual norm is in `Solution.adjoints`; missing the tolerance is not a failure.
        solver: The linear solver that refines; `None` for `GMRES()`.

    The solver of the call must learn an inverse: `Newton`, or `Broyden`, which is the default with this
    mode. The factors or updates of every system are kept until the derivative is taken.

    Raises:
        ValueError: `refine` is not `None` or an integer ≥ 1, or `solver` is given without it.
        TypeError: `solver` is not a solver; in the call, its solver learns no inverse; in a
            derivative, it is of second order, or the systems are not those that were solved
            (`jacrev` and other maps of cotangents).

    Source: Ramzi et al. 2022, arXiv:2106.00553 (SHINE).

    Examples:
        >>> import torch, implicitly
        >>> x = torch.tensor([0.3, -0.2], requires_grad=True)
        >>> f = lambda z, x: 0.5 * torch.sin(z.flip(0)) + x
        >>> z = implicitly.fixed_point(f, torch.zeros(2), x, gradient=implicitly.ReuseInverse()).value
        >>> z.sum().backward()
        >>> x.grad.shape
        torch.Size([2])
    """

    refine: int | None = None
    solver: Solver | None = None
    keeps_inverse: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_optional_integer("refine", self.refine, 1)
        if self.solver is not None and not isinstance(self.solver, Solver):
            raise TypeError(
                f"ReuseInverse(solver=...) must be a solver such as GMRES(), got {self.solver!r}"
            )
        if self.solver is not None and self.refine is None:
            raise ValueError("ReuseInverse(solver=...) refines nothing without refine=...")

    def adapt(
        self, form: Form, solver: Solver | None, stopping: Stopping | None
    ) -> tuple[Solver | None, Stopping | None]:
        solver = Broyden() if solver is None else solver
        if not solver.has_inverse:
            raise TypeError(
                f"ReuseInverse needs a solver that learns an inverse Jacobian, and "
                f"{type(solver).__name__} learns none: use Broyden() or Newton(), or Exact() as the gradient"
            )
        return solver, stopping

    def solve_linear(self, linear: LinearSolve) -> Leaves:
        record, equation, args = linear.record, linear.equation, linear.args
        if record.order > 0:
            raise TypeError(_FIRST_ORDER)
        product = _Product(
            record,
            transpose=isinstance(equation, AdjointEquation),
            sign=-1.0 if equation.form == "fixed_point" else 1.0,
            batch_dims=equation.parent.batch_dims,
        )
        constant = equation.constant(args)
        # The inverse depends on all arguments: a derivative through it must raise, not vanish.
        estimate = _Apply.apply(product, len(constant), *constant, *args)
        if self.refine is None:
            return estimate
        stopping = Stopping(max_steps=self.refine)
        start = constants(estimate)
        return linear.solve(self.solver or GMRES(), stopping, start, accept_failure=True)


_FIRST_ORDER = (
    "ReuseInverse gives first derivatives only: the derivative of the inverse that a solver has "
    "learnt is not known. Use Exact() for higher orders"
)


@dataclass(frozen=True)
class _Product:
    """The product `±H c` or `±Hᵀ c` that solves the tangent or adjoint equation of constant `c`.

    `H` approximates the inverse Jacobian of a fixed point's `f(z) − z` or a root's `−F(z)`.
    """

    record: Record
    transpose: bool
    sign: float
    batch_dims: int

    def __call__(self, constant: Leaves) -> Leaves:
        layout = Layout.of(constant, self.batch_dims)
        solved = self.record.batch_shape
        if self.record.ends is None or tuple(layout.batch_shape) != solved:
            raise TypeError(
                f"ReuseInverse has the inverse Jacobians of the systems that were solved, of batch "
                f"shape {solved}, but the derivative asks for {tuple(layout.batch_shape)}: maps of "
                "cotangents or tangents (jacrev, jacfwd) need Exact()"
            )
        flat = layout.flatten(constant)
        return layout.unflatten(
            self.sign * self.record.ends.inverse(flat, transpose=self.transpose)
        )


class _Apply(torch.autograd.Function):
    """A product on plain tensors, without a derivative."""

    @staticmethod
    def forward(product: _Product, leaves: int, *tensors: Tensor) -> Leaves:
        return product(tensors[:leaves])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save nothing."""

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        raise TypeError(_FIRST_ORDER)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise TypeError(_FIRST_ORDER)

    @staticmethod
    def vmap(info: Any, in_dims: Any, product: _Product, leaves: int, *tensors: Tensor) -> Any:
        moved = tuple(
            in_front(tensor, dim, info.batch_size)
            for tensor, dim in zip(tensors[:leaves], in_dims[2 : 2 + leaves], strict=True)
        )
        mapped = replace(product, batch_dims=product.batch_dims + 1)
        outputs = _Apply.apply(mapped, leaves, *moved, *tensors[leaves:])
        return outputs, (0,) * len(outputs)
