"""Records of every solve of the implicit layers in a module, by hooks."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import nn

from .equations.differentiation import transforming
from .layer import ImplicitLayer


@dataclass(frozen=True)
class LayerRecord:
    """One call of an implicit layer.

    Attributes:
        layer: Name of the layer in its module; `"."` if it is the module itself.
        call: Number of the call among those of this layer, from 0.
        systems: Systems solved.
        steps: Steps of the solver, mean over the systems.
        residual: The largest residual norm of a system.
        unsolved: Share of systems that have not converged.
        evaluations: Evaluations of the layer's function.

    Examples:
        >>> LayerRecord("encoder", 0, systems=8, steps=5.0, residual=1e-7, unsolved=0.0, evaluations=6).layer
        'encoder'
    """

    layer: str
    call: int
    systems: int
    steps: float
    residual: float
    unsolved: float
    evaluations: int


@dataclass
class LayerRecords:
    """Records of the layers of one module, in the order of their calls.

    Attributes:
        rows: The records.
        unreadable: Calls of each layer without a record: within one graph (`fullgraph=True`,
            `torch.export`) or a `torch.func` transform, whose solution holds no numbers yet.

    Examples:
        >>> LayerRecords().rows
        []
    """

    rows: list[LayerRecord] = field(default_factory=list)
    unreadable: dict[str, int] = field(default_factory=dict)

    def write_csv(self, file: str | Path) -> None:
        """Write the records as a table, a row for each call.

        Args:
            file: The file, which is replaced.
        """
        with Path(file).open("w", newline="", encoding="utf-8") as opened:
            writer = csv.writer(opened)
            writer.writerow([column.name for column in fields(LayerRecord)])
            writer.writerows(astuple(row) for row in self.rows)


@contextmanager
def record_layers(module: nn.Module) -> Iterator[LayerRecords]:
    """Record every call of the implicit layers of a module, while the context lasts.

    Each call reads its numbers back from the device. A layer under a checkpoint is called twice in a
    step, and has two records. A call that raises has none.

    Args:
        module: A module with an `ImplicitLayer` in it, at any depth, or such a layer.

    Returns:
        The records, filled as layers are called.

    Raises:
        TypeError: `module` is no module.
        ValueError: There is no `ImplicitLayer` in it.

    Examples:
        >>> import torch, implicitly
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 3), implicitly.ImplicitLayer(lambda z, x: 0.5 * torch.cos(z) + x)
        ... )
        >>> with implicitly.record_layers(model) as records:
        ...     _ = model(torch.ones(5, 4))
        >>> (row,) = records.rows
        >>> row.layer, row.systems, row.unsolved
        ('1', 5, 0.0)
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {module!r}")
    layers = {
        name or ".": layer
        for name, layer in module.named_modules()
        if isinstance(layer, ImplicitLayer)
    }
    if not layers:
        raise ValueError(
            f"{type(module).__name__} has no ImplicitLayer among its modules: there is nothing to record"
        )
    records = LayerRecords()
    handles = [layer.register_forward_hook(_hook(name, records)) for name, layer in layers.items()]
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()


def _hook(name: str, records: LayerRecords) -> Any:
    calls = 0

    def record(layer: ImplicitLayer, inputs: Any, output: Any) -> None:
        nonlocal calls
        number, calls = calls, calls + 1
        solution = layer.solution
        if transforming() or solution is None:
            records.unreadable[name] = records.unreadable.get(name, 0) + 1
            return
        solved = solution.converged
        count = solved.numel()
        records.rows.append(
            LayerRecord(
                name,
                number,
                count,
                float(solution.steps.double().mean()) if count else 0.0,
                float(solution.residual_norm.double().max()) if count else 0.0,
                1 - float(solved.double().mean()) if count else 0.0,
                int(solution.counts.evaluations),
            )
        )

    return record
