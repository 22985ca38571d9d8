"""Figure of results; it needs matplotlib (`implicitly[figures]`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...studies.reporting.styling import COLOURS
from .checks import MemoryStudy, SolverReport

# Markers distinguish the solvers like the colours.
_COLOURS = COLOURS[:4]
_MARKERS = ("o", "s", "^", "D")
_NEUTRAL = "#555555"


def save_figure(
    file: Path, reports: Sequence[SolverReport], memory: MemoryStudy, spectral_radius: float
) -> None:
    """Draw three panels into a PNG: convergence, agreement with the unrolled network, memory."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.5, 4.2), dpi=150, layout="constrained")
    convergence, agreement, saved = figure.subplots(1, 3)
    _draw_convergence(convergence, reports)
    _draw_agreement(agreement, reports, spectral_radius)
    _draw_memory(saved, memory)
    for axes in (convergence, agreement, saved):
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file)


def _draw_convergence(axes: Any, reports: Sequence[SolverReport]) -> None:
    for report, colour, marker in zip(reports, _COLOURS, _MARKERS, strict=True):
        run = report.run
        axes.semilogy(
            run.work, run.residuals, color=colour, marker=marker, markersize=4, label=run.name
        )
    axes.set_title("Solving the equation")
    axes.set_xlabel("evaluations of the cell and Jacobian products")
    axes.set_ylabel("largest RMS residual  f(z) − z")
    axes.legend(frameon=False)


def _draw_agreement(axes: Any, reports: Sequence[SolverReport], spectral_radius: float) -> None:
    for report, colour, marker in zip(reports, _COLOURS, _MARKERS, strict=True):
        study = report.unrolled
        axes.semilogy(
            study.depths, study.errors, color=colour, marker=marker, markersize=4, linewidth=1,
            markerfacecolor="none", label=report.run.name,
        )  # fmt: skip
    study = reports[0].unrolled
    # Through the last point above the floor, since theory predicts the slope only.
    anchor = max(i for i, error in enumerate(study.errors) if error > 10 * study.floor)
    depth, error = study.depths[anchor], study.errors[anchor]
    line = [(k, error * k / depth * spectral_radius ** (k - depth)) for k in range(1, depth + 1)]
    axes.semilogy(
        *zip(*line, strict=True), color=_NEUTRAL, linestyle="--", linewidth=1.2,
        label=f"∝ k ρᵏ, spectral radius ρ = {spectral_radius:.2f} (fitted: {study.rate:.2f})",
    )  # fmt: skip
    axes.axhline(study.floor, color=_NEUTRAL, linestyle=":", linewidth=1.2)
    axes.annotate(
        "tolerance of the exact gradient", (study.depths[0], study.floor), xytext=(0, 4),
        textcoords="offset points", ha="left", fontsize=8, color=_NEUTRAL,
    )  # fmt: skip
    axes.set_title("Exact gradient against the unrolled network")
    axes.set_xlabel("depth k of the unrolled network (iterations)")
    axes.set_ylabel("relative distance of the gradients")
    axes.legend(frameon=False, fontsize=8)


def _draw_memory(axes: Any, memory: MemoryStudy) -> None:
    lines = (("unrolled network", memory.unrolled), ("implicit layer", memory.implicit))
    for (label, sizes), colour, marker in zip(lines, _COLOURS[1::-1], ("s", "o"), strict=True):
        kibibytes = [size / 1024 for size in sizes]
        axes.plot(
            memory.iterations, kibibytes, color=colour, marker=marker, markersize=4, label=label
        )
    axes.set_title("Memory until the backward pass")
    axes.set_xlabel("iterations of the cell")
    axes.set_ylabel("saved tensors (KiB)")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
