"""Catalogue of the problems, solvers and gradient modes that a study can name."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from .. import solvers
from ..implicit import gradients
from ..implicit.gradients import Exact, Gradient
from ..options.naming import public_kinds
from ..problems import TestProblem
from ..problems import get as problem_called
from ..problems import names as problem_names
from ..problems.registry import unknown
from ..solvers import Globalisation, Solver
from .building import build
from .columns import said
from .errors import StudyError
from .methods.alone import Alone, Library
from .methods.jax_peers import JAXOPT, OPTIMISTIX
from .methods.method import Method
from .methods.native import ADAPTED, Native
from .methods.scipy_alone import SCIPY
from .methods.torch_peers import TORCHDEQ, XITORCH
from .row import Family
from .selection import Choice, Names

# Tags of the package's solvers: its own, adapters to other libraries, linear ones.
NATIVE, ADAPTER, LINEAR = "native", "adapter", "linear"


_SOLVERS: dict[str, type[Solver]] = public_kinds(solvers, Solver)
_PARTS: dict[str, type] = {**_SOLVERS, **public_kinds(solvers, Globalisation)}
_LIST_SOLVERS = "implicitly study list --solvers"
_LIBRARIES: tuple[Library, ...] = (SCIPY, TORCHDEQ, XITORCH, JAXOPT, OPTIMISTIX)
_MODES: dict[str, type[Gradient]] = public_kinds(gradients, Gradient)


@dataclass(frozen=True)
class Catalogue:
    """Names that can be chosen, with those that a user's file adds.

    Attributes:
        own: The user's file, which registers problems and may have `solvers`, a dictionary from names to
            solvers of this package or to methods.

    Raises:
        StudyError: The file cannot be run, or its `solvers` are not solvers.
    """

    own: str | None = None
    _built: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        _ = self.module  # Registers its problems.

    @cached_property
    def _run(self) -> _Own | None:
        return None if self.own is None else _run(Path(self.own))

    @property
    def module(self) -> ModuleType | None:
        """The user's file as a module."""
        return None if self._run is None else self._run.module

    @property
    def digest(self) -> str | None:
        """Digest of the user's file as it was run."""
        return None if self._run is None else self._run.digest

    @cached_property
    def _own_solvers(self) -> dict[str, Solver | Method]:
        found = getattr(self.module, "solvers", {}) if self.module else {}
        if isinstance(found, ModuleType):  # `from implicitly import solvers`
            return {}
        if not isinstance(found, Mapping):
            raise StudyError(f"solvers of {self.own} must be a dictionary, got {found!r}")
        for name, solver in found.items():
            if not isinstance(solver, Solver) and not hasattr(solver, "solve"):
                raise StudyError(
                    f"solvers[{name!r}] of {self.own} must be a Solver or have solve(equation), "
                    f"got {solver!r}"
                )
            if not isinstance(solver, Solver):
                _check_method(f"solvers[{name!r}] of {self.own}", solver)
        return dict(found)

    @property
    def problems(self) -> Names:
        """Names of problems."""
        return Names("problem", problem_names(), problem_names, "implicitly study list --problems")

    @property
    def solvers(self) -> Names:
        """Names of solvers."""
        return Names("solver", list(self._solver_tags), self._tagged, _LIST_SOLVERS)

    @property
    def gradients(self) -> Names:
        """Names of gradient modes."""
        return Names("gradient mode", list(_MODES), lambda tag: ())

    def parameters(self, name: str) -> list[str]:
        """Names of a problem's parameters, with its size `n` first."""
        fields = dataclasses.fields(problem_called(name))
        return ["n", *(parameter.name for parameter in fields if parameter.init)]

    def problem(self, choice: Choice, seed: int) -> tuple[TestProblem, int]:
        """A problem and its size; a generated problem is drawn from `seed`.

        Raises:
            StudyError: No such parameter (the nearest is named), or a value is out of range.
        """

        def make(catalogue: Catalogue) -> tuple[TestProblem, int]:
            kind = type(problem_called(choice.name))
            options = tuple((name, value) for name, value in choice.options if name != "n")
            sizes: list[Any] = [value for name, value in choice.options if name == "n"]
            if "seed" in self.parameters(choice.name) and "seed" not in dict(options):
                options = (*options, ("seed", seed))
            problem: TestProblem = build(kind, Choice(choice.name, options), {})
            try:
                return problem, problem.size(*sizes)
            except ValueError as error:
                raise StudyError(f"{choice.text}: {error}") from error

        return self.once(("problem", choice, seed), make)

    def method(
        self, choice: Choice, gradient: Choice | None = None, adjoint: Choice | None = None
    ) -> Method:
        """A method: a solver of this package, or another library.

        Raises:
            StudyError: No such option (the nearest is named), a value out of range, or a gradient is
                requested from a method without gradients.
        """

        def make(catalogue: Catalogue) -> Method:
            method = self._method(choice)
            if gradient is None:
                return method
            if not isinstance(method, Native):
                raise StudyError(f"{choice.text} gives no gradients: leave it or gradients out")
            return dataclasses.replace(method, gradient=self.mode(gradient, adjoint))

        return self.once(("method", choice, gradient, adjoint), make)

    def mode(self, choice: Choice, adjoint: Choice | None = None) -> Gradient:
        """A gradient mode.

        Raises:
            StudyError: No such option, or an adjoint solver for a mode that solves no equation.
        """
        mode: Gradient = build(_MODES[choice.name], choice, _PARTS)
        if adjoint is None:
            return mode
        if not isinstance(mode, Exact):
            raise StudyError(f"adjoint solvers are for the mode 'exact', not for {choice.text!r}")
        return dataclasses.replace(mode, solver=self.solver(adjoint))

    def solver(self, choice: Choice) -> Solver:
        """A solver of this package.

        Raises:
            StudyError: The choice is not a solver of this package, or its options are wrong.
        """
        method = self._method(choice)
        if not isinstance(method, Native):
            raise StudyError(f"{choice.text} is no solver of this package")
        return method.solver

    def _method(self, choice: Choice) -> Method:
        own = self._own_solvers.get(choice.name)
        if own is not None:
            if choice.options:
                raise StudyError(f"{choice.text}: {self.own} gives this solver its options")
            return Native(own, name=choice.name) if isinstance(own, Solver) else own
        if choice.name in _SOLVERS:
            return Native(build(_SOLVERS[choice.name], choice, _PARTS))
        library = choice.name.split(":")[0]
        if importlib.util.find_spec(library) is None:
            raise StudyError(
                f"{choice.name} needs {library}, which is not installed: pip install 'implicitly[peers]'"
            )
        return self._libraries[choice.name](dict(choice.options))

    @cached_property
    def _libraries(self) -> dict[str, Callable[[dict[str, Any]], Method]]:
        """Methods of other libraries by name."""
        return {
            f"{library.name}:{name}": partial(Alone, library, name)
            for library in _LIBRARIES
            for name in library.methods
        }

    @cached_property
    def _solver_tags(self) -> dict[str, str]:
        tags = dict.fromkeys(self._own_solvers, "own")
        for name, kind in _SOLVERS.items():
            adapted = kind.__name__ in ADAPTED
            tags[name] = ADAPTER if adapted else LINEAR if kind.linear_only else NATIVE
        return tags | {name: name.split(":")[0] for name in self._libraries}

    def _tagged(self, tag: str) -> Sequence[str]:
        found = [name for name, given in self._solver_tags.items() if given == tag]
        if not found:
            unknown("tag of solvers", tag, set(self._solver_tags.values()), _LIST_SOLVERS)
        return found

    def once(self, key: Any, make: Callable[[Catalogue], Any]) -> Any:
        """The value of `make`, which is kept: many cells share problems and methods."""
        if key not in self._built:
            self._built[key] = make(self)
        return self._built[key]


def _check_method(where: str, method: Any) -> None:
    """Raise a `StudyError` unless a method has what rows need to know of it."""
    label, family, packages = (
        getattr(method, name, None) for name in ("label", "family", "packages")
    )
    if not isinstance(label, str) or not label:
        raise StudyError(f"{where} must have a label, which is some text, got {label!r}")
    if family not in get_args(Family):
        listed = ", ".join(get_args(Family))
        raise StudyError(f"{where} must have a family, one of {listed}, got {family!r}")
    if not isinstance(packages, (tuple, list)) or not all(isinstance(p, str) for p in packages):
        raise StudyError(f"{where} must have packages, a tuple of names, got {packages!r}")


@dataclass(frozen=True)
class _Own:
    """A user's file that has been run.

    Attributes:
        file: Its path.
        digest: Digest of its content.
        module: The module.
    """

    file: str
    digest: str
    module: ModuleType


# The file that was run last in this process: problems of equal names are those of this one.
_LAST: list[_Own] = []


def _run(file: Path) -> _Own:
    """A file as a module; it is run again if it has changed, or if another one has been run since.

    Its content is compiled here, since Python's cache of compiled files compares times and sizes alone.
    """
    try:
        if not file.is_file():
            raise StudyError(f"{file} is no Python file that can be read")
        content = file.read_bytes()
    except OSError as error:
        raise StudyError(f"{file} cannot be read: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    if _LAST and (_LAST[0].file, _LAST[0].digest) == (str(file), digest):
        return _LAST[0]
    name = f"implicitly_study_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None:
        raise StudyError(f"{file} is no Python file that can be read")
    module = importlib.util.module_from_spec(spec)
    _LAST.clear()
    sys.modules[name] = module
    try:
        exec(compile(content, str(file), "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[name]
        raise StudyError(f"{file} raised {said(error)}") from error
    _LAST.append(_Own(str(file), digest, module))
    return _LAST[0]
