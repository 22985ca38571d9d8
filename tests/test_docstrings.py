"""Every example in a docstring runs, and every public name has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from types import ModuleType

import implicitly
import implicitly.problems
import implicitly.solvers
import implicitly.verification
import pytest
import torch
from implicitly import Solver


def shipped_modules() -> list[str]:
    """Every module of the package; folders without `__init__.py` (tests, docs) are not part of it."""
    found = pkgutil.walk_packages(implicitly.__path__, "implicitly.")
    return ["implicitly", *(module.name for module in found if "__main__" not in module.name)]


@pytest.mark.usefixtures("shared_processes")
@pytest.mark.parametrize("name", shipped_modules())
def test_the_examples_of_a_module_give_what_they_say(name: str) -> None:
    module = importlib.import_module(name)
    names = {**vars(module), "torch": torch, "implicitly": implicitly}
    torch.manual_seed(0)
    results = doctest.testmod(module, globs=names, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (implicitly, implicitly.solvers, implicitly.problems, implicitly.verification)
    for name in module.__all__
}
CLASSES_AND_FUNCTIONS = {
    name: value
    for name, value in PUBLIC.items()
    if inspect.isclass(value) or inspect.isfunction(value)
}


@pytest.mark.parametrize("name", CLASSES_AND_FUNCTIONS)
def test_a_public_name_says_what_it_is_and_shows_it(name: str) -> None:
    value = CLASSES_AND_FUNCTIONS[name]
    text = inspect.getdoc(value) or ""
    assert text, f"{name} has no docstring"
    # A dataclass without one would show its signature.
    assert not text.startswith(f"{value.__name__}(")
    if inspect.isabstract(value) or getattr(value, "_is_protocol", False):
        return  # What cannot be made has nothing to run.
    if issubclass_of(value, Exception):
        return
    assert ">>> " in text, f"{name} has no example"


def issubclass_of(value: object, kind: type) -> bool:
    return inspect.isclass(value) and issubclass(value, kind)


@pytest.mark.parametrize(
    "name", [name for name, value in PUBLIC.items() if issubclass_of(value, Solver)]
)
def test_a_solver_names_its_source(name: str) -> None:
    solver = PUBLIC[name]
    if inspect.isabstract(solver):
        return
    text = inspect.getdoc(solver) or ""
    assert "Source: " in text
    # Somebody, and a year.
    assert any(
        word.strip("(),;.").isdigit() and len(word.strip("(),;.")) == 4 for word in text.split()
    )


@pytest.mark.parametrize("module", [implicitly, implicitly.solvers], ids=lambda m: m.__name__)
def test_the_public_names_exist_once_and_in_order(module: ModuleType) -> None:
    names = list(module.__all__)
    assert len(names) == len(set(names))
    assert all(hasattr(module, name) for name in names)
    # As the linter orders them: constants, classes, functions.
    assert names == sorted(names, key=lambda n: (not n.isupper(), not n[0].isupper(), n))


@pytest.mark.parametrize("name", shipped_modules())
def test_sections_of_examples_are_named_as_the_reference_reads_them(name: str) -> None:
    # Under "Example:" the reference would set doctests as prose and take their lists for links.
    source = inspect.getsource(importlib.import_module(name))
    assert not re.search(r"^\s+Example:\s*$", source, flags=re.MULTILINE)
