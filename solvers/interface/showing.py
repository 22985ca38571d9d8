"""A solution as people read it: in one line, as a table of its systems, as a plot of its norms."""

from __future__ import annotations

import html
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_FEW = 6
"""Numbers that are written out."""
_ROWS = 10
"""Systems of a table."""
_LINES = 50
"""Systems of a plot."""


@dataclass(frozen=True)
class Systems:
    """How each system ended; arrays with one entry per system, in order.

    Attributes:
        ends: Names of statuses.
        solved: Boolean.
        norms: Residual norms.
        errors: Estimates of relative errors, NaN where unknown.
        steps: Steps taken.
        shape: The shape of the batch.
    """

    ends: list[str]
    solved: np.ndarray
    norms: np.ndarray
    errors: np.ndarray
    steps: np.ndarray
    shape: tuple[int, ...]

    def place(self, number: int) -> tuple[int, ...]:
        """The index of a system in the batch."""
        return tuple(map(int, np.unravel_index(number, self.shape)))


def has_numbers(tensor: Tensor) -> bool:
    """True unless a transform or a trace holds the numbers of `tensor`."""
    return type(tensor) is Tensor and not (tensor.is_meta or is_functorch_wrapped_tensor(tensor))


def in_a_line(systems: Systems, work: str) -> str:
    """How many systems were solved, in how many steps, and which is worst.

    Examples:
        >>> norms, steps = np.array([1e-9, 0.5]), np.array([4, 100])
        >>> two = Systems(
        ...     ["CONVERGED", "MAX_STEPS"], norms < 0.1, norms, np.array([2e-9, np.nan]), steps, (2,)
        ... )
        >>> in_a_line(two, "101 evaluations")  # doctest: +NORMALIZE_WHITESPACE
        '1 of 2 systems solved, 1 MAX_STEPS, after 4 to 100 steps; largest residual norm 5.0e-01
        (system 1), error of the solved ≤ 2.0e-09; 101 evaluations'
    """
    count = len(systems.ends)
    if count == 0:
        return f"no systems; {work}"
    if count == 1:
        known = not np.isnan(systems.errors[0])
        end = "solved" if systems.solved[0] else systems.ends[0]
        return (
            f"{end} after {systems.steps[0]} steps; residual norm {systems.norms[0]:.1e}"
            + (f", error {systems.errors[0]:.1e}" if known else "")
            + f"; {work}"
        )
    others = Counter(
        end for end, solved in zip(systems.ends, systems.solved, strict=True) if not solved
    )
    ends = "".join(f", {number} {end}" for end, number in others.most_common())
    least, most = int(systems.steps.min()), int(systems.steps.max())
    worst = int(_worse(systems.norms).argmax())
    place = ", ".join(map(str, systems.place(worst)))
    known = systems.errors[systems.solved & ~np.isnan(systems.errors)]
    return (
        f"{int(systems.solved.sum())} of {count} systems solved{ends}"
        f"{',' if ends else ''} after {least if least == most else f'{least} to {most}'} steps"
        f"; largest residual norm {systems.norms[worst]:.1e} (system {place})"
        + (f", error of the solved ≤ {known.max():.1e}" if known.size else "")
        + f"; {work}"
    )


def described(value: Any) -> str:
    """The tensors of a value: a few numbers in full, else dtypes and shapes."""
    if isinstance(value, Tensor) and has_numbers(value) and value.numel() <= _FEW:
        return repr(value)
    leaves = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    shown = [
        f"{str(leaf.dtype).removeprefix('torch.')} {tuple(leaf.shape)}" for leaf in leaves[:_FEW]
    ]
    return ", ".join([*shown, "…"] if len(leaves) > _FEW else shown)


def as_html(line: str, systems: Systems | None) -> str:
    """A line, and a table of the systems: those that are not solved first, then the largest residuals."""
    text = f"<p>{html.escape(line)}</p>"
    if systems is None or len(systems.ends) < 2:
        return text
    order = np.lexsort((-_worse(systems.norms), systems.solved))
    names = ("system", "status", "residual norm", "error", "steps")
    rows = [_row("th", names)]
    for i in map(int, order[:_ROWS]):
        error = "" if np.isnan(systems.errors[i]) else f"{systems.errors[i]:.1e}"
        place = ", ".join(map(str, systems.place(i)))
        rows.append(
            _row("td", (place, systems.ends[i], f"{systems.norms[i]:.1e}", error, systems.steps[i]))
        )
    rest = len(order) - _ROWS
    more = f"<p>and {rest} systems with smaller residuals</p>" if rest > 0 else ""
    return f"{text}<table>{''.join(rows)}</table>{more}"


def _row(tag: str, cells: tuple[Any, ...]) -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"


def as_frame(systems: Systems) -> pd.DataFrame:
    """A row for each system."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("to_pandas() needs pandas: pip install 'implicitly[studies]'") from error
    if len(systems.shape) < 2:
        index: Any = pd.RangeIndex(len(systems.ends), name="system")
    else:
        names = [f"axis {axis}" for axis in range(len(systems.shape))]
        index = pd.MultiIndex.from_product(map(range, systems.shape), names=names)
    columns = {
        "status": systems.ends,
        "converged": systems.solved,
        "residual_norm": systems.norms,
        "error": systems.errors,
        "steps": systems.steps,
    }
    return pd.DataFrame(columns, index=index)


def drawn(trace: np.ndarray | None, axes: Axes | None) -> Axes:
    """The residual norms of the checks, a line for each system; of many systems the slowest."""
    if trace is None:
        raise ValueError(
            "plot() draws the residual norms of all checks, which this solve did not keep: solve with "
            "trace=True"
        )
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("plot() needs matplotlib: pip install 'implicitly[figures]'") from error
    axes = axes if axes is not None else plt.figure().add_subplot()
    count = trace.shape[1]
    longest = np.argsort(-np.isfinite(trace).sum(axis=0), kind="stable")[:_LINES]
    for system in sorted(longest.tolist()):
        norms = np.where(trace[:, system] > 0, trace[:, system], np.nan)
        if count <= _FEW:
            axes.semilogy(norms, ".-", label=f"system {system}")
        else:
            axes.semilogy(norms, "-", color="C0", alpha=0.4)
    if 1 < count <= _FEW:
        axes.legend()
    if count > _LINES:
        axes.set_title(f"the {_LINES} of {count} systems that took longest", fontsize="medium")
    axes.set_xlabel("check")
    axes.set_ylabel("residual norm (root mean square)")
    return axes


def _worse(norms: np.ndarray) -> np.ndarray:
    """The norms, with infinity in place of NaN."""
    return np.nan_to_num(norms, nan=np.inf)
