"""Graphs of whole solves run operation by operation, so that tests of their logic need no compiler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from implicitly.implicit.graphs.memory import MEMORY
from implicitly.implicit.graphs.prepared import PREPARED
from implicitly.implicit.graphs.shortcut import CAPTURED
from implicitly.solvers.composed import compiled as composed
from implicitly.solvers.graph import run
from implicitly.solvers.graph.loop import Report
from torch import Tensor
from torch.fx import GraphModule


@pytest.fixture
def forgotten() -> Iterator[None]:
    """No graph is known from another test, and nothing has been said."""
    for clear in (MEMORY.clear, CAPTURED.clear, PREPARED.clear, composed._SAID.clear):
        clear()
    yield
    for clear in (MEMORY.clear, CAPTURED.clear, PREPARED.clear, composed._SAID.clear):
        clear()


@pytest.fixture
def interpreted(forgotten: None, monkeypatch: pytest.MonkeyPatch) -> list[GraphModule]:
    """The graphs that would have been compiled; they are interpreted instead."""
    graphs: list[GraphModule] = []

    def keep(graph: GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Report]:
        graphs.append(graph)
        return lambda *tensors: Report(*graph(*tensors))

    made: Any = run
    monkeypatch.setattr(made, "compiled", keep)
    return graphs
