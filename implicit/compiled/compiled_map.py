"""Compiled functions of `z` and parameters as differentiable functions of tensors.

A `CompiledMap` is evaluated for a batch of systems by compiled code. Its Jacobian is another compiled map if
the user gave one; else it comes from complex steps: `f(x + ih) = f(x) + ih f′(x) − …` for an analytic
function, so that the imaginary part over `h` is the derivative, without cancellation even for the smallest
`h`. A given Jacobian has a derivative, by complex steps through it; a Jacobian by complex steps has none.

Source: Squire & Trapp 1998, eq. 6; Martins, Sturdza & Alonso 2003, section 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

from ...solvers.interface.compiled_systems import CompilationError, NoDerivativeError, in_blocks
from ..equations.differentiation import transforming, unwrap_dead
from ..equations.mapping import in_front

Argument = Literal["z", "parameters"]
_ARGUMENTS: tuple[Argument, Argument] = ("z", "parameters")

_CHECKED_SYSTEMS = 8
_WIDTHS = (2.0**-15, 2.0**-18)
# A complex step is wrong where it is off by more than this fraction of the difference or of its row.
# Differences over the second width are far more accurate.
_RELATIVE, _OF_ROW = 1e-3, 1e-7


class ComplexStepError(NoDerivativeError, ValueError):
    """A compiled function has no derivative by complex steps, or none of the order asked for."""


@dataclass
class CompiledMap:
    """`function(z, parameters, out)` for a batch of systems.

    Attributes:
        function: The function, compiled by Numba.
        shape: The shape of `out`.
        name: The function's name in errors.
        remedy: Advice in errors: the alternative to complex steps.
        by_z: Its Jacobian with respect to `z`, if given: `out` of shape `(*shape, n)`.
        by_parameters: Its Jacobian with respect to the parameters, `(*shape, k)`, if given.
    """

    function: Any
    shape: tuple[int, ...]
    name: str
    remedy: str
    by_z: CompiledMap | None = None
    by_parameters: CompiledMap | None = None
    _checked: set[tuple[Argument, int]] = field(default_factory=set, repr=False)

    def __call__(self, z: Tensor, parameters: Tensor) -> Tensor:
        """The value, `(*batch, *shape)`, at `z`, `(*batch, n)`, and parameters, `(*batch, k)`."""
        if not transforming() and not _tracked(z, parameters):
            return self.values(z, parameters)
        return _Value.apply(self, z, parameters)

    def jacobian(self, by: Argument, z: Tensor, parameters: Tensor) -> Tensor:
        """`(*batch, *shape, n)` by `z`, `(*batch, *shape, k)` by the parameters."""
        given = self.by_z if by == "z" else self.by_parameters
        if given is not None:
            return given(z, parameters)
        return _ComplexStep.apply(self, by, z, parameters)

    def values(self, z: Tensor, parameters: Tensor) -> Tensor:
        """The value of plain tensors."""
        rows, given = _rows(z), _rows(parameters)
        return _like(z, self._evaluate(rows, given), self.shape)

    def complex_steps(self, by: Argument, z: Tensor, parameters: Tensor) -> Tensor:
        """The Jacobian of plain tensors.

        Raises:
            CompilationError: The function does not compile for complex numbers.
            ComplexStepError: Complex steps and differences disagree.
        """
        from .compiled_kernels import complex_step_kernel

        rows, given = _rows(z), _rows(parameters)
        try:
            kernel = complex_step_kernel(self.name, self.function, self.shape)
        except CompilationError as error:
            raise CompilationError(
                f"{error}\nIts derivative by complex steps needs it to: use functions that take "
                f"real and complex numbers alike (np.sin, not math.sin), or {self.remedy}."
            ) from error
        columns = (rows if by == "z" else given).shape[1]
        result = np.empty((len(rows), *self.shape, columns))
        flat = result.reshape(len(rows), math.prod(self.shape), columns)

        def work(start: int, stop: int) -> None:
            kernel(rows, given, flat, by == "z", start, stop)

        in_blocks(work, len(rows))
        if (by, columns) not in self._checked and len(rows):
            self._check(by, rows, given, result)
            self._checked.add((by, columns))
        return _like(z, result, (*self.shape, columns))

    def _evaluate(self, z: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        from .compiled_kernels import value_kernel

        kernel = value_kernel(self.function)
        # Entries of a value that are not written are NaN; a Jacobian may leave out zeros.
        fill = np.nan if len(self.shape) == 1 else 0.0
        out = np.empty((len(z), *self.shape))
        in_blocks(lambda start, stop: kernel(z, parameters, out, fill, start, stop), len(z))
        return out

    def _check(
        self, by: Argument, z: np.ndarray, parameters: np.ndarray, jacobian: np.ndarray
    ) -> None:
        """Compare a few systems with central differences over two widths.

        The complex step of an operation that is not analytic (abs, a real part) is wrong altogether.
        Differences that disagree with each other, at a kink or in noise, are not counted against it.
        """
        some = np.linspace(0, len(z) - 1, min(len(z), _CHECKED_SYSTEMS)).astype(int)
        place = {"z": z[some], "parameters": parameters[some]}
        at = place[by]
        largest = np.abs(at).max(axis=1, keepdims=True, initial=0.0)
        scale = np.where(at == 0, np.where(largest > 0, largest, 1.0), np.abs(at))
        axes = (len(some), *[1] * len(self.shape))
        for j in range(at.shape[1]):
            size = scale[:, j].reshape(axes)
            differences = []
            for width in _WIDTHS:
                ends = []
                for sign in (1.0, -1.0):
                    moved = at.copy()
                    moved[:, j] += sign * width * scale[:, j]
                    ends.append(self._evaluate(**{**place, by: moved}))
                differences.append((ends[0] - ends[1]) / (2 * width))
            step = jacobian[some][..., j] * size
            row = np.abs(jacobian[some] * scale.reshape(*axes, -1)).max(axis=-1)
            row = np.fmax(row, np.abs(differences[1]))
            allowed = 10 * np.abs(differences[0] - differences[1]) + _OF_ROW * row
            allowed += _RELATIVE * np.fmax(np.abs(step), np.abs(differences[1]))
            wrong = np.argwhere(np.abs(step - differences[1]) > allowed)
            if len(wrong):
                system, *entry = (int(i) for i in wrong[0])
                found, expected = (
                    float(entries[tuple(wrong[0])] / scale[system, j])
                    for entries in (step, differences[1])
                )
                raise ComplexStepError(
                    f"the derivative of {self.name} by complex steps is wrong: for system "
                    f"{some[system]}, ∂out{entry}/∂{by}[{j}] comes out as {found:.6g}, where "
                    f"differences give {expected:.6g}. Something in it is not analytic, or loses the "
                    f"imaginary part (abs, a real part, a comparison): write it otherwise, or "
                    f"{self.remedy}."
                )


class _Value(torch.autograd.Function):
    """The value of a compiled map, differentiable through its Jacobians."""

    @staticmethod
    def forward(compiled: CompiledMap, z: Tensor, parameters: Tensor) -> Tensor:
        return compiled.values(z, parameters)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.compiled, z, parameters = inputs
        ctx.save_for_backward(z, parameters)
        ctx.save_for_forward(z, parameters)
        ctx.known = {}

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        gradients: list[Tensor | None] = []
        at = _saved(ctx)
        for needed, by, tensor in zip(ctx.needs_input_grad[1:], _ARGUMENTS, at, strict=True):
            if needed:
                jacobian = _jacobian(ctx, by, at)
                given = (
                    cotangent.unsqueeze(-1) * jacobian
                )  # Faster than a product of small matrices.
                axes = tuple(range(-1 - len(ctx.compiled.shape), -1))
                gradients.append(given.sum(axes).to(tensor))
            else:
                gradients.append(None)
        return None, gradients[0], gradients[1]

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Tensor:
        total: Tensor | None = None
        at = _saved(ctx)
        for tangent, by in zip(tangents, _ARGUMENTS, strict=True):
            if tangent is not None:
                jacobian = _jacobian(ctx, by, at)
                axes = [1] * len(ctx.compiled.shape)
                row = tangent.reshape(*tangent.shape[:-1], *axes, tangent.shape[-1])
                product = (jacobian * row.to(jacobian.dtype)).sum(-1)
                total = product if total is None else total + product
        assert total is not None  # for the type checker: some tangent was given
        return total

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        compiled, *tensors = inputs
        return _Value.apply(compiled, *_mapped(info, in_dims[1:], tensors)), 0


class _ComplexStep(torch.autograd.Function):
    """A Jacobian by complex steps, without a derivative."""

    @staticmethod
    def forward(compiled: CompiledMap, by: Argument, z: Tensor, parameters: Tensor) -> Tensor:
        return compiled.complex_steps(by, z, parameters)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.compiled = inputs[0]

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        raise _too_high(ctx.compiled)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        raise _too_high(ctx.compiled)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        compiled, by, *tensors = inputs
        return _ComplexStep.apply(compiled, by, *_mapped(info, in_dims[2:], tensors)), 0


def _too_high(compiled: CompiledMap) -> ComplexStepError:
    if len(compiled.shape) > 1:
        return ComplexStepError(
            f"complex steps through {compiled.name} give second derivatives, and none of higher order"
        )
    return ComplexStepError(
        f"complex steps give first derivatives of {compiled.name}, and none of higher order; for second "
        "derivatives give both jacobian= and parameter_jacobian=, which complex steps then go through"
    )


def _tracked(*tensors: Tensor) -> bool:
    """True if a derivative with respect to one of the tensors is being recorded."""
    return any(
        tensor.requires_grad or forward_ad.unpack_dual(tensor).tangent is not None
        for tensor in tensors
    )


def _saved(ctx: Any) -> tuple[Tensor, ...]:
    """`z` and the parameters, unpacked once: a non-reentrant checkpoint allows it only once."""
    return tuple(map(unwrap_dead, ctx.saved_tensors))


def _jacobian(ctx: Any, by: Argument, at: tuple[Tensor, ...]) -> Tensor:
    """The Jacobian, formed once unless it is part of a graph or of a transform."""
    if by in ctx.known:
        return ctx.known[by]
    jacobian: Tensor = ctx.compiled.jacobian(by, *at)
    if not (jacobian.requires_grad or is_functorch_wrapped_tensor(jacobian)):
        ctx.known[by] = jacobian
    return jacobian


def _mapped(info: Any, dims: tuple[int | None, ...], tensors: list[Tensor]) -> list[Tensor]:
    """Both arguments with the mapped axis in front."""
    return [
        in_front(tensor, dim, info.batch_size) for dim, tensor in zip(dims, tensors, strict=True)
    ]


def _rows(tensor: Tensor) -> np.ndarray:
    flat = tensor.detach().reshape(tensor.shape[:-1].numel(), tensor.shape[-1])
    return flat.to("cpu", torch.float64).contiguous().numpy()


def _like(z: Tensor, result: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(result).to(z).reshape(*z.shape[:-1], *shape)
