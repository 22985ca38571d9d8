"""`implicitly study ...`: each command on a small study, its output and its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
from implicitly import studies
from implicitly.cli.app import app
from typer.testing import CliRunner, Result

SMALL = """
name: small
problems: [boggs, powell-singular]
solvers: [newton, "scipy:hybr", "anderson[memory=2,3]"]
tolerances: [1e-6]
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["study", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration, and the store of its study."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "small.yaml").write_text(SMALL, encoding="utf-8")
    result = call("run", folder / "small.yaml", "--store", folder / "store")
    assert result.exit_code == 0, result.output
    assert "8 cells run now, 8 in all" in result.output
    return folder


def test_a_study_that_has_ended_is_not_run_again(folder: Path) -> None:
    for again in (("run", folder / "small.yaml"), ("resume", "small")):
        result = call(*again, "--store", folder / "store")
        assert result.exit_code == 0
        assert "0 cells run now, 8 in all" in result.output


def test_status_counts_the_outcomes_of_the_rows(folder: Path) -> None:
    result = call("status", "--store", folder / "store")
    solved = (studies.Store(folder / "store").rows("small")["outcome"] == "solved").sum()
    (line,) = [line for line in result.output.splitlines() if line.startswith(" small")]
    assert line.split()[:4] == ["small", "8", "0", str(solved)]


def test_a_report_is_a_page_and_tables(folder: Path) -> None:
    result = call("report", "small", "--store", folder / "store", "--output", folder / "report")
    assert result.exit_code == 0, result.output
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "implicitly study resume small --store store" in page
    assert str(folder) not in page  # A page is handed to others.
    assert (folder / "report" / "tables" / "solved.csv").exists()
    only = call("report", "small", "--store", folder / "store", "-o", folder / "csv", "-f", "csv")
    assert only.exit_code == 0
    assert not (folder / "csv" / "report.html").exists()


def test_rows_are_exported_for_benchopt(folder: Path) -> None:
    file = folder / "curves.parquet"
    result = call("export", "small", file, "--layout", "benchopt", "--store", folder / "store")
    assert result.exit_code == 0
    points = pandas.read_parquet(file)
    rows = studies.Store(folder / "store").rows("small")
    assert points["objective_solved"].notna().sum() == len(rows)


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_exported_rows_are_those_of_the_store(folder: Path, ending: str) -> None:
    file = folder / "out" / f"rows.{ending}"
    assert call("export", "small", file, "--store", folder / "store").exit_code == 0
    if ending == "json":
        keys = [row["key"] for row in json.loads(file.read_text(encoding="utf-8"))]
    else:
        read = pandas.read_csv if ending == "csv" else pandas.read_parquet
        keys = list(read(file)["key"])
    assert keys == list(studies.Store(folder / "store").rows("small")["key"])


def test_a_study_compared_with_itself_differs_in_nothing(folder: Path) -> None:
    result = call("compare", "small", f"{folder / 'store'}:small", "--store", folder / "store")
    assert result.exit_code == 0, result.output
    assert "small" in result.output


def test_status_in_a_narrow_terminal_cuts_no_name(tmp_path: Path) -> None:
    name = "a-study-whose-name-is-wider-than-the-terminal"
    (tmp_path / "one.yaml").write_text(
        f"{{name: {name}, problems: [boggs], solvers: [newton]}}", encoding="utf-8"
    )
    store = str(tmp_path / "store")
    assert call("run", tmp_path / "one.yaml", "--store", store).exit_code == 0
    narrow = CliRunner().invoke(app, ["study", "status", "--store", store], env={"COLUMNS": "40"})
    assert narrow.exit_code == 0
    assert narrow.output.splitlines() == [name, "  1 cells, 0 left: 1 solved"]


@pytest.mark.parametrize("columns", [40, 200])
def test_shipped_studies_are_listed_with_their_minutes_at_any_width(columns: int) -> None:
    listed = CliRunner().invoke(app, ["study", "list"], env={"COLUMNS": str(columns)}).output
    for name in studies.shipped():
        minutes = studies.load(name)[0].minutes
        assert minutes is not None
        (line,) = [line for line in listed.splitlines() if line.startswith(f" {name} ")]
        assert line.split()[2] == f"{minutes:g}"


def test_what_can_be_named_is_listed() -> None:
    assert "classical" in call("list").output
    assert "powell-singular" in call("list", "--problems").output.splitlines()
    assert "newton-krylov" in call("list", "--solvers").output.splitlines()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "classicl"), "the nearest is 'classical'"),
        (("report", "smal"), "has no study 'smal'; it has: small"),
        (("resume", "smal"), "has no study 'smal'; it has: small"),
        (("export", "small", "rows.txt"), "must end in .csv, .json, .parquet"),
        (("compare", "small", "other"), "has no study 'other'"),
    ],
)
def test_a_fault_is_one_line_and_exit_status_2(
    folder: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = call(*arguments, "--store", folder / "store")
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output


def test_a_store_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    result = call("status", "--store", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "nowhere" in result.output


def test_help_does_not_wait_for_what_a_study_needs() -> None:
    code = (
        "import sys, implicitly.cli.app as cli, typer\n"
        "typer.main.get_command(cli.app)(['study', 'run', '--help'], standalone_mode=False)\n"
        "assert not {'torch', 'pandas', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_an_unknown_name_leaves_no_folder_and_no_bar_and_says_where_all_are(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(SMALL.replace("newton,", "newtn,"), encoding="utf-8")
    result = call("run", file, "--store", tmp_path / "store")
    assert result.exit_code == 2
    assert "no solver is called 'newtn'; the nearest is 'newton'" in result.output
    assert "`implicitly study list --solvers` names all" in result.output
    assert "0:00:00" not in result.output
    assert not (tmp_path / "store").exists()
