"""Exact gradients of a finite iteration, which runs backwards instead of being stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...options.options import check_optional_integer, is_positive
from ...solvers import ReversibleIteration, Solver, Stopping
from ...solvers.fixed_point.reversible_iteration import backward_half, forward_half
from ...solvers.interface.problem import Form
from ..equations.capture import levels
from ..equations.differentiation import unwrap_dead
from ..equations.equation import Equation
from ..equations.layout import Layout, Leaves
from ..equations.mapping import in_front
from .mode import Recording, TapedGradient


class ReconstructionError(RuntimeError):
    """An iteration run backwards did not return to its start."""


@dataclass(frozen=True)
class Reversible(TapedGradient):
    """Backpropagation through a reversible iteration, whose iterates are recomputed from the last ones.

    The solver is `ReversibleIteration`. The gradient is that of its iterations, also with respect to `z0`,
    like that of `Unrolled()`. Memory does not grow with the steps: on the way back one evaluation of `f`
    gives each iterate from the next. Rounding errors grow by up to `(1 − β)⁻²` in each step on the way
    back. So iterates are in float64 whatever the dtype of `z`, and the reconstructed start is compared
    with the given one.

    Reverse mode has any order; derivatives beyond the first store their iterates.

    Attributes:
        relaxation: `β`, in `(0, 2)` and not 1. Nearer to 0 the iteration is slower, nearer to 1 it
            loses more digits on the way back.
        steps: Limit on the steps, in place of `Stopping.max_steps`. A system that does not meet its
            tolerance by then has failed, as always; give `on_failure="accept"` for a fixed number of
            steps.
        tolerance: The largest difference between the start and its reconstruction, relative to the
            larger of the norms of the start and of the end; `None` for the root of the dtype's epsilon.

    Raises:
        ValueError: An option is out of range.
        TypeError: The equation is a root, another solver is given, or a derivative is taken in
            forward mode.
        ReconstructionError: In the backward pass, rounding errors have grown beyond `tolerance`.

    Source: McCallum, Arora & Foster 2025, arXiv:2509.12917 (RevDEQ).

    Examples:
        >>> import torch, implicitly
        >>> x = torch.tensor(0.5, requires_grad=True)
        >>> f = lambda z, x: 0.5 * torch.cos(z) + x
        >>> gradient = implicitly.Reversible(relaxation=0.7)
        >>> z = implicitly.fixed_point(f, torch.tensor(0.0), x, gradient=gradient).value
        >>> z.backward()
        >>> bool((x.grad - 1 / (1 + 0.5 * torch.sin(z))).abs() < 1e-4)
        True
    """

    relaxation: float = 0.5
    steps: int | None = None
    tolerance: float | None = None

    def __post_init__(self) -> None:
        ReversibleIteration(self.relaxation)  # Raises if it is out of range.
        check_optional_integer("steps", self.steps, 1)
        if self.tolerance is not None and not is_positive(self.tolerance):
            raise ValueError(f"tolerance must be a number > 0 or None, got {self.tolerance!r}")

    def adapt(
        self, form: Form, solver: Solver | None, stopping: Stopping | None
    ) -> tuple[Solver | None, Stopping | None]:
        own = ReversibleIteration(self.relaxation)
        if form != "fixed_point":
            raise TypeError(
                "Reversible differentiates an iteration for fixed points z = f(z), and this equation "
                "is a root F(z) = 0: use Exact(), or state it as a fixed point"
            )
        if solver is not None and solver != own:
            raise TypeError(
                f"Reversible differentiates the steps of {own}, which is its solver: leave solver "
                f"out, or use Unrolled() to differentiate those of {type(solver).__name__}"
            )
        if self.steps is not None:
            stopping = replace(stopping or Stopping(), max_steps=self.steps)
        return own, stopping

    def record(self, recording: Recording) -> Leaves:
        layout = Layout.of(recording.start, recording.equation.batch_dims)
        last = recording.outcome.best_step.clamp(min=1)
        most = max(int(recording.record.best_steps.max(initial=1)), 1)
        start = layout.flatten(recording.start).double().reshape(*layout.batch_shape, -1)
        steps = _Steps(recording.equation, layout, self, most)
        _, z = _Iterate.apply(steps, last, start, *recording.args)
        return layout.unflatten(z.reshape(layout.systems, -1).to(layout.dtype))


@dataclass(frozen=True)
class _Steps:
    """The iteration of one call: at most `most` steps, of which each system takes its own number."""

    equation: Equation
    layout: Layout
    mode: Reversible
    most: int

    def evaluate(self, v: Tensor, args: Leaves) -> Tensor:
        """`f` of rows in float64, computed in the dtypes of the unknown."""
        return self._rows_of(self.equation.evaluate(self._leaves_of(v), args))

    def pullback(
        self, v: Tensor, args: Leaves, needed: list[int]
    ) -> tuple[Tensor, Callable[[Tensor], Leaves]]:
        """`f(v)` and the map from its cotangent to those of `v` and of the arguments `needed`."""
        value, back = self.equation.pullback_arguments(
            self._leaves_of(v), args, needed, with_z=True
        )
        count = len(self.layout.shapes)

        def product(cotangent: Tensor) -> Leaves:
            gradients = back(self._leaves_of(cotangent))
            return (self._rows_of(gradients[:count]), *gradients[count:])

        rows = self._rows_of(value)
        return rows if torch.is_grad_enabled() else rows.detach(), product

    def _leaves_of(self, rows: Tensor) -> Leaves:
        return self.layout.unflatten(rows.to(self.layout.dtype))

    def _rows_of(self, leaves: Leaves) -> Tensor:
        return self.layout.flatten(leaves).double()

    def rows(self, tensor: Tensor) -> Tensor:
        """A tensor `(*batch, n)` or `(*batch,)` as `(systems, n)` or `(systems, 1)`."""
        return tensor.reshape(self.layout.systems, -1)

    def forward(self, last: Tensor, start: Tensor, args: Leaves) -> tuple[Tensor, Tensor]:
        """The last iterates `y` and `z`."""
        beta = self.mode.relaxation
        y = z = self.rows(start)
        for step in range(self.most):
            runs = self.rows(last) > step
            new_y = forward_half(y, self.evaluate(z, args), beta)
            new_z = forward_half(z, self.evaluate(new_y, args), beta)
            y, z = torch.where(runs, new_y, y), torch.where(runs, new_z, z)
        return y.reshape(start.shape), z.reshape(start.shape)

    def check(self, start: Tensor, y: Tensor, z: Tensor, end: Tensor) -> None:
        """Raise a `ReconstructionError` unless `y` and `z` are `start`, up to the tolerance."""
        start, y, z, end = (list(levels(tensor))[-1].detach() for tensor in (start, y, z, end))
        n = start.shape[-1]
        start, y, z, end = (tensor.reshape(-1, n) for tensor in (start, y, z, end))
        size = torch.maximum(start.norm(dim=1), end.norm(dim=1))
        error = torch.maximum((y - start).norm(dim=1), (z - start).norm(dim=1))
        error = torch.where(error == 0, 0.0, error / size)
        allowed = self.mode.tolerance or torch.finfo(self.layout.dtype).eps ** 0.5
        worst = float(error.nan_to_num(nan=torch.inf).max()) if error.numel() else 0.0
        if worst > allowed:
            raise ReconstructionError(
                f"run backwards for {self.most} steps, the iteration of {self.equation.described} came "
                f"back to its start with a relative error of {worst:.2g}, above {allowed:.2g}: the "
                "gradient would be wrong. Use fewer steps (Reversible(steps=...)), a relaxation "
                f"further from 1 than {self.mode.relaxation}, or Unrolled() or Exact()"
            )


class _Iterate(torch.autograd.Function):
    """The last `y` and `z`; both are outputs, so that the backward pass can be differentiated."""

    @staticmethod
    def forward(steps: _Steps, last: Tensor, start: Tensor, *args: Tensor) -> tuple[Tensor, Tensor]:
        y, z = steps.forward(last, start, args)
        return y.clone(), z.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.steps, last, start, *args = inputs
        ctx.save_for_backward(*output, last, start, *args)

    @staticmethod
    def backward(ctx: Any, y_bar: Tensor, z_bar: Tensor) -> tuple[Tensor | None, ...]:
        steps: _Steps = ctx.steps
        y, z, last, start, *args = map(unwrap_dead, ctx.saved_tensors)
        end, beta, systems = z, steps.mode.relaxation, steps.rows(last)
        y, z, y_bar, z_bar = (steps.rows(tensor) for tensor in (y, z, y_bar, z_bar))
        needed = [i for i, wanted in enumerate(ctx.needs_input_grad[3:]) if wanted]
        gradients = [torch.zeros_like(args[i]) for i in needed]
        for step in reversed(range(steps.most)):
            runs = systems > step
            value, back = steps.pullback(y, tuple(args), needed)
            z = torch.where(runs, backward_half(z, value, beta), z)
            through, *shares = back(torch.where(runs, beta * z_bar, 0.0))
            y_bar = y_bar + through
            z_bar = torch.where(runs, (1.0 - beta) * z_bar, z_bar)
            gradients = [total + share for total, share in zip(gradients, shares, strict=True)]

            value, back = steps.pullback(z, tuple(args), needed)
            y = torch.where(runs, backward_half(y, value, beta), y)
            through, *shares = back(torch.where(runs, beta * y_bar, 0.0))
            z_bar = z_bar + through
            y_bar = torch.where(runs, (1.0 - beta) * y_bar, y_bar)
            gradients = [total + share for total, share in zip(gradients, shares, strict=True)]
        steps.check(start, y.reshape(start.shape), z.reshape(start.shape), end)
        result: list[Tensor | None] = [None] * len(args)
        for i, gradient in zip(needed, gradients, strict=True):
            result[i] = gradient
        return (None, None, (y_bar + z_bar).reshape(start.shape), *result)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise TypeError("Reversible has no forward mode: use Unrolled() or Exact()")

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], steps: _Steps, *tensors: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, int]]:
        size, dims = info.batch_size, in_dims[1:]
        moved = [
            in_front(tensor, dim, size, expand=i < 2)
            for i, (tensor, dim) in enumerate(zip(tensors, dims, strict=True))
        ]
        mapped = replace(
            steps,
            equation=steps.equation.vmapped(
                tuple(dim is not None for dim in dims[2:]), info.randomness
            ),
            layout=steps.layout.mapped(size),
        )
        return _Iterate.apply(mapped, *moved), (0, 0)
