"""Hooks on saved tensors, which are meant for the graph of the user and not for the graphs within a solve."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


@contextmanager
def without_hooks() -> Iterator[None]:
    """Keep graphs that are differentiated at once, and then dropped, from the hooks around a call.

    A checkpoint would evaluate its whole function again for each product with the Jacobian, and
    `torch.autograd.graph.save_on_cpu` would copy every tensor to the host and back.
    """
    if torch._C._autograd._top_saved_tensors_default_hooks(False) is None:
        yield
        return
    with saved_tensors_hooks(_same, _same):
        yield


def _same(tensor: Tensor) -> Tensor:
    return tensor
