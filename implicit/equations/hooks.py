"""Hooks on saved tensors: for what the caller's graph keeps, and not for what a solve differentiates.

Inside `torch.utils.checkpoint` or `save_on_cpu`, autograd hands every tensor that it saves to a hook. A solve
takes products with Jacobians of its own, whose graphs end before it returns. Under the hooks of a
checkpoint each of these products would make the whole call again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

_NOTHING = nullcontext()
_autograd = torch._C._autograd
# Since PyTorch 2.8. In versions before it the hooks stay: products are slower under them, and right.
_top = getattr(_autograd, "_top_saved_tensors_default_hooks", lambda _: None)


def without_hooks() -> AbstractContextManager[Any]:
    """Set aside the hooks of the caller on saved tensors, for graphs that do not outlive the context."""
    return _NOTHING if _top(False) is None else _set_aside()


@contextmanager
def _set_aside() -> Iterator[None]:
    hooks = []
    while (top := _top(False)) is not None:
        hooks.append(top)
        _autograd._pop_saved_tensors_default_hooks()
    try:
        yield
    finally:
        for pack, unpack in reversed(hooks):
            _autograd._push_saved_tensors_default_hooks(pack, unpack)
