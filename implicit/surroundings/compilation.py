"""Calls inside a model that `torch.compile` compiles: one graph break each, and nothing of them compiled.

The number of iterations depends on values. Left to itself, the compiler breaks its graph dozens of times in
the loop of the solver, and is slower than Python there. Where all must be one graph, `ImplicitLayer` gives it
graphs of its own (`graphs/within.py`).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import CodeType
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

_REASON = (
    "the number of iterations of a solve depends on values: for fullgraph=True use an ImplicitLayer, which "
    "becomes a part of the graph, or leave fullgraph=True out, which breaks the graph at the call once"
)


def outside_of_graphs(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, at whose calls `torch.compile` breaks its graph, and which runs as it is.

    It is `torch.compiler.disable` from the time on at which somebody has imported the compiler: to import it
    takes longer than to import the rest.
    """
    disabled: Callable[P, R] | None = None

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal disabled
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if disabled is None:
            disabled = torch.compiler.disable(function)
        return disabled(*args, **kwargs)

    _leave_alone(call.__code__)  # type: ignore[attr-defined]
    call._torchdynamo_disable = True  # type: ignore[attr-defined]
    call._torchdynamo_disable_msg = _REASON  # type: ignore[attr-defined]
    return call


def _leave_alone(code: CodeType) -> None:
    """Tell the compiler to leave frames of `code` alone, by the calls that its version has."""
    from torch._C._dynamo import eval_frame

    if hasattr(eval_frame, "skip_code"):
        eval_frame.skip_code(code)
    elif hasattr(eval_frame, "set_code_exec_strategy"):
        actions = eval_frame._FrameAction
        strategy = eval_frame._FrameExecStrategy(actions.SKIP, actions.DEFAULT)
        eval_frame.set_code_exec_strategy(code, strategy)
