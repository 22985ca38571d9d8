"""Calls under `torch.inference_mode()`: curves are followed outside of it, as roots are solved."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ..surroundings.inference import OrdinaryCopies, left, ordinary

P = ParamSpec("P")
R = TypeVar("R")


def outside_of_inference(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, which leaves inference mode and gets copies of tensors that were made in it."""

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        if not torch.is_inference_mode_enabled():
            return function(*args, **options)
        with left(), OrdinaryCopies():
            given, named = tree_map_only(Tensor, lambda t: ordinary((t,))[0], (args, options))
            return function(*given, **named)

    return call
