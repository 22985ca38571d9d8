"""Ready to publish: whole archives, one version, addresses filled by one line, workflows that can run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import implicitly
import pytest
import yaml

ROOT = Path(__file__).parent.parent
NOT_SHIPPED = {"tests", "docs", "benchmarks", "examples"}
MADE = (
    ".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".pytest_cache", ".mypy_cache",
    ".ruff_cache", ".hypothesis",
)  # fmt: skip
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
Archives = tuple[set[str], set[str], str]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree without anything that was made from it."""
    folder = tmp_path_factory.mktemp("copy") / "implicitly"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*MADE))
    return folder


def files_of(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def archives(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Archives:
    """Files of the tree, and of a wheel built from its source distribution, and the wheel's metadata."""
    tree = files_of(copy)
    made = tmp_path_factory.mktemp("made")
    _build("sdist", copy, made)
    (source,) = made.glob("*.tar.gz")
    with tarfile.open(source) as opened:
        opened.extractall(made, filter="data")
    unpacked = made / source.name.removesuffix(".tar.gz")
    held = files_of(unpacked)
    _build("wheel", unpacked, made)
    (wheel,) = made.glob("*.whl")
    with zipfile.ZipFile(wheel) as zipped:
        (metadata,) = [name for name in zipped.namelist() if name.endswith("METADATA")]
        assert tree <= held, f"not in the source distribution: {sorted(tree - held)}"
        return tree, set(zipped.namelist()), zipped.read(metadata).decode()


def _build(kind: str, source: Path, into: Path) -> None:
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(into)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)


def test_a_wheel_from_the_source_distribution_has_every_package_and_data_file(
    archives: Archives,
) -> None:
    tree, wheel, _ = archives
    folders = {Path(file).parts[0] for file in tree if file.endswith("/__init__.py")} - NOT_SHIPPED
    wanted = {
        f"implicitly/{file}"
        for file in tree
        if Path(file).parts[0] in folders or file in ("__init__.py", "__main__.py", "py.typed")
    }
    shipped = {name for name in wheel if not name.startswith("implicitly-")}
    assert shipped == wanted
    assert {"implicitly/studies/shipped/quick.yaml", "implicitly/cli/app.py"} <= shipped


def test_the_version_is_written_once(archives: Archives) -> None:
    version = implicitly.__version__
    assert f"\nVersion: {version}\n" in archives[2]
    assert f'"{version}"' not in PROJECT
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == version
    assert {"cff-version", "message", "title", "authors", "license"} <= cited.keys()
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_one_line_fills_every_address(copy: Path) -> None:
    (line,) = re.findall(
        r"^grep -rlE .*$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    filled = copy.parent / "filled"
    shutil.copytree(copy, filled)
    (filled / "CONTRIBUTING.md").unlink()  # It holds the line itself.
    (filled / "tests" / Path(__file__).name).unlink()
    line = line.replace("ACCOUNT", "someone")
    subprocess.run(["bash", "-c", line], cwd=filled, check=True)
    for name in ("pyproject.toml", "mkdocs.yml", "CITATION.cff", "SECURITY.md"):
        assert "github.com/someone/implicitly" in (filled / name).read_text(encoding="utf-8"), name
    left = [
        file
        for file in files_of(filled)
        if re.search(rb"OWNER(/|\.github)", (filled / file).read_bytes())
    ]
    assert not left


# --- Extras --------------------------------------------------------------------------------------


def extras() -> dict[str, list[str]]:
    section = PROJECT.split("[project.optional-dependencies]")[1].split("\n[", 1)[0]
    found = re.findall(r"^(\w+) = \[(.*?)\]$", section, re.MULTILINE | re.DOTALL)
    return {name: re.findall(r'"([^"]+)"', packages) for name, packages in found}


def test_every_extra_is_in_the_table_of_the_documentation() -> None:
    page = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    table = re.findall(
        r"^\| `(\w+)` \|", page.split("## Extras")[1].split("\n## ")[0], re.MULTILINE
    )
    assert table == list(extras())


def test_the_extra_all_has_the_extras_that_users_need() -> None:
    (reference,) = extras()["all"]
    named = set(re.findall(r"\w+", reference)) - {"implicitly"}
    assert named == extras().keys() - {"all", "benchmarks", "peers", "docs", "development"}


# --- Workflows -----------------------------------------------------------------------------------


def steps_of(job: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = job["steps"]
    return found


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_has_events_and_jobs_whose_steps_can_run(file: Path) -> None:
    # YAML 1.1 reads the key `on` as true.
    workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert workflow[True]
    assert workflow["permissions"]["contents"] == "read"
    targets = re.findall(
        r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    for job in workflow["jobs"].values():
        assert job["runs-on"] == "ubuntu-latest"
        assert set(job.get("needs", "").split()) <= workflow["jobs"].keys()
        for step in steps_of(job):
            assert ("run" in step) != ("uses" in step)
            if "uses" in step:
                assert re.fullmatch(r"(actions|pypa)/[\w-]+@(v\d+|release/v1)", step["uses"])
            for target in re.findall(r"\bmake ([\w-]+)", step.get("run", "")):
                assert target in targets
            for path in re.findall(r"\bpython ((?:\w+/)+\w+\.py)", step.get("run", "")):
                assert (ROOT / path).is_file()


def test_tests_run_on_every_python_that_the_project_names() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    classified = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PROJECT)
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == classified
    assert f'requires-python = ">={classified[0]}"' in PROJECT


@pytest.mark.parametrize("name", ["bug", "idea"])
def test_an_issue_form_has_fields_with_names_of_their_own(name: str) -> None:
    form = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{name}.yml").read_text(encoding="utf-8"))
    assert form["name"]
    assert form["description"]
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids)
    for field in form["body"]:
        assert field["type"] in ("textarea", "input", "dropdown", "markdown", "checkboxes")
        assert field["attributes"]["label"]


def test_hooks_before_a_commit_have_the_linter_of_the_project() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (pinned,) = re.findall(
        r"^ruff==.*$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    found = {hook["id"]: hook for repository in hooks["repos"] for hook in repository["hooks"]}
    for name in ("ruff-check", "ruff-format"):
        assert found[name]["additional_dependencies"] == [pinned]
    assert (ROOT / found["words"]["entry"].split()[1]).is_file()
