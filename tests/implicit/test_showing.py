"""What a solution shows of itself: a line, a table, a frame and a plot, against the numbers it holds."""

from __future__ import annotations

import html
import sys
from typing import Any

import implicitly as im
import numpy as np
import pytest
import torch
from torch import Tensor

F64 = torch.float64


def square(z: Tensor, a: Tensor) -> Tensor:
    return z**2 - a


def solved(a: list[float], **options: Any) -> im.Solution:
    """Square roots; there is none of a negative number."""
    given = torch.tensor(a, dtype=F64)
    given_options: dict[str, Any] = {"batch_dims": 1, "on_failure": "accept", **options}
    return im.root(square, torch.ones_like(given), given, **given_options)


def test_one_system_says_how_it_ended() -> None:
    solution = im.root(square, torch.tensor(1.0, dtype=F64), torch.tensor(2.0, dtype=F64))
    line = repr(solution)
    assert line.startswith(f"Solution: solved after {int(solution.steps)} steps; residual norm ")
    assert f"{solution.residual_norm.item():.1e}, error {solution.error.item():.1e}; " in line
    assert f"{solution.counts.evaluations} evaluations" in line
    assert line.endswith("value: tensor(1.4142, dtype=torch.float64)")
    assert "\n" not in line


def test_a_batch_says_how_many_are_solved_and_which_is_worst() -> None:
    solution = solved([2.0, -3.0, 9.0])
    line = repr(solution)
    name = im.Status(int(solution.status[1])).name
    steps = solution.steps.tolist()
    assert f"2 of 3 systems solved, 1 {name}, after {min(steps)} to {max(steps)} steps" in line
    assert f"largest residual norm {solution.residual_norm[1].item():.1e} (system 1)" in line
    assert f"error of the solved ≤ {solution.error[[0, 2]].max().item():.1e}" in line


def test_no_systems_and_trees_and_two_batch_axes() -> None:
    assert "no systems" in repr(solved([]))
    a = torch.tensor([[2.0, -1.0], [3.0, 4.0]], dtype=F64)
    two = im.root(square, torch.ones_like(a), a, batch_dims=2, on_failure="accept")
    assert "(system 0, 1)" in repr(two)
    tree = im.root(lambda z: {"p": z["p"] - 1, "q": z["q"] - 2},
                   {"p": torch.zeros(9), "q": torch.zeros(3, 3)})  # fmt: skip
    assert repr(tree).endswith("value: float32 (9,), float32 (3, 3)")


def test_a_solution_inside_of_a_transform_has_no_numbers_to_show() -> None:
    shown = []

    def inside(a: Tensor) -> Tensor:
        solution = im.root(square, torch.ones((), dtype=F64), a)
        shown.extend([repr(solution), solution._repr_html_()])
        value: Tensor = solution.value
        return value

    torch.func.vmap(inside)(torch.tensor([2.0, 3.0], dtype=F64))
    assert shown == ["Solution: value: float64 ()", "<p>Solution: value: float64 ()</p>"]


def test_the_table_begins_with_what_is_not_solved_and_has_ten_rows() -> None:
    solution = solved([float(i) for i in range(1, 15)] + [-1.0])
    text = solution._repr_html_()
    rows = text.split("<tr>")[2:]
    assert len(rows) == 10
    name = im.Status(int(solution.status[14])).name
    assert rows[0].startswith(f"<td>14</td><td>{name}</td>")
    assert "and 5 systems with smaller residuals" in text
    assert html.escape(repr(solution)) in text


def test_a_frame_has_a_row_for_each_system() -> None:
    solution = solved([2.0, -3.0])
    frame = solution.to_pandas()
    assert frame.status.tolist() == [im.Status(code).name for code in solution.status.tolist()]
    assert frame.converged.tolist() == [True, False]
    for name in ("residual_norm", "steps", "error"):
        np.testing.assert_array_equal(frame[name].to_numpy(), getattr(solution, name).numpy())
    a = torch.full((2, 3), 2.0, dtype=F64)
    two = im.root(square, torch.ones_like(a), a, batch_dims=2).to_pandas()
    assert two.index.names == ["axis 0", "axis 1"]
    assert len(two) == 6


def test_a_plot_has_a_line_for_each_system_with_the_norms_of_the_trace() -> None:
    pytest.importorskip("matplotlib").use("Agg")
    solution = solved([2.0, 3.0], solver=im.Newton(), trace=True)
    axes = solution.plot()
    assert solution.trace is not None
    for line, norms in zip(axes.lines, solution.trace.T, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), np.where(norms > 0, norms, np.nan))
    assert axes.get_yscale() == "log"
    assert solution.plot(axes) is axes
    many = solved([float(i) for i in range(1, 80)], solver=im.Newton(), trace=True).plot()
    assert len(many.lines) == 50
    assert "50 of 79" in many.get_title()


def test_a_plot_needs_a_trace_and_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="solve with trace=True"):
        solved([2.0]).plot()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install 'implicitly\[studies\]'"):
        solved([2.0]).to_pandas()
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'implicitly\[figures\]'"):
        solved([2.0], trace=True).plot()


@pytest.mark.parametrize("keyword", ["tol", "maxiter", "max_iter", "rtol", "max_steps", "f_tol"])
def test_tolerances_under_other_names_lead_to_the_stopping_rule(keyword: str) -> None:
    a = torch.tensor(2.0, dtype=F64)
    calls: tuple[Any, ...] = (im.root, im.fixed_point, im.least_squares, im.minimise)
    for call in calls:
        with pytest.raises(TypeError, match=rf"{keyword!r}.*stopping=Stopping\(rtol"):
            call(square, torch.ones((), dtype=F64), a, **{keyword: 1})


@pytest.mark.parametrize(
    ("keyword", "words"),
    [("method", "solver=Newton"), ("jac", "jacobian="), ("verbose", "progress=True")],
)
def test_other_names_of_options_are_known(keyword: str, words: str) -> None:
    a = torch.tensor(2.0, dtype=F64)
    options: dict[str, Any] = {keyword: "x"}
    with pytest.raises(TypeError, match=words):
        im.root(square, torch.ones((), dtype=F64), a, **options)
