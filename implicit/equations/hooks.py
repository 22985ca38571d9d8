"""Hooks on saved tensors, which are meant for the graph of the user and not for the graphs within a solve."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

_NOTHING = nullcontext()
_TOP = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
"""The hooks that are on, or `None`; PyTorch 2.6 and 2.7 do not tell."""


def without_hooks() -> AbstractContextManager[Any]:
    """A context that keeps graphs which are differentiated at once from the hooks around a call.

    A checkpoint would evaluate its whole function again for each product with the Jacobian, and
    `torch.autograd.graph.save_on_cpu` would copy every tensor to the host and back.
    """
    if _TOP is None or _TOP(False) is None:
        return _NOTHING
    return saved_tensors_hooks(_same, _same)


def _same(tensor: Tensor) -> Tensor:
    return tensor
