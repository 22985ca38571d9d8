"""Known equations `F(z, inputs) = 0` behind a layer's output.

The equation of every `ImplicitLayer` is known, and that of any layer with `residual=`. The unknown is the
layer's output, flattened in rows of independent systems if the Jacobian turns out to be block diagonal.
Evaluations are in float64.

The package evaluates and differentiates equations too. That is repeated here on purpose: an oracle must
not share code with the layers that it judges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..implicit import ImplicitLayer
from .double import InDouble
from .real import differentiable, real, wide_dtype, widened
from .subject import LayerError, Subject, Tape
from .subject.random_state import random_state
from .subject.slots import written

Residual = Callable[..., Any]


def residual_of(layer: object) -> Residual | None:
    """The residual of a layer whose equation this package knows."""
    if not isinstance(layer, ImplicitLayer):
        return None
    function, is_root = layer.f, layer.settings.form == "root"
    if is_root and not layer.settings.has_aux:
        return function

    def fixed_point_residual(z: Any, *inputs: Any) -> Any:
        return tree_map(_less, function(z, *inputs), z)

    def of_both(output: Any, *inputs: Any) -> Any:
        """The residual for a solution together with an auxiliary output `a`, which has `A(z) − a = 0`."""
        z, aux = output
        value, found = function(z, *inputs)
        return value if is_root else tree_map(_less, value, z), tree_map(_less, found, aux)

    return of_both if layer.settings.has_aux else fixed_point_residual


def _less(value: Any, output: Any) -> Any:
    """`value − output`; an output that is no tensor with derivatives has no equation."""
    return value - output if isinstance(output, Tensor) and differentiable(output) else output


class KnownEquation:
    """`F(z, slots)` in float64 on flat vectors.

    Args:
        residual: Called as `residual(z, *inputs)` with `z` in the structure of the layer's output.
        subject: The layer.
        tape: A call of the layer, for structure and shapes.
    """

    def __init__(self, residual: Residual, subject: Subject, tape: Tape) -> None:
        self.residual = residual
        self.subject = subject
        self.slots = subject.slots
        self.evaluations = 0
        self._whole = tape.whole
        self._shapes = [output.shape for output in tape.outputs]
        self._complex = [output.is_complex() for output in tape.outputs]
        self.sizes = [real(output).numel() for output in tape.outputs]
        self._leaves = [
            widened(leaf) if differentiable(leaf) else leaf for leaf in subject.inputs.leaves
        ]
        self.base = tuple(widened(slot.value) for slot in self.slots)
        tensors = (*tape.outputs, *(slot.value for slot in self.slots))
        self._narrow = any(tensor.dtype != wide_dtype(tensor.dtype) for tensor in tensors)

    def flat(self, outputs: Sequence[Tensor]) -> Tensor:
        """Outputs, or cotangents of them, as one float64 vector; complex ones as pairs."""
        return torch.cat([_pairs(output).reshape(-1) for output in outputs])

    def parts(self, flat: Tensor) -> tuple[Tensor, ...]:
        """The outputs whose vector is `flat`."""
        return tuple(
            torch.view_as_complex(part.reshape(*shape, 2)) if is_complex else part.reshape(shape)
            for part, shape, is_complex in zip(
                flat.split(self.sizes), self._shapes, self._complex, strict=True
            )
        )

    @property
    def leading(self) -> int | None:
        """The common first size of all outputs, perhaps a batch; `None` if there is none."""
        firsts = {shape[0] if shape else None for shape in self._shapes}
        return next(iter(firsts)) if len(firsts) == 1 else None

    def value(self, z: Tensor, values: Sequence[Tensor]) -> Tensor:
        """`F` as a flat vector, without a graph."""
        with torch.no_grad():
            return self._evaluate(z, values)

    def products_at(self, z: Tensor, values: Sequence[Tensor] | None = None) -> JacobianProducts:
        """Derivatives of `F` in `z` and the slots, at the slots' own values or at others."""
        own = values is None and not self._narrow
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            tensors = tuple(
                slot.leaf if slot.leaf is not None and own else value.detach().requires_grad_()
                for slot, value in zip(self.slots, values or self.base, strict=True)
            )
            return JacobianProducts(self._evaluate(z, tensors, differentiable=True), z, tensors)

    def _evaluate(
        self, z: Tensor, values: Sequence[Tensor], differentiable: bool = False
    ) -> Tensor:
        self.evaluations += 1
        leaves = list(self._leaves)
        originals: list[Tensor] = []
        replacements: list[Tensor] = []
        for slot, value in zip(self.slots, values, strict=True):
            if slot.position is not None:
                leaves[slot.position] = value
            elif slot.leaf is not None and value is not slot.leaf:
                originals.append(slot.leaf)
                replacements.append(value)
        args, named = self.subject.inputs.arguments(leaves)
        unknown = self.subject.rebuild_output(self._whole, self.parts(z))
        with ExitStack() as active:
            active.enter_context(random_state(self.subject.seed))
            if self._narrow or (differentiable and replacements):
                active.enter_context(InDouble(tuple(originals), tuple(replacements)))
            else:
                active.enter_context(written(self.slots, values))
            try:
                whole = self.residual(unknown, *args, **named)
            except Exception as error:
                raise LayerError(f"the residual raised {type(error).__name__}: {error}") from error
        found = self.subject.output_leaves(whole)
        if [tuple(part.shape) for part in found] != [tuple(shape) for shape in self._shapes]:
            raise LayerError(
                f"the residual returned shapes {[tuple(p.shape) for p in found]}, "
                f"the layer's output has {[tuple(s) for s in self._shapes]}"
            )
        return self.flat(found)


def _pairs(output: Tensor) -> Tensor:
    """The entries in float64, complex ones as pairs, with their graph."""
    return (
        torch.view_as_real(widened(output).resolve_conj())
        if output.is_complex()
        else output.double()
    )


class JacobianProducts:
    """`F` at one point, and products with its derivatives and their transposes."""

    def __init__(self, value: Tensor, z: Tensor, tensors: tuple[Tensor, ...]) -> None:
        self.value = value.detach()
        self._value, self._z, self._tensors = value, z, tensors

    def pullback_z(self, u: Tensor) -> Tensor:
        """`(∂F/∂z)ᵀ u`; rows of a matrix `u` are separate vectors."""
        if not self._value.requires_grad:
            return torch.zeros_like(u)
        if u.ndim == 1:
            return self._gradient(self._z, u)
        try:
            (found,) = torch.autograd.grad(
                self._value, self._z, u, retain_graph=True, is_grads_batched=True,
                allow_unused=True, materialize_grads=True,
            )  # fmt: skip
        except RuntimeError:  # An operation without a batching rule.
            return torch.stack([self._gradient(self._z, row) for row in u])
        return found

    def pushforward_z(self, v: Tensor) -> Tensor:
        """`(∂F/∂z) v`, by differentiating the product with the transpose."""
        if not self._value.requires_grad:
            return torch.zeros_like(v)
        with torch.enable_grad():
            u = torch.zeros_like(self._value, requires_grad=True)
            (product,) = torch.autograd.grad(
                self._value,
                self._z,
                u,
                create_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
        if not product.requires_grad:
            return torch.zeros_like(v)
        (found,) = torch.autograd.grad(product, u, v, allow_unused=True, materialize_grads=True)
        return found

    def pullback_slots(self, u: Tensor) -> tuple[Tensor, ...]:
        """`(∂F/∂slot)ᵀ u` for every slot."""
        if not self._value.requires_grad:
            return tuple(torch.zeros_like(tensor) for tensor in self._tensors)
        return torch.autograd.grad(
            self._value, self._tensors, u, retain_graph=True,
            allow_unused=True, materialize_grads=True,
        )  # fmt: skip

    def _gradient(self, tensor: Tensor, u: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(
            self._value, tensor, u, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return found
