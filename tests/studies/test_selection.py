"""What a study names: patterns, tags, grids, and the nearest name for what there is not."""

import importlib.util
from pathlib import Path

import implicitly
import pytest
from implicitly.options.text import written
from implicitly.studies import StudyConfiguration, StudyError, load, shipped
from implicitly.studies.catalogue import Catalogue
from implicitly.studies.configuration import as_text, from_text
from implicitly.studies.selection import Choice, Names, all_chosen, chosen

TAGS = {"cheap": ["anderson", "newton"]}
SOLVERS = Names("solver", ["anderson", "newton", "scipy:hybr", "scipy:lm"], TAGS.__getitem__)


def texts(selection: str) -> list[str]:
    return [choice.text for choice in chosen(selection, SOLVERS)]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("newton", ["newton"]),
        ("scipy:*", ["scipy:hybr", "scipy:lm"]),
        ("tag:cheap", ["anderson", "newton"]),
        ("anderson[memory=3,10]", ["anderson[memory=3]", "anderson[memory=10]"]),
        (
            "anderson[memory=3,10; kind=I]",
            ["anderson[memory=3; kind=I]", "anderson[memory=10; kind=I]"],
        ),
        (
            "newton[globalisation=line-search[max_trials=5],none]",
            ["newton[globalisation=line-search[max_trials=5]]", "newton[globalisation=none]"],
        ),
        ("tag:cheap[a=1.5,true,'2']", [f"{n}[a={v}]" for n in TAGS["cheap"] for v in ("1.5", "true", '"2"')]),
    ],
)  # fmt: skip
def test_a_selection_stands_for_every_combination(selection: str, expected: list[str]) -> None:
    assert texts(selection) == expected
    # What is written is read as the same.
    for text in expected:
        assert texts(text) == [text]


def test_what_is_chosen_twice_counts_once() -> None:
    both = all_chosen(["scipy:*", "scipy:lm", "newton"], SOLVERS)
    assert [choice.name for choice in both] == ["scipy:hybr", "scipy:lm", "newton"]


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ("andersen", "the nearest is 'anderson'"),
        ("nothing:*", "fits no solver"),
        ("anderson[memory=3", "does not end with a closing one"),
        ("anderson[memory]", "expected option=value"),
        ("anderson[a=1; a=2]", "gives an option twice"),
        ("  ", "a selection is a text"),
    ],
)
def test_what_cannot_be_chosen_is_an_error(selection: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        chosen(selection, SOLVERS)


def study(**fields: object) -> StudyConfiguration:
    return load_fields({"name": "s", "problems": ["boggs"], "solvers": ["newton"], **fields})


def load_fields(fields: dict[str, object]) -> StudyConfiguration:
    import yaml

    return from_text(yaml.safe_dump(fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"problems": ["bogs"]}, "no problem is called 'bogs'; the nearest is 'boggs'"),
        ({"problems": ["tag:clasical"]}, "the nearest is 'classical'"),
        ({"problems": ["bratu[strenght=3]"]}, "the nearest is 'strength'"),
        ({"problems": ["bratu[n=7]"]}, "allows n = m²"),
        ({"solvers": ["newtn"]}, "no solver is called 'newtn'; the nearest is 'newton'"),
        ({"solvers": ["tag:nativ"]}, "the nearest is 'native'"),
        ({"solvers": ["anderson[memmory=3]"]}, "the nearest is 'memory'"),
        ({"solvers": ["anderson[memory=0]"]}, "memory must be"),
        ({"solvers": ["newton[globalisation=line-serch]"]}, "the nearest is 'line-search'"),
        ({"solvers": ["scipy:hibr"]}, "the nearest is 'scipy:hybr'"),
        ({"gradients": ["exakt"]}, "no gradient mode is called 'exakt'; the nearest is 'exact'"),
        ({"gradients": ["exact"], "solvers": ["scipy:lm"]}, "gives no gradients"),
        ({"adjoint_solvers": ["gmres"]}, "adjoint_solvers are for gradients"),
        ({"tolerance": [1e-3]}, "no field 'tolerance'; the nearest is 'tolerances'"),
        ({"tolerances": [-1.0]}, "numbers > 0"),
        ({"time_limit": 0}, "time_limit: .* greater than 0"),
        ({"dtypes": ["float46"]}, "dtypes"),
        ({"name": "a/b"}, "name: "),
        ({"solvers": []}, "solvers: "),
    ],
)
def test_a_wrong_study_is_an_error_that_names_what_is_near(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        study(**fields).cells()


def test_cells_are_every_combination_and_each_has_a_key_of_its_own() -> None:
    settings = study(
        problems=["broyden-tridiagonal[n=10,100]"],
        solvers=["anderson[memory=3,10]", "scipy:hybr"],
        tolerances=["1e-4", 1e-8],
        seeds=[0, 1],
        dtypes=["float64", "float32"],
    )
    cells = settings.cells()
    assert len(cells) == 2 * 3 * 2 * 2 * 2
    catalogue = Catalogue()
    identities = [cell.identity(catalogue) for cell in cells]
    assert len({identity["key"] for identity in identities}) == len(cells)
    assert {identity["dimension"] for identity in identities} == {10, 100}
    assert {identity["solver"] for identity in identities} == {
        "Anderson(memory=3)", "Anderson(memory=10)", "scipy:hybr",
    }  # fmt: skip
    # The same cell, written otherwise, has the same key.
    (again,) = study(
        problems=["broyden-tridiagonal"], solvers=["anderson[memory=3]"], tolerances=[1e-4]
    ).cells()
    assert again.identity(catalogue)["key"] == identities[0]["key"]


def test_a_gradient_mode_is_left_out_where_the_solver_cannot_serve_it() -> None:
    modes = {"problems": ["tanh-equilibrium"], "gradients": ["exact", "reuse-inverse"]}
    both = study(**modes, solvers=["broyden", "anderson"]).cells()
    assert [(cell.solver.name, cell.gradient and cell.gradient.name) for cell in both] == [
        ("broyden", "exact"), ("broyden", "reuse-inverse"), ("anderson", "exact"),
    ]  # fmt: skip
    with pytest.raises(StudyError, match="ReuseInverse needs a solver that learns an inverse"):
        study(**modes, solvers=["anderson"]).cells()


def test_every_limit_and_version_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from implicitly.studies import cell as cell_module

    def key(**fields: object) -> str:
        (only,) = study(**fields).cells()
        found: str = only.identity(Catalogue())["key"]
        return found

    first = key()
    assert key() == first
    different = [
        key(max_evaluations=99), key(time_limit=5), key(memory_limit=99), key(repeats=1),
        key(target="relative"), key(tolerances=[1e-7]), key(solvers=["newton[refresh=2]"]),
    ]  # fmt: skip
    monkeypatch.setattr(cell_module, "versions", lambda packages: {"torch": "another"})
    different.append(key())
    assert len({first, *different}) == 1 + len(different)


def test_gradient_modes_and_adjoint_solvers_multiply_only_where_both_apply() -> None:
    settings = study(
        problems=["tanh-equilibrium"],
        gradients=["exact", "jacobian-free", "neumann[terms=3,5]"],
        adjoint_solvers=["gmres", "dense-lu"],
    )
    pairs = [(cell.gradient, cell.adjoint) for cell in settings.cells()]
    assert [(mode.text, adjoint and adjoint.name) for mode, adjoint in pairs if mode] == [
        ("exact", "gmres"),
        ("exact", "dense-lu"),
        ("jacobian-free", None),
        ("neumann[terms=3]", None),
        ("neumann[terms=5]", None),
    ]


def test_a_configuration_is_written_and_read_as_the_same() -> None:
    settings = study(tolerances=[1e-4], seeds=[1, 2], repeats=3)
    assert from_text(as_text(settings)) == settings


def test_what_is_no_configuration_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no YAML"):
        from_text("a: [")
    with pytest.raises(StudyError, match="must hold fields"):
        from_text("3")
    with pytest.raises(StudyError, match="cannot be read"):
        load(tmp_path / "none.yaml")
    with pytest.raises(StudyError, match="the nearest is 'classical'"):
        load("clasical")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(StudyError, match="defines no `configuration`"):
        load(tmp_path / "empty.py")
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(StudyError, match="raised ZeroDivisionError"):
        load(tmp_path / "broken.py")


def test_a_folder_of_the_same_name_does_not_hide_a_study(tmp_path, monkeypatch) -> None:
    (tmp_path / "classical").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load("classical")[0].name == "classical"


@pytest.mark.parametrize("name", shipped())
def test_every_study_that_is_shipped_can_be_run(name: str) -> None:
    settings, _ = load(name)
    assert settings.name == name
    assert settings.description
    libraries = {solver.split(":")[0] for solver in settings.solvers if ":" in solver}
    if not all(map(importlib.util.find_spec, libraries)):
        with pytest.raises(StudyError, match=r"pip install 'implicitly\[peers\]'"):
            settings.cells()
        return
    assert settings.cells()


def test_solvers_are_written_with_what_is_not_their_default() -> None:
    assert written(implicitly.Broyden()) == "Broyden()"
    assert written(implicitly.Newton(globalisation=None)) == "Newton(globalisation=None)"
    catalogue = Catalogue()
    inner = Choice("newton-krylov", (("linear_solver", "bicgstab"),))
    assert catalogue.method(inner).label == "NewtonKrylov(linear_solver=BiCGStab())"
