"""Wrong options and wrong input: errors that name the argument, what came and what was expected."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import pytest
import torch
from implicitly import (
    GMRES,
    Anderson,
    BiCGStab,
    Broyden,
    DenseLU,
    Exact,
    FixedPointIteration,
    LevenbergMarquardt,
    LineSearch,
    NeumannSeries,
    Newton,
    NewtonKrylov,
    NonmonotoneLineSearch,
    PseudoTransient,
    Stopping,
    TrustRegion,
    Unrolled,
    fixed_point,
    root,
)
from implicitly.solvers import Problem, solve
from torch import Tensor

from .references import ALL, FORMS, Form, solve_form

every_form = pytest.mark.parametrize("form", FORMS)
ONE = torch.ones((), dtype=torch.float64)


# --- Options ------------------------------------------------------------------------------------

MISSPELT = [
    (Anderson, "memmory", "memory"),
    (Anderson, "beta", None),
    (Broyden, "linesearch", "line_search"),
    (FixedPointIteration, "dampings", "damping"),
    (GMRES, "restarts", "restart"),
    (BiCGStab, "precondition", "preconditioner"),
    (Newton, "globalization", "globalisation"),
    (LevenbergMarquardt, "damping", "first_damping"),
    (LineSearch, "maxtrials", "max_trials"),
    (TrustRegion, "memmory", "memory"),
    (NewtonKrylov, "linear_solve", "linear_solver"),
    (Stopping, "tol", "rtol"),
    (Stopping, "max_step", "max_steps"),
]


@pytest.mark.parametrize(("kind", "wrong", "nearest"), MISSPELT, ids=lambda value: str(value))
def test_an_unknown_option_names_the_nearest_valid_one(
    kind: Any, wrong: str, nearest: str | None
) -> None:
    with pytest.raises(TypeError) as caught:
        kind(**{wrong: 3})
    text = str(caught.value)
    assert f"{kind.__name__} has no option {wrong!r}" in text
    if nearest is not None:
        assert f"did you mean {nearest!r}?" in text
    for field in dataclasses.fields(kind):
        assert field.name in text


def test_a_solver_without_options_says_so() -> None:
    with pytest.raises(TypeError, match="DenseLU has no option 'terms'.*none"):
        DenseLU(terms=3)


OUT_OF_RANGE: list[tuple[Any, str, list[Any]]] = [
    (Anderson, "memory", [0, -1, 2.5, "5", None]),
    (Anderson, "mixing", [0.0, -0.5, math.nan, math.inf, "1"]),
    (Anderson, "kind", ["III", 2, None]),
    (NeumannSeries, "below", [0.0, -0.5, math.nan, "1"]),
    (Anderson, "regularisation", [0.0, -1e-8, math.nan, math.inf]),
    (Anderson, "restart", [0, -3, 2.5]),
    (Anderson, "safeguard", [0.5, math.nan, -1.0]),
    (Broyden, "memory", [0, -1, 2.5, None]),
    (Broyden, "kind", ["ugly", None]),
    (Broyden, "growth", [-0.1, math.nan, math.inf]),
    (FixedPointIteration, "damping", [0.0, -1.0, math.nan, math.inf, "1"]),
    (GMRES, "restart", [0, -1, 1.5, "all"]),
    (Newton, "refresh", [0, -1, 1.5, "1"]),
    (LineSearch, "max_trials", [0, -1, 1.5]),
    (NonmonotoneLineSearch, "memory", [0, -1, 1.5]),
    (NonmonotoneLineSearch, "max_trials", [0, 1.5]),
    (TrustRegion, "memory", [0, -1, 1.5]),
    (TrustRegion, "max_trials", [0, 1.5]),
    (LevenbergMarquardt, "first_damping", [0.0, -1.0, math.nan, math.inf, "1"]),
    (LevenbergMarquardt, "memory", [0, 1.5]),
    (LevenbergMarquardt, "max_trials", [0, 1.5]),
    (PseudoTransient, "first_step", [0.0, -1.0, math.nan, math.inf]),
    (NewtonKrylov, "first_forcing", [0.0, 1.0, -0.1, 2.0, math.nan]),
    (NewtonKrylov, "max_linear_steps", [0, 1.5]),
    (NewtonKrylov, "max_short_solves", [0, 1.5, True]),
    (Stopping, "rtol", [-1e-3, math.nan, math.inf, "1e-6"]),
    (Stopping, "atol", [-1e-3, math.nan, math.inf]),
    (Stopping, "max_steps", [-1, 2.5, "10"]),
    (Stopping, "max_evaluations", [-1, 2.5]),
    (Stopping, "check_every", [0, -1, 1.5]),
    (Stopping, "patience", [0, -1, 1.5]),
    (Stopping, "divergence", [1.0, 0.0, -1.0, math.nan, "1e10"]),
]


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [(kind, option, value) for kind, option, values in OUT_OF_RANGE for value in values],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
def test_an_option_out_of_range_is_an_error_that_names_it_and_what_came(
    kind: Any, option: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"got {value!r}")) as caught:
        kind(**{option: value})
    assert str(caught.value).startswith(f"{option} must be")


@pytest.mark.parametrize("kind", [LineSearch, TrustRegion, LevenbergMarquardt])
def test_a_truth_value_must_be_one(kind: Any) -> None:
    with pytest.raises(TypeError, match="balance must be True or False, got 'no'"):
        kind(balance="no")


@pytest.mark.parametrize("kind", [GMRES, BiCGStab])
def test_a_preconditioner_must_be_callable(kind: Any) -> None:
    with pytest.raises(TypeError, match="preconditioner must be callable or None, got 3"):
        kind(preconditioner=3)


@pytest.mark.parametrize("solver", [*ALL.values(), Stopping()], ids=lambda s: type(s).__name__)
def test_options_cannot_be_changed_afterwards(solver: Any) -> None:
    names = [field.name for field in dataclasses.fields(solver)]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(solver, names[0] if names else "anything", 3)
    assert solver == dataclasses.replace(solver)


@every_form
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": Anderson}, "solver must be an instance such as .*, got the class Anderson"),
        ({"solver": "anderson"}, "solver must be an instance such as .*, got 'anderson'"),
        ({"stopping": Stopping}, "stopping must be an instance such as .*, got the class Stopping"),
        ({"stopping": 1e-6}, "stopping must be an instance such as .*, got 1e-06"),
        ({"gradient": Exact}, "gradient must be an instance such as .*, got the class Exact"),
    ],
    ids=lambda value: "",
)
def test_a_class_or_a_name_in_place_of_an_instance_is_a_type_error(
    form: Form, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        solve_form(form, torch.cos, ONE, **options)


def test_solvers_inside_options_must_be_instances_too() -> None:
    with pytest.raises(TypeError, match="linear_solver must be a solver such as GMRES"):
        NewtonKrylov(linear_solver=GMRES)  # type: ignore[arg-type]
    for kind in (Newton, NewtonKrylov):
        with pytest.raises(TypeError, match="globalisation must be LineSearch.*got 'armijo'"):
            kind(globalisation="armijo")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="globalisation must be LineSearch.*got <class"):
            kind(globalisation=TrustRegion)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be an instance of a solver"):
        Exact(solver=GMRES)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a Stopping"):
        Exact(stopping=1e-6)  # type: ignore[arg-type]


@every_form
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"on_failure": "ignore"},
            "on_failure must be one of 'raise', 'warn', 'accept', got 'ignore'",
        ),
        ({"batch_dims": -1}, "batch_dims must be an integer ≥ 0, got -1"),
        ({"batch_dims": 1.0}, "batch_dims must be an integer ≥ 0, got 1.0"),
        ({"batch_dims": 2}, r"z0 must have at least batch_dims=2 axes, got shape \(3,\)"),
        ({"batched_args": ()}, "batched_args needs batch_dims=1.*got batch_dims=0"),
        ({"batched_args": (True,), "batch_dims": 1}, "one entry for each of the 0 arguments"),
    ],
    ids=lambda value: "",
)
def test_options_of_a_call_out_of_range_are_value_errors(
    form: Form, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        solve_form(form, torch.cos, torch.ones(3), **options)


def test_a_batched_argument_must_have_an_axis_of_systems() -> None:
    with pytest.raises(ValueError, match=r"argument 1 indexes the 3 systems.*shape \(2,\)"):
        fixed_point(
            lambda z, a, b: z, torch.ones(3), torch.ones(3), torch.ones(2), batch_dims=1,
            batched_args=(True, True),
        )  # fmt: skip


# --- Starts -------------------------------------------------------------------------------------

FLOATING = "z0 must have a floating-point or complex dtype, got torch."


@every_form
@pytest.mark.parametrize(
    ("start", "error", "message"),
    [
        (torch.ones(2, dtype=torch.int64), TypeError, FLOATING + "int64; .*float"),
        (torch.ones(2, dtype=torch.bool), TypeError, FLOATING + "bool"),
        (1.0, TypeError, "z0 must be a tensor, got float: 1.0"),
        ({"a": torch.ones(2), "b": [2]}, TypeError, r"z0\['b'\]\[0\] must be a tensor, got int: 2"),
        ((), ValueError, "z0 must hold at least one tensor"),
        ({}, ValueError, "z0 must hold at least one tensor"),
        (torch.eye(3).to_sparse(), TypeError, "z0 must be a dense tensor, got torch.sparse_coo"),
    ],
    ids=lambda value: "",
)  # fmt: skip
def test_a_start_of_the_wrong_kind_is_refused(
    form: Form, start: Any, error: type[Exception], message: str
) -> None:
    call = fixed_point if form == "fixed_point" else root
    with pytest.raises(error, match=message):
        call(lambda z: z, start)


@every_form
def test_leaves_with_different_batch_axes_are_refused(form: Form) -> None:
    call = fixed_point if form == "fixed_point" else root
    with pytest.raises(ValueError, match=r"agree in their first 1 axes.*\(2, 3\).*\(3, 2\)"):
        call(lambda z: z, (torch.ones(2, 3), torch.ones(3, 2)), batch_dims=1)


@every_form
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("policy", ["raise", "warn", "accept"])
@pytest.mark.parametrize(
    "function", [torch.cos, torch.tanh, lambda z: torch.tanh(z) + 0 * z.detach().clamp(-1, 1)],
    ids=["cos", "tanh", "bounded"],
)  # fmt: skip
def test_a_start_that_is_not_finite_is_refused_whatever_the_policy(
    form: Form, bad: float, policy: str, function: Any
) -> None:
    start = torch.tensor([[0.5, 0.5], [0.5, bad]])
    with pytest.raises(ValueError, match=r"z0 must be finite.* 1 of 2 systems \(first: system 1\)"):
        solve_form(form, function, start, batch_dims=1, on_failure=policy)


def test_an_infinite_start_is_refused_where_the_equation_is_finite_there() -> None:
    for target in (0.5, 1.0):
        with pytest.raises(ValueError, match="z0 must be finite"):
            root(lambda z, target=target: torch.tanh(z) - target, ONE * math.inf)


# --- What the function returns ------------------------------------------------------------------


@every_form
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (
            torch.ones(3),
            ValueError,
            r"z0 has shape \(2,\), but the value returned for it has \(3,\)",
        ),
        (
            torch.ones(1),
            ValueError,
            r"z0 has shape \(2,\), but the value returned for it has \(1,\)",
        ),
        (
            torch.ones(()),
            ValueError,
            r"z0 has shape \(2,\), but the value returned for it has \(\)",
        ),
        ((torch.ones(2),), TypeError, "must return the structure of z0"),
        (torch.ones(2, dtype=torch.int64), TypeError, "returned torch.int64 for z0"),
        (torch.ones(2, dtype=torch.complex64), TypeError, "imaginary part would be lost"),
        (3.0, TypeError, "returned float for z0"),
        (None, TypeError, "must return"),
    ],
    ids=lambda value: "",
)
def test_a_function_that_returns_something_else_is_named(
    form: Form, value: Any, error: type[Exception], message: str
) -> None:
    def my_function(z: Tensor) -> Any:
        return value

    call = fixed_point if form == "fixed_point" else root
    with pytest.raises(error, match=message) as caught:
        call(my_function, torch.ones(2))
    assert "my_function must return" in str(caught.value)


@every_form
def test_a_structure_with_other_keys_is_named(form: Form) -> None:
    call = fixed_point if form == "fixed_point" else root
    with pytest.raises(TypeError, match="structure of z0.*'a'.*but returned.*'b'"):
        call(lambda z: {"b": z["a"]}, {"a": torch.ones(2)})


@every_form
def test_errors_of_the_function_itself_come_through(form: Form) -> None:
    def faulty(z: Tensor) -> Tensor:
        raise KeyError("mine")

    call = fixed_point if form == "fixed_point" else root
    with pytest.raises(KeyError, match="mine"):
        call(faulty, torch.ones(2))


# --- Problems ------------------------------------------------------------------------------------


def test_a_problem_without_derivative_says_what_to_give() -> None:
    with pytest.raises(TypeError, match=r"give Problem\(linearize=\.\.\.\)"):
        solve(Problem(torch.cos), Newton(), torch.ones(1, 1))


def test_a_nonlinear_problem_has_no_linear_part() -> None:
    with pytest.raises(TypeError, match=r"give Problem\(operator=\.\.\.\)"):
        Problem(torch.cos).apply(torch.ones(1, 1))


def test_gradient_modes_are_checked_like_solvers() -> None:
    with pytest.raises(TypeError, match="Unrolled has no option 'step'; did you mean 'steps'"):
        Unrolled(step=3)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="steps must be an integer ≥ 1 or None, got 0"):
        Unrolled(steps=0)
