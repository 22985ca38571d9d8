"""Leaf tensors that a layer reaches by itself: parameters, and tensors that it closes over.

Two searches complement each other. The first follows the objects that the layer refers to (closures, bound
methods, attributes, referenced globals, containers), and finds tensors even if the layer loses their
gradients. The second follows the autograd graph, and finds tensors however they are reached.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .real import differentiable

_DEPTH = 6
_LONG = 100
"""Containers longer than this are data, not parts of a layer."""
_LIBRARIES = ("builtins", "torch", "numpy", "functools")
_OPAQUE = (str, bytes, int, float, complex, bool, torch.dtype, torch.device, types.ModuleType, type)


def reachable_leaves(layer: object) -> dict[str, Tensor]:
    """Floating-point leaf tensors that require gradients, by the path that leads to them.

    Examples:
        >>> import torch
        >>> linear, w = torch.nn.Linear(2, 2, bias=False), torch.ones(2, requires_grad=True)
        >>> sorted(reachable_leaves(lambda x: linear(x) * w))
        ['linear.weight', 'w']
    """
    found: dict[str, Tensor] = {}
    tensors: set[int] = set()
    for path, value in _walked(layer):
        if isinstance(value, Tensor):
            wanted = value.requires_grad and value.is_leaf and differentiable(value)
            if wanted and id(value) not in tensors:
                tensors.add(id(value))
                found[path or "tensor"] = value
    return found


def reachable_objects(root: object) -> Iterator[object]:
    """Every tensor, container and object with a state that the search passes, each once.

    Examples:
        >>> cache = {}
        >>> any(part is cache for part in reachable_objects(lambda x: cache.get(x)))
        True
    """
    seen: set[int] = set()
    for _, value in _walked(root, everything=True):
        if id(value) not in seen:
            seen.add(id(value))
            yield value


def _walked(root: object, everything: bool = False) -> Iterator[tuple[str, object]]:
    """Tensors and objects below an object, with the paths that lead to them."""
    seen: set[int] = set()
    stack: list[tuple[str, object, int]] = [("", root, 0)]
    while stack:
        path, value, depth = stack.pop()
        if isinstance(value, Tensor):
            yield path, value
            continue
        if value is None or isinstance(value, _OPAQUE) or depth > _DEPTH or id(value) in seen:
            continue
        seen.add(id(value))
        yield path, value
        parts = list(_parts(value)) or (list(_state(value)) if everything else [])
        if everything and isinstance(value, nn.Module):
            parts += value._buffers.items()
        stack.extend(
            (f"{path}.{name}" if path and name else path or name, part, depth + 1)
            for name, part in reversed(parts)
        )


def _state(value: object) -> Iterator[tuple[str, object]]:
    """Attributes of an object of a class that is written in Python."""
    if hasattr(value, "__dict__") and type(value).__module__.partition(".")[0] not in _LIBRARIES:
        yield from vars(value).items()


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """Objects that `value` refers to, with names."""
    if isinstance(value, nn.Module):
        for held in (value._parameters, value._modules):
            yield from held.items()
        for name, part in vars(value).items():
            if not name.startswith("_") and name not in ("training", "solution"):
                yield name, part
    elif isinstance(value, types.MethodType):
        yield "", value.__self__
        yield "", value.__func__
    elif isinstance(value, functools.partial):
        yield "", value.func
        yield from enumerate_names(value.args)
        yield from value.keywords.items()
    elif isinstance(value, types.FunctionType):
        yield from _of_function(value)
    elif isinstance(value, Mapping):
        if len(value) <= _LONG:
            yield from ((str(key), part) for key, part in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        if len(value) <= _LONG:
            yield from enumerate_names(value)
    elif callable(value) and hasattr(value, "__dict__"):
        yield from vars(value).items()


def enumerate_names(values: Iterable[object]) -> Iterator[tuple[str, object]]:
    """Each value with its position as its name."""
    return ((str(position), part) for position, part in enumerate(values))


def _of_function(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:
            continue  # The cell is still empty.
    for name in _global_names(function.__code__):
        part = function.__globals__.get(name)
        known = (Tensor, nn.Module, types.FunctionType, functools.partial, dict, list, set)
        if isinstance(part, known):
            yield name, part
    yield from enumerate_names(function.__defaults__ or ())


def _global_names(code: types.CodeType) -> Iterator[str]:
    """Names that a function may look up, also inside of nested functions."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def graph_leaves(outputs: Iterable[Tensor]) -> list[Tensor]:
    """The leaf tensors in the autograd graph of `outputs`.

    Examples:
        >>> import torch
        >>> w = torch.ones(2, requires_grad=True)
        >>> graph_leaves([(3 * w).sum()])[0] is w
        True
    """
    found: dict[int, Tensor] = {}
    for node in _nodes(outputs):
        variable = getattr(node, "variable", None)
        if isinstance(variable, Tensor) and not node.next_functions:
            found.setdefault(id(variable), variable)
    return list(found.values())


def node_names(outputs: Iterable[Tensor]) -> set[str]:
    """The names of the nodes in the autograd graph of `outputs`.

    Examples:
        >>> import torch
        >>> sorted(node_names([torch.ones(2, requires_grad=True).sin()]))[0]
        'SinBackward0'
    """
    return {node.name() for node in _nodes(outputs)}


def _nodes(outputs: Iterable[Tensor]) -> Iterator[Any]:
    """Each node of a graph once."""
    seen: set[Any] = set()
    stack: list[Any] = [output.grad_fn for output in outputs if output.grad_fn is not None]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        stack.extend(parent for parent, _ in node.next_functions if parent is not None)
