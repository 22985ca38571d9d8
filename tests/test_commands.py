"""The command as a whole: its forms, its help, completion, and a plain installation."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from implicitly import __version__
from implicitly.cli.app import app
from implicitly.cli.extras import MODULES

ROOT = Path(__file__).parent.parent
# Typer imports pydantic itself.
HIDDEN = sorted({name for names in MODULES.values() for name in names} - {"pydantic"})
LAYER = """
import torch

def make():
    return torch.sin, torch.ones(2, dtype=torch.float64, requires_grad=True)
"""
CALLS = """
import sys
for name in {hidden}:
    sys.modules[name] = None
from implicitly.cli.app import app
from typer.testing import CliRunner
for line in {lines}:
    result = CliRunner().invoke(app, line.split(), env={{"COLUMNS": "200"}})
    unexpected = result.exception and not isinstance(result.exception, SystemExit)
    print("==", line, "==", result.exit_code, repr(result.exception) if unexpected else "")
    print(result.output)
"""


def without_extras(lines: list[str], folder: Path) -> dict[str, tuple[int, str]]:
    """Exit status and output of each line, called where the extras are not installed."""
    ran = subprocess.run(
        [sys.executable, "-c", CALLS.format(hidden=HIDDEN, lines=lines)],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    parts = re.split(r"^== (.*) == (\d+) (.*)$", ran.stdout, flags=re.MULTILINE)[1:]
    found = {}
    for line, status, exception, output in zip(*(parts[k::4] for k in range(4)), strict=True):
        assert not exception, f"{line} raised {exception}"
        assert "Traceback" not in output
        found[line] = int(status), " ".join(output.split())
    return found


def test_the_package_runs_as_a_module() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "implicitly", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == f"implicitly {__version__}"


def test_the_shell_completes_names_of_studies() -> None:
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.argv = ['implicitly']; from implicitly.cli import main; main()",
        ],
        env={
            "_IMPLICITLY_COMPLETE": "complete_bash",
            "COMP_WORDS": "implicitly study run qu",
            "COMP_CWORD": "3",
            "PYTHONPATH": str(Path(sys.modules["implicitly"].__path__[0]).parent),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.split() == ["quick"], ran.stderr


def every_help(command: object, path: str = "implicitly") -> Iterator[tuple[str, str]]:
    """Help texts of a command, its parameters and its subcommands, with their places."""
    yield path, getattr(command, "help", None) or ""
    for parameter in command.params:  # type: ignore[attr-defined]
        yield f"{path} {parameter.name}", getattr(parameter, "help", None) or ""
    for name, inner in getattr(command, "commands", {}).items():
        yield from every_help(inner, f"{path} {name}")


def test_help_is_in_whole_sentences() -> None:
    for place, text in every_help(typer.main.get_command(app)):
        assert re.match(r"[A-Z]", text), f"{place}: {text!r}"
        assert text.rstrip().endswith("."), f"{place}: {text!r}"


@pytest.mark.parametrize("extra", MODULES)
def test_the_modules_of_an_extra_are_those_that_are_installed_with_it(extra: str) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (line,) = re.findall(rf"^{extra} = \[(.*)\]$", project, re.MULTILINE)
    packages = re.findall(r'"([a-z-]+)', line)
    imported = {"pyyaml": "yaml"}
    assert sorted(MODULES[extra]) == sorted(imported.get(name, name) for name in packages)


def test_a_plain_installation_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "layer.py").write_text(LAYER, encoding="utf-8")
    (tmp_path / "build" / "studies").mkdir(parents=True)
    studies = [
        "study list", "study run quick", "study resume quick", "study status", "study report quick",
        "study compare quick quick", "study export quick rows.csv",
    ]  # fmt: skip
    models = ["train character", "evaluate ."]
    verify = "verify layer.py:make --html page.html --junit tests.xml --json report.json"
    found = without_extras([*studies, *models, verify], tmp_path)
    for lines, extra in ((studies, "studies"), (models, "models")):
        for line in lines:
            status, said = found[line]
            assert status == 2, line
            hint = f"pip install 'implicitly[{extra}]'"
            assert hint in said or "there is no store" in said or "has no study" in said, (
                line,
                said,
            )
    assert all("pip install" in found[line][1] for line in (studies[0], studies[1], *models))
    assert found[verify][0] == 0
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.long
def test_a_plain_installation_has_a_demonstration(tmp_path: Path) -> None:
    status, said = without_extras(["demo --fast"], tmp_path)["demo --fast"]
    assert status == 0
    assert all(f"pip install 'implicitly[{extra}]'" in said for extra in MODULES)
    assert "All checks passed" in said
