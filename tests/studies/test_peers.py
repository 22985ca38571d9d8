"""Solvers of other libraries in a study: counted from outside, rechecked, and denied what is not so."""

import importlib.util

import pytest
import torch
from implicitly.studies import Store, StudyConfiguration, StudyError, run
from implicitly.studies import catalogue as catalogue_module
from implicitly.studies.catalogue import Catalogue
from implicitly.studies.methods.equation import BudgetSpentError, StudyEquation, Watch
from implicitly.studies.selection import Choice

LIBRARIES = ("torchdeq", "xitorch", "jaxopt", "optimistix")


def method(name):
    library = name.split(":")[0]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    return Catalogue().method(Choice(name))


def equation(name="boggs", limit=1000, **options):
    problem = Catalogue().problem(Choice(name, tuple(options.items())), 0)[0]
    size = problem.size(options.get("n"))
    start = problem.start(size, torch.float64, "cpu")
    return StudyEquation(problem, start, 1e-8, limit, (), Watch(limit))


@pytest.mark.parametrize(
    "name",
    [
        "torchdeq:broyden", "xitorch:broyden1", "jaxopt:broyden", "optimistix:newton", "optimistix:chord",
        "optimistix:dogleg", "optimistix:levenberg_marquardt",
    ],
)  # fmt: skip
def test_a_root_is_found_and_its_evaluations_are_counted(name):
    solver, asked = method(name), equation()
    attempt = solver.solve(asked)
    assert attempt.claimed, attempt.reason
    assert asked.unwatched.residual(attempt.value).abs().max() <= 1e-8
    assert asked.watch.evaluations > 1
    assert solver.family == "peer"
    assert solver.label == name


@pytest.mark.parametrize(
    "name",
    [
        "torchdeq:anderson", "torchdeq:fixed_point_iter", "xitorch:anderson_acc", "jaxopt:anderson",
        "jaxopt:fixed_point", "optimistix:fixed_point",
    ],
)  # fmt: skip
def test_a_fixed_point_is_found(name):
    asked = equation("contraction", n=8, lipschitz=0.5)
    attempt = method(name).solve(asked)
    assert attempt.value.shape == asked.z0.shape
    assert asked.unwatched.residual(attempt.value).abs().max() <= 1e-7


def test_a_dense_jacobian_counts_a_product_for_each_unknown():
    asked = equation("wood")
    attempt = method("optimistix:newton").solve(asked)
    assert attempt.jvps == 4 * attempt.steps


def test_evaluations_beyond_the_limit_are_refused_through_callbacks():
    with pytest.raises(BudgetSpentError):
        method("jaxopt:broyden").solve(equation("wood", limit=20))


def test_a_claim_that_is_not_so_is_denied(tmp_path):
    method("xitorch:broyden2")
    study = StudyConfiguration(name="claims", problems=["wood"], solvers=["xitorch:broyden2"])
    run(study, tmp_path)
    (row,) = Store(tmp_path).rows("claims").to_dict("records")
    assert row["status"] == "SUCCESS"
    assert row["outcome"] != "solved"
    assert row["residual"] > 1e-8


def test_a_library_that_is_not_there_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setattr(catalogue_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        StudyError,
        match=r"needs torchdeq, which is not installed: pip install 'implicitly\[peers\]'",
    ):
        Catalogue().method(Choice("torchdeq:anderson"))


def test_all_libraries_can_be_chosen_by_pattern():
    names = Catalogue().solvers.names
    assert {name.split(":")[0] for name in names if ":" in name} == {"scipy", *LIBRARIES}
