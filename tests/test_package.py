"""What is shipped, who may import whom, and that a solver from outside is as good as any."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import implicitly
import numpy as np
import pytest
import torch
from implicitly import Exact, Solver, fixed_point, root
from implicitly.solvers import Problem
from torch import Tensor

ROOT = Path(__file__).parent.parent
NOT_SHIPPED = {"tests", "docs", "benchmarks", "examples", "build", "dist"}


def project_text() -> str:
    return (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_every_package_of_the_root_is_listed_for_shipping() -> None:
    found = {
        ".".join(("implicitly", *init.parent.relative_to(ROOT).parts))
        for init in ROOT.rglob("__init__.py")
        if not NOT_SHIPPED & set(init.relative_to(ROOT).parts)
        and not any(part.startswith(".") for part in init.relative_to(ROOT).parts)
    }
    entries = project_text().split("packages = [", 1)[1].split("]", 1)[0]
    listed = {entry.strip().strip('"') for entry in entries.split(",") if entry.strip()}
    assert found == listed


def test_types_are_shipped() -> None:
    assert (ROOT / "py.typed").exists()
    assert (Path(implicitly.__file__).parent / "py.typed").exists()
    assert 'implicitly = ["py.typed"]' in project_text()


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports, relative ones resolved within the package."""
    here = ("implicitly", *path.relative_to(ROOT).parent.parts)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else ()
            module = ".".join((*base, *((node.module or "").split("."))))
            found |= {f"{module}.{alias.name}".replace("..", ".") for alias in node.names}
            if node.module:  # `from .. import solvers` imports the folder alone.
                found.add(module)
    return found


# Dependencies point one way; a folder may import itself and these.
ALLOWED = {
    "options": (),
    "files": (),
    "solvers": ("options",),
    "implicit": ("solvers", "options"),
    "problems": ("implicit", "solvers", "options"),
    "models": ("implicit", "solvers", "options", "files"),
    "verification": ("problems", "implicit", "solvers", "options"),
    "studies": ("verification", "problems", "implicit", "solvers", "options", "files"),
}


@pytest.mark.parametrize("folder", ALLOWED)
def test_dependencies_point_one_way(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        own = {name for name in imports_of(path) if name.split(".")[0] == "implicitly"}
        allowed = tuple(f"implicitly.{name}" for name in (folder, *ALLOWED[folder]))
        wrong = {name for name in own if not name.startswith(allowed)}
        assert not wrong, f"{path.name} imports {wrong}"


def test_no_import_goes_round_not_even_for_types() -> None:
    modules = {
        ".".join(("implicitly", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path
        for folder in (*ALLOWED, "cli")
        for path in (ROOT / folder).rglob("*.py")
    }
    imports = {
        name: {other for other in imports_of(path) if other in modules and other != name}
        for name, path in modules.items()
        # A package's face hands names on: it imports its parts, which do not need it.
        if path.name != "__init__.py"
    }
    while leaves := [name for name, found in imports.items() if not found & imports.keys()]:
        for name in leaves:
            del imports[name]
    assert not imports, f"these import each other: {sorted(imports)}"


@pytest.mark.parametrize(
    ("idea", "home"),
    [
        ("the threshold", "def threshold(rtol"),
        ("the root mean square", "def rms("),
        ("the slowest progress", "SLOWEST_PROGRESS ="),
        ("the rounding level", "LEVEL_UNITS"),
        ("the coarsest dtype", "def coarsest("),
        ("the mapped axis in front", "def in_front("),
        ("a status is written", "self.status[which] = status"),
    ],
)
def test_an_idea_is_defined_once(idea: str, home: str) -> None:
    places = [
        path
        for folder in ("options", "solvers", "implicit")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(rf"^\s*(\w+, )?{re.escape(home)}", path.read_text(encoding="utf-8"), re.M)
    ]
    assert len(places) == 1, f"{idea}: {places}"


def test_solvers_know_nothing_of_autograd() -> None:
    for path in (ROOT / "solvers").rglob("*.py"):
        for name in imports_of(path):
            assert not name.startswith(("torch.autograd", "torch.func", "torch._functorch")), (
                path.name
            )
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                text = ast.unparse(node)
                assert not text.startswith(("torch.autograd", "torch.func.")), path.name
                assert node.attr not in {"backward", "requires_grad_", "grad_fn"}, path.name


# --- A solver from outside -----------------------------------------------------------------------


@dataclass
class HalvedState:
    z: Tensor
    residual: Tensor


@dataclass(frozen=True)
class Halved(Solver):
    """Steps of half the residual: all that a solver has to say."""

    share: float = 0.5

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> HalvedState:
        return HalvedState(z, residual)

    def step(self, problem: Problem, state: HalvedState) -> HalvedState:
        z = state.z + self.share * state.residual
        return HalvedState(z, problem.residual(z))


def contraction(z: Tensor, x: Tensor) -> Tensor:
    return 0.5 * torch.cos(z) + x


def answer_and_slope(x: Any) -> tuple[Any, Any]:
    """The fixed point by Newton, and its derivative `1 / (1 + sin(z) / 2)`."""
    z = x.copy()
    for _ in range(50):
        z = z - (0.5 * np.cos(z) + x - z) / (-0.5 * np.sin(z) - 1)
    return z, 1 / (1 + 0.5 * np.sin(z))


@pytest.mark.parametrize("form", ["fixed_point", "root"])
def test_a_solver_from_outside_works_forward_and_as_adjoint(form: str) -> None:
    x = torch.linspace(-1, 1, 5, dtype=torch.float64, requires_grad=True)
    z0 = torch.zeros(5, dtype=torch.float64)
    gradient = Exact(solver=Halved(share=0.7))
    if form == "fixed_point":
        solution = fixed_point(contraction, z0, x, solver=Halved(), gradient=gradient, batch_dims=1)
    else:
        solution = root(
            lambda z, x: z - contraction(z, x), z0, x, solver=Halved(), gradient=gradient,
            batch_dims=1,
        )  # fmt: skip
    solution.value.sum().backward()
    answer, slope = answer_and_slope(x.detach().numpy())
    # Tolerance 1e-10 of norms below 2, over 1 − 1/2.
    np.testing.assert_allclose(solution.value.detach().numpy(), answer, rtol=0, atol=4e-10)
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), slope, rtol=0, atol=1e-8)
    (adjoint,) = solution.adjoints
    assert bool(adjoint.converged.all())
    assert int(adjoint.steps.max()) > 5


def test_a_solver_from_outside_has_options_like_any_other() -> None:
    with pytest.raises(TypeError, match="Halved has no option 'shares'; did you mean 'share'"):
        Halved(shares=0.5)  # type: ignore[call-arg]


def test_a_solver_from_outside_has_status_steps_and_best_iterate_from_the_driver() -> None:
    slope = torch.tensor([0.0, 5.0], dtype=torch.float64)
    solution = fixed_point(
        lambda z: slope * z + 1, torch.zeros(2, dtype=torch.float64), solver=Halved(),
        batch_dims=1, on_failure="accept",
    )  # fmt: skip
    # The residual halves in each step: 2^-33 is the first power below 1e-10; or it grows by 3.
    assert solution.steps.tolist() == [34, 21] or solution.steps.tolist() == [33, 21]
    assert solution.value[1].item() == 0.0


def test_the_help_of_the_command_does_not_wait_for_torch() -> None:
    code = (
        "import sys, implicitly.cli.app as cli, typer\n"
        "typer.main.get_command(cli.app)(['--help'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_names_of_the_package_are_listed_and_an_unknown_one_is_an_error() -> None:
    assert set(implicitly.__all__) <= set(dir(implicitly))
    assert all(hasattr(implicitly, name) for name in implicitly.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Andersen'"):
        _ = implicitly.Andersen
