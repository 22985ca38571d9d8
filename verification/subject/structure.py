"""Structure of inputs and outputs: pytrees taken apart into leaves and put together again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import TreeSpec, keystr, tree_flatten_with_path, tree_map, tree_unflatten

from ..real import differentiable
from .errors import LayerError
from .tape import Tensors


@dataclass(frozen=True)
class Inputs:
    """Inputs of a layer.

    Attributes:
        names: Name of each leaf, such as `"input 0"`.
        leaves: The leaves, tensors detached.
        named: True for named arguments.
        spec: Structure of the arguments.
    """

    names: tuple[str, ...]
    leaves: tuple[Any, ...]
    named: bool
    spec: TreeSpec

    @staticmethod
    def of(given: Any) -> tuple[Inputs, list[Any]]:
        """Structure of a tensor, of a sequence of arguments or of named ones, and its leaves, attached."""
        named = isinstance(given, dict)
        sequence = given if isinstance(given, (tuple, list)) else (given,)
        paths, spec = tree_flatten_with_path(given if named else tuple(sequence))
        names = tuple(f"input {_path(path)}" for path, _ in paths)
        leaves = [leaf for _, leaf in paths]
        detached = (leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        return Inputs(names, tuple(detached), named, spec), leaves

    def arguments(self, leaves: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and named arguments with other leaves."""
        built = tree_unflatten(leaves, self.spec)
        return ((), built) if self.named else (tuple(built), {})


@dataclass(frozen=True)
class Outputs:
    """Differentiable outputs of a layer: real and complex floating-point tensors.

    The fields of a dataclass count as those of a dictionary.

    Attributes:
        names: Their names, such as `"output 0"`.
        positions: Their positions among the leaves of the layer's value.
        ignored: Descriptions of the other leaves.
        spec: Structure of the layer's value.
    """

    names: tuple[str, ...]
    positions: tuple[int, ...]
    ignored: tuple[str, ...]
    spec: TreeSpec

    @staticmethod
    def of(whole: Any) -> Outputs:
        """Structure of a layer's value.

        Raises:
            LayerError: It holds no floating-point tensor.
        """
        paths, spec = tree_flatten_with_path(_opened(whole))
        found: dict[int, str] = {}
        ignored = []
        for position, (path, leaf) in enumerate(paths):
            name = f"output {_path(path)}".strip()
            if differentiable(leaf):
                found[position] = name
            else:
                kind = leaf.dtype if isinstance(leaf, Tensor) else type(leaf).__name__
                ignored.append(f"{name} ({kind})")
        if not found:
            raise LayerError(
                "the layer returned no floating-point tensor: only those, real or complex, have derivatives"
            )
        return Outputs(tuple(found.values()), tuple(found), tuple(ignored), spec)

    def tensors(self, whole: Any) -> Tensors:
        """The differentiable outputs in the value of the layer or of a residual.

        Raises:
            LayerError: The structure differs from that of the first call.
        """
        paths, spec = tree_flatten_with_path(_opened(whole))
        if spec != self.spec:
            raise LayerError("the layer returned another structure than before")
        return tuple(paths[position][1] for position in self.positions)

    def filled(self, whole: Any, outputs: Sequence[Tensor]) -> Any:
        """The layer's value with other tensors as its differentiable outputs."""
        leaves, spec = tree_flatten_with_path(_opened(whole))
        filled = [leaf for _, leaf in leaves]
        for position, output in zip(self.positions, outputs, strict=True):
            filled[position] = output
        return _closed(tree_unflatten(filled, spec), whole)


def _is_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, (type, Tensor, dict))


def _opened(whole: Any) -> Any:
    """The value with dictionaries of their fields in place of dataclasses."""

    def opened(part: Any) -> Any:
        if not _is_dataclass(part):
            return part
        return {f.name: _opened(getattr(part, f.name)) for f in dataclasses.fields(part)}

    return tree_map(opened, whole, is_leaf=_is_dataclass)


def _closed(content: Any, like: Any) -> Any:
    """Dataclasses as in `like`, with other content."""
    if _is_dataclass(like):
        parts = {name: _closed(part, getattr(like, name)) for name, part in content.items()}
        return dataclasses.replace(like, **parts)
    if isinstance(like, dict):
        return type(like)((key, _closed(content[key], like[key])) for key in like)
    if isinstance(like, (list, tuple)) and not hasattr(like, "_fields"):
        return type(like)(_closed(a, b) for a, b in zip(content, like, strict=True))
    return content


def _path(path: Any) -> str:
    """Text of a path: `0` for the first of several, `0['a']` for an entry in it, `` for the only one."""
    if not path:
        return ""
    first, *rest = path
    text = keystr((first,)).strip("[].'\"")
    return text + keystr(tuple(rest))
