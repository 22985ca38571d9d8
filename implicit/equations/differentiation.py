"""Products with Jacobians of functions on tuples of tensors, at any level of differentiation.

Outside `torch.func` transforms plain autograd is used, which is faster and accepts everything that a
backward pass accepts (activation checkpointing, compiled functions, old-style autograd functions).
Inside a transform `torch.func.vjp` is used, which nests correctly. A product with `J` is made from two
with its transpose, because PyTorch does not nest forward mode.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch._C._functorch import unwrap_if_dead
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.modules.module import _has_any_global_hook

from ...solvers.interface.compiled_systems import NoDerivativeError
from .hooks import without_hooks
from .layout import Leaves

Function = Callable[..., Leaves]
Product = Callable[[Leaves], Leaves]

_COLUMNS_AT_ONCE = 64
# A move of the inputs, relative to their size, that shows whether a value depends on them.
_MOVE = 1e-3


class MissingDerivativeError(NoDerivativeError, RuntimeError):
    """The value of a function depends on its input, and carries no derivative."""


def transforming() -> bool:
    """True inside a `torch.func` transform."""
    return torch._C._are_functorch_transforms_active()


def derivative_wanted(tensors: Leaves) -> bool:
    """True if a derivative with respect to one of `tensors` may be asked for."""
    if transforming():
        return True
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return True
    return forward_ad._current_level >= 0 and any(
        forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors
    )


def unwrap_dead(tensor: Tensor) -> Tensor:
    """The tensor inside wrappers of `torch.func` transforms that have ended.

    A pullback of `torch.func.vjp` is called after its transform has ended. Tensors saved inside it are
    then wrappers that still claim to require gradients, but no new graph connects to them.
    """
    while (held := unwrap_if_dead(tensor)) is not tensor:
        tensor = held
    return tensor


def without_tangent(tensor: Tensor) -> Tensor:
    """The tensor without its forward-mode tangent; the same object if it has none."""
    primal, tangent = forward_ad.unpack_dual(tensor)
    return tensor if tangent is None else primal


def constants(tensors: Leaves) -> Leaves:
    """The tensors, detached from the gradient graph and without forward-mode tangents."""
    return tuple(tensor.detach() for tensor in tensors)


def coarsest(tensors: Leaves, other: torch.dtype | None = None) -> torch.dtype:
    """The coarsest real dtype of `tensors` (of parts of complex ones), or `other` if that is coarser."""
    dtypes = {tensor.dtype.to_real() for tensor in tensors} | ({other} if other else set())
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)


def pullback(
    function: Function, primals: Leaves, captured: frozenset[int] = frozenset()
) -> tuple[Leaves, Product]:
    """The value of `function(*primals)` and the map `u ↦ Jᵀu`.

    Args:
        function: Takes tensors, returns a tuple of tensors.
        primals: Floating-point or complex tensors.
        captured: Positions of primals that `function` closes over: leaves that must be differentiated
            as the same objects.

    Returns:
        The outputs, and a function from their cotangents to those of the primals. It can be called
        repeatedly, and is differentiable if gradients are being recorded.
    """
    if transforming():
        transformed, back = torch.func.vjp(function, *primals)[:2]
        return transformed, lambda cotangents: back(cotangents)

    recording = torch.is_grad_enabled()

    def fresh(position: int, primal: Tensor) -> Tensor:
        if position in captured:
            return primal
        if recording and primal.requires_grad:
            return primal.view_as(primal)
        return primal.detach().requires_grad_()

    with torch.enable_grad(), without_hooks():
        inputs = tuple(fresh(i, primal) for i, primal in enumerate(primals))
        try:
            outputs = function(*_unlike_leaves(inputs, captured))
        except MissingDerivativeError:
            raise
        except RuntimeError as error:
            _check_recordable(function, inputs, error)
            raise

    if not any(output.requires_grad for output in outputs):
        _check_constant(function, inputs, outputs)

    # The nodes of the graph: the outputs themselves need not stay in memory with it.
    edges = tuple(get_gradient_edge(one) if one.requires_grad else None for one in outputs)

    def product(cotangents: Leaves) -> Leaves:
        return _gradient(edges, inputs, cotangents)

    return outputs, product


def _unlike_leaves(inputs: Leaves, captured: frozenset[int]) -> Leaves:
    """The inputs as views, if hooks on all modules are set.

    Such hooks (of `FlopCounterMode`, among others) ask autograd about the inputs of a module, which fails
    for a leaf while a gradient is taken.
    """
    if not _has_any_global_hook():
        return inputs
    return tuple(
        tensor if i in captured else tensor.view_as(tensor) for i, tensor in enumerate(inputs)
    )


def _check_recordable(function: Function, inputs: Leaves, error: RuntimeError) -> None:
    """Raise a `MissingDerivativeError` if a function fails only where operations are recorded."""
    with torch.no_grad():
        try:
            function(*(tensor.detach() for tensor in inputs))
        except Exception:  # Its own error, then, wherever it is called.
            return
    raise MissingDerivativeError(
        "a derivative is asked for, but the function fails where PyTorch records its operations: "
        f"{error}. Compute it without out=... and NumPy, give the derivative by a torch.autograd.Function, "
        "or choose a solver without derivatives (Anderson, Broyden, DFSANE) and take no gradients"
    ) from error


def _check_constant(function: Function, inputs: Leaves, outputs: Leaves) -> None:
    """Raise a `MissingDerivativeError` if outputs that no graph connects change with the inputs.

    A function that does not depend on its inputs has the derivative zero. One that computes outside of
    PyTorch, or detaches its value, has another one that nobody can take.
    """
    with torch.no_grad():
        # Copied, since a function may return the same tensor at each evaluation.
        before = tuple(output.clone() for output in outputs)
        # To both sides, of which one may lie outside of bounds.
        moved = (function(*(_moved(tensor, side) for tensor in inputs)) for side in (_MOVE, -_MOVE))
        same = all(_same(values, before) for values in moved)
    if not same:
        raise MissingDerivativeError(
            "a derivative is asked for, but the value of the function carries none, although it changes "
            "with its input: it is computed by NumPy, under torch.no_grad(), or was detached. Compute it by "
            "differentiable operations of PyTorch, give the derivative by a torch.autograd.Function, give a "
            "function of NumPy arrays as an ArrayFunction, or choose a solver without derivatives (Anderson, "
            "Broyden, DFSANE) and take no gradients"
        )


def _same(some: Leaves, others: Leaves) -> bool:
    return all(
        torch.allclose(one, other, rtol=0.0, atol=0.0, equal_nan=True)
        for one, other in zip(some, others, strict=True)
    )


def _moved(tensor: Tensor, by: float) -> Tensor:
    """Each entry changed, of a complex tensor in both parts."""
    return tensor + (1.0 + tensor.abs()) * (by * (1 + 1j) if tensor.is_complex() else by)


def transposed(product: Product, outputs: Leaves) -> Product:
    """The map `v ↦ J v` from `u ↦ Jᵀu` and the outputs of the function, without evaluating it again."""
    if transforming():
        zeros = tuple(torch.zeros_like(output) for output in outputs)
        twice = torch.func.vjp(lambda *cotangents: product(cotangents), *zeros)[1]
        return lambda tangents: twice(tangents)

    with torch.enable_grad(), without_hooks():
        probes = tuple(torch.zeros_like(output, requires_grad=True) for output in outputs)
        cotangents = product(probes)

    def forward(tangents: Leaves) -> Leaves:
        edges = tuple(get_gradient_edge(one) if one.requires_grad else None for one in cotangents)
        found = _gradient(edges, probes, tangents, materialize=False)
        # PyTorch refuses to differentiate some graphs; the node it puts there leads to no probe.
        if any(tensor.requires_grad for tensor in cotangents) and all(g is None for g in found):
            raise RuntimeError("a function marked once_differentiable was differentiated twice")
        return tuple(
            torch.zeros_like(probe) if gradient is None else gradient
            for probe, gradient in zip(probes, found, strict=True)
        )

    return forward


def forward_product(
    function: Callable[[Tensor], Tensor], at: Tensor, tangent: Tensor, cause: Exception
) -> Tensor:
    """`J v` by one evaluation in forward mode, for functions that can be differentiated only once.

    Args:
        function: The function.
        at: The point.
        tangent: `v`.
        cause: The error of the second differentiation.

    Raises:
        TypeError: Forward mode fails as well, or its result would have to be differentiable.
    """
    try:
        if torch.is_grad_enabled() or transforming():
            raise NotImplementedError("derivatives of the product are asked for too")
        # Forward mode is off inside an autograd function, and would give no tangents.
        with forward_ad._set_fwd_grad_enabled(True), forward_ad.dual_level():
            value = function(forward_ad.make_dual(at.detach(), tangent))
            product = forward_ad.unpack_dual(value).tangent
        if product is None:
            raise NotImplementedError("no tangent came back")
        return product
    except (NotImplementedError, RuntimeError) as error:
        raise TypeError(
            "the solver needs products J v with the Jacobian of a function that can be "
            f"differentiated only once ({cause}), and not in forward mode ({error}); use a solver "
            "without such products (Anderson, Broyden, Newton), or a function that is not compiled"
        ) from cause


def once_differentiable(error: RuntimeError) -> bool:
    """True for PyTorch's error that a function cannot be differentiated twice."""
    return any(words in str(error) for words in ("double backward", "once_differentiable"))


def pushforward(function: Function, primals: Leaves) -> tuple[Leaves, Product]:
    """The value of `function(*primals)` and the map `v ↦ J v`."""
    with torch.enable_grad():
        outputs, product = pullback(function, primals)
        return outputs, transposed(product, outputs)


def matrix(product: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """The matrices, `(batch, n, n)`, of a linear map on `(batch, n)` that acts on each system alone.

    Columns are computed in batched calls, or one by one if `product` contains an operation without a
    batching rule.
    """
    batch, n = like.shape
    if n == 0 or batch == 0:
        return like.new_zeros(batch, n, n)
    basis = torch.eye(n, dtype=like.dtype, device=like.device).unsqueeze(1).expand(n, batch, n)
    # Of one chunk the cutting alone takes a third of the time.
    at_once = None if n <= _COLUMNS_AT_ONCE else _COLUMNS_AT_ONCE
    try:
        columns = torch.vmap(product, chunk_size=at_once)(basis)
    except RuntimeError:
        columns = torch.stack([product(unit) for unit in basis])
    return columns.permute(1, 2, 0)


def _gradient(
    outputs: tuple[GradientEdge | None, ...],
    inputs: Leaves,
    cotangents: Leaves,
    materialize: bool = True,
) -> Leaves:
    connected = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o is not None]
    if not connected:
        return tuple(torch.zeros_like(tensor) for tensor in inputs)
    return torch.autograd.grad(
        [output for output, _ in connected],
        inputs,
        [cotangent for _, cotangent in connected],
        retain_graph=True,
        create_graph=torch.is_grad_enabled(),
        allow_unused=True,
        materialize_grads=materialize,
    )
