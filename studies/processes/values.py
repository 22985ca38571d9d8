"""Tensors as bytes, and values that methods return as plain tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def plain(value: Any, shape: torch.Size) -> Tensor:
    """A value that a method returned, as a tensor on the CPU without methods of its own.

    Raises:
        ValueError: It is no tensor of this shape with numbers; the message says what it is.

    Examples:
        >>> plain(torch.zeros(2), torch.Size([3]))
        Traceback (most recent call last):
        ValueError: returned shape (2,), not (3,)
    """
    if not isinstance(value, Tensor):
        raise ValueError(f"returned {type(value).__name__}, not a tensor")
    with torch._C.DisableTorchFunctionSubclass():
        tensor = value.detach().as_subclass(Tensor)
        if tensor.shape != shape:
            raise ValueError(f"returned shape {tuple(tensor.shape)}, not {tuple(shape)}")
        if tensor.layout != torch.strided or tensor.device.type == "meta":
            raise ValueError(f"returned a tensor of layout {tensor.layout} on {tensor.device}")
        if not tensor.dtype.is_floating_point:
            raise ValueError(f"returned a tensor of dtype {tensor.dtype}")
        return tensor.cpu().contiguous()


def to_bytes(tensor: Tensor) -> tuple[dict[str, Any], bytes]:
    """Dtype and shape of a dense tensor on the CPU, and its content.

    Examples:
        >>> layout, content = to_bytes(torch.zeros(1, 2))
        >>> layout, len(content)
        ({'dtype': 'float32', 'shape': [1, 2]}, 8)
    """
    flat = tensor.reshape(-1).view(torch.uint8)
    layout = {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
    return layout, flat.numpy().tobytes()


def from_bytes(layout: Mapping[str, Any], content: bytes) -> Tensor:
    """The tensor of `to_bytes`.

    Examples:
        >>> from_bytes(*to_bytes(torch.tensor([1.0, 2.0])))
        tensor([1., 2.])
    """
    flat = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return flat.view(getattr(torch, layout["dtype"])).reshape(layout["shape"])
