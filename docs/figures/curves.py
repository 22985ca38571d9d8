"""Curves of a stirred reactor and a buckling rod, with folds and branch points: writes curves.png."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from implicitly import StepLengths, continuation, problems

HERE = Path(__file__).parent
FINE = StepLengths(largest=0.03)


def reactors(axes):
    """Conversion against residence time for three heats of reaction."""
    for heat in (8.0, 11.0, 14.0):
        problem = problems.get("stirred-reactor", heat=heat)
        curve = continuation(
            problem.function, problem.curve_start(), 0.0, bounds=(0.0, 0.2), steps=FINE
        )
        curve.plot(measure=float, axes=axes)
        axes.get_lines()[-1 - bool(curve.folds)].set_label(f"heat of reaction {heat:g}")
    axes.set(xlabel="residence time", ylabel="conversion", title="A reactor ignites", xlim=(0, 0.2))
    axes.legend()


def rods(axes):
    """Angle at a quarter of the rod against its load, straight and buckled."""
    problem = problems.get("elastic-rod")
    straight = continuation(
        problem.function, problem.curve_start(19), 0.0, bounds=(0.0, 100.0), steps=FINE
    )
    curves = [straight]
    for point in straight.branch_points:
        curves += straight.branch(point)
    for curve in curves:
        curve.plot(measure=lambda z: z[4], axes=axes)
    for line in axes.get_lines():
        line.set_color("#0072B2")
    axes.set(xlabel="load", ylabel="angle at a quarter", title="A rod buckles", xlim=(0, 100))


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    plt.style.use(HERE / "implicitly.mplstyle")
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.4))
    reactors(left)
    rods(right)
    figure.savefig(HERE / "curves.png")
