"""Numba, torchdiffeq and SciPy: where one is missing or broken, all that does not need it works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HIDE = "sys.modules[{library!r}] = None"
TRIES = """
import json, sys
{missing}
import implicitly as im
assert "torch" not in sys.modules, "import implicitly has imported torch"
import torch

def z(n=3):
    return torch.zeros(n, dtype=torch.float64)

def solved(solver=None, gradient=None):
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    f = lambda z, x: 0.5 * torch.cos(z) + x
    im.fixed_point(f, z(), x, solver=solver, gradient=gradient).value.sum().backward()
    assert x.grad.isfinite().all()

def compiled(z, parameters, out):
    out[0] = z[0] - 1

def main():
    from implicitly.cli import main as command
    sys.argv = ["implicitly", "verify", "torch:sin"]
    command()

TRIED = {{
    "root": lambda: im.root(lambda z: z**2 - 2, z() + 1),
    "minimise": lambda: im.minimise(lambda z: (z**4 - z).sum(), z() + 1),
    "sweep": lambda: im.sweep(lambda z, p: z**3 + z - p, z(1), [0.0, 1.0]),
    "problems": lambda: im.problems.get("boggs"),
    "verify": lambda: im.verification.verify(torch.sin, (z() + 1).requires_grad_()),
    "command": main,
    "NumbaEquation": lambda: im.NumbaEquation(compiled, n=1),
    "SparseLU": lambda: solved(gradient=im.Exact(solver=im.SparseLU())),
    **{{
        name: lambda name=name: solved(getattr(im, name)())
        for name in (
            "Anderson", "Broyden", "Newton", "NewtonKrylov", "LevenbergMarquardt", "PseudoTransient",
            "Polyalgorithm", "ScipyRoot", "SteadyState",
        )
    }},
}}
said = {{}}
for name, tried in TRIED.items():
    try:
        tried()
        said[name] = ""
    except (ImportError, SystemExit) as error:
        said[name] = str(error)
print(json.dumps(said))
"""
NEEDS = {
    "numba": {"NumbaEquation", "SparseLU"},
    "torchdiffeq": {"SteadyState"},
    # torchdiffeq needs SciPy itself.
    "scipy": {"ScipyRoot", "SparseLU", "SteadyState", "problems", "verify", "command"},
}


def tried(missing: str, path: Path | None = None) -> tuple[dict[str, str], str]:
    """Errors of everything that is tried, by name, and what is written to stderr."""
    before = "" if path is None else f"sys.path.insert(0, {str(path)!r})"
    ran = subprocess.run(
        [sys.executable, "-c", TRIES.format(missing=missing or before)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, str] = json.loads(ran.stdout.splitlines()[-1])
    return found, ran.stderr


LONG = [pytest.param(library, marks=pytest.mark.long) for library in ("numba", "torchdiffeq")]


@pytest.mark.parametrize("library", ["scipy", *LONG])
def test_only_that_which_needs_a_missing_library_fails_and_says_how_to_install_it(
    library: str,
) -> None:
    said, written = tried(HIDE.format(library=library))
    failed = {name: text for name, text in said.items() if text not in ("", "0")}
    assert failed.keys() == NEEDS[library] | ({"command"} & failed.keys())
    for name in NEEDS[library] - {"command"}:
        assert failed[name].endswith(
            f"needs {library}, which is not installed: pip install {library}"
        )
    if library == "scipy":
        assert failed["command"] == "2"
        assert "Error: " in written
        assert "pip install scipy" in written
        assert "Traceback" not in written


def test_a_broken_library_is_named_with_its_own_error(tmp_path: Path) -> None:
    broken = tmp_path / "numba"
    broken.mkdir()
    text = "Numba needs NumPy 2.3 or less"
    (broken / "__init__.py").write_text(f"raise ImportError({text!r})", encoding="utf-8")
    said, _ = tried("", tmp_path)
    assert {name for name, error in said.items() if error} - {"command"} == NEEDS["numba"]
    assert (
        f"cannot be imported (ImportError: {text}): pip install --force-reinstall numba"
        in (said["NumbaEquation"])
    )
