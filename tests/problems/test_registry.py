"""Problems by name and tag; what they say of sizes, parameters and mistakes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from implicitly import problems
from implicitly.problems import TestProblem

NAMES = problems.names()


def test_an_unknown_name_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="'powel-singular'; the nearest is 'powell-singular'"):
        problems.get("powel-singular")


def test_an_unknown_tag_is_an_error_that_names_the_nearest() -> None:
    for call in (problems.all, problems.names):
        with pytest.raises(
            ValueError, match="no tag is called 'clasical'; the nearest is 'classical'"
        ):
            call(tag="clasical")


def test_an_unknown_parameter_is_an_error_that_lists_the_valid_ones() -> None:
    with pytest.raises(
        TypeError, match="ChandrasekharH has no option 'albedo'. Its options: start_scale, c"
    ):
        problems.get("chandrasekhar-h", albedo=0.5)


@pytest.mark.parametrize("c", [0.0, 1.5, float("nan"), "half"])
def test_a_parameter_out_of_range_is_an_error(c: object) -> None:
    with pytest.raises(ValueError, match=r"c must be in \(0, 1\]"):
        problems.get("chandrasekhar-h", c=c)


def test_the_classical_problems_are_23_in_the_order_of_the_literature() -> None:
    names = problems.names(tag="classical")
    assert len(names) == 23
    assert (names[0], names[12], names[22]) == (
        "generalised-rosenbrock", "broyden-tridiagonal", "chandrasekhar-h",
    )  # fmt: skip
    assert [problem.name for problem in problems.all(tag="classical")] == names


@pytest.mark.parametrize("name", NAMES)
def test_every_problem_is_whole(name: str) -> None:
    problem = problems.get(name)
    assert problem.name == name
    assert problem.tags
    assert any(word.strip("();,.").isdigit() for word in problem.source.split()), problem.source
    assert problem.__doc__
    assert problem.allows(problem.standard_size)
    start = problem.start()
    assert start.shape == (*problem.batch_shape, problem.standard_size)
    assert start.dtype == torch.float64
    assert torch.isfinite(problem.residual(start)).all()
    assert problem.residual(start).abs().max() > 1e-8  # The start is no root.
    assert problem.start(dtype=torch.float32).dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_equal_parameters_make_equal_problems(name: str) -> None:
    assert problems.get(name) == problems.get(name)
    assert hash(problems.get(name)) == hash(problems.get(name))


def test_a_size_that_does_not_exist_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="powell-singular allows n = 4, got 5; nearest: 4"):
        problems.get("powell-singular").start(5)
    with pytest.raises(ValueError, match="nearest: 31"):
        problems.get("watson").roots(40)
    for wrong in (0, -1, 2.5, "3"):
        with pytest.raises(ValueError, match="n must be an integer ≥ 1"):
            problems.get("trigonometric").start(wrong)  # type: ignore[arg-type]


def test_a_size_without_roots_has_none() -> None:
    assert problems.get("chebyquad").roots(8) == ()
    assert "None exists for n = 8" in problems.get("chebyquad").remark


def test_two_problems_may_not_share_a_name() -> None:
    class Other(TestProblem):
        name, standard_size, sizes, source = "boggs", 1, "1", "nobody 1900"

        def function(self, z):
            return z

        def first(self, n):
            return [1.0]

    with pytest.raises(ValueError, match="'boggs' is taken by Boggs"):
        problems.register(Other)


def test_what_is_incomplete_is_not_registered() -> None:
    class Unfinished(TestProblem):
        name, standard_size, sizes, source = "unfinished", 1, "1", "nobody 1900"

    with pytest.raises(TypeError, match="Unfinished does not define first, function"):
        problems.register(Unfinished)
    with pytest.raises(TypeError, match="a subclass of TestProblem"):
        problems.register(int)  # type: ignore[type-var]


def test_the_reference_lists_every_problem_with_its_sizes_and_source() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "problems.md"
    text = page.read_text(encoding="utf-8")
    for name in NAMES:
        problem = problems.get(name)
        (row,) = (line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        assert f"| {problem.sizes} |" in row
        assert row.endswith(f"| {problem.source} |")
        for field in dataclasses.fields(problem):
            if field.name != "start_scale":  # Every problem has it.
                assert f"`{field.name}={getattr(problem, field.name)!r}`" in row


@pytest.mark.parametrize("name", NAMES)
def test_a_start_from_farther_away_is_a_multiple_of_the_standard_one(name: str) -> None:
    standard, farther = problems.get(name), problems.get(name, start_scale=10)
    assert torch.equal(farther.start(), 10 * standard.start())
    for root, same in zip(standard.roots(), farther.roots(), strict=True):
        assert torch.equal(root.value, same.value)


@pytest.mark.parametrize("scale", [0, -1.0, float("inf"), "far"])
@pytest.mark.parametrize("name", NAMES)
def test_a_scale_that_is_not_positive_is_an_error(name: str, scale: object) -> None:
    with pytest.raises(ValueError, match="start_scale must be a number > 0"):
        problems.get(name, start_scale=scale)
