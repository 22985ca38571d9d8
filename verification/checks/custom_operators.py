"""Checks: custom operators, by `torch.library.opcheck`, and compiled layers beside their eager form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from ..evidence import Evidence
from ..float64_copy import uncompiled
from ..real import differentiable
from ..session import NotExercisedError, Session
from ..subject import LayerError
from .comparing import all_outputs

_OF_TORCH = (
    "aten",
    "prim",
    "prims",
    "inductor",
    "quantized",
    "profiler",
    "c10d",
    "debugprims",
    "rngprims",
)
_SILENT = ("test_schema", "test_autograd_registration")
"""Tests whose failure means derivatives that are wrong without an error."""


class _Operators(TorchDispatchMode):
    """Record of the custom operators that a call reaches, with their first arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[Any, tuple[Any, Any]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        namespace = getattr(func, "namespace", "aten")
        if namespace not in _OF_TORCH and func not in self.found:
            copies = tree_map_only(Tensor, lambda t: t.detach().clone(), (args, kwargs or {}))
            self.found[func] = copies
        return func(*args, **(kwargs or {}))


def custom_operators(session: Session) -> list[Evidence]:
    """Findings of `torch.library.opcheck` on every custom operator that the layer calls.

    A wrong schema or autograd registration makes derivatives silently wrong; everything else is a note.

    Raises:
        NotExercisedError: The layer calls no custom operator.
    """
    record = _Operators()
    try:
        with record:
            session.subject.tape()
    except LayerError as error:
        raise NotExercisedError(f"operators cannot be recorded: {error}") from error
    if not record.found:
        raise NotExercisedError("the layer calls no custom operator")
    found: list[Evidence] = []
    for operator, (args, kwargs) in record.found.items():
        wanted = tree_map_only(
            Tensor, lambda t: t.requires_grad_() if differentiable(t) else t, args
        )
        results = torch.library.opcheck(operator, wanted, kwargs, raise_exception=False)
        for test, result in results.items():
            if result == "SUCCESS":
                continue
            reason = str(result).strip().splitlines()[0] if str(result).strip() else repr(result)
            text = f"torch.library.opcheck, {test} of {operator}: {reason}"
            session.notes.append(text)
            if test in _SILENT:
                found += [
                    Evidence("opcheck", output, slot.name, 0.0, 0.0, 0.0, reference=False, fault=text)
                    for output in session.outputs
                    for slot in session.slots
                ]  # fmt: skip
    return found


def eager(session: Session) -> list[Evidence]:
    """A compiled layer has the gradients of the layer that was compiled.

    Raises:
        NotExercisedError: The layer is not compiled.
    """
    plain = uncompiled(session.subject.layer)
    if plain is None:
        raise NotExercisedError("the layer is not compiled")
    _, tape = session.subject.like(plain)
    return all_outputs(session, "compiled against eager", tape)
