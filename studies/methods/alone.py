"""Methods of other libraries by themselves, on the study's function, counted and checked from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ...options.text import Value
from ..row import Family
from .equation import StudyEquation
from .method import Attempt

Solve = Callable[[str, Mapping[str, Value], StudyEquation], Attempt]


@dataclass(frozen=True)
class Library:
    """Another library.

    Attributes:
        name: Its name, by which it is imported.
        methods: Names of its methods.
        solve: Applies a method with further options to an equation.
        packages: Distributions whose versions matter.
        family: Kind of its methods.
    """

    name: str
    methods: tuple[str, ...]
    solve: Solve
    packages: tuple[str, ...]
    family: Family = "peer"


@dataclass(frozen=True)
class Alone:
    """A method of a library.

    Attributes:
        library: The library.
        method: The name of the method.
        options: Further options of it.
    """

    library: Library
    method: str
    options: Mapping[str, Value] = field(default_factory=dict)

    @property
    def label(self) -> str:
        name = f"{self.library.name}:{self.method}"
        if not self.options:
            return name
        return f"{name}({', '.join(f'{key}={value!r}' for key, value in self.options.items())})"

    @property
    def family(self) -> Family:
        return self.library.family

    @property
    def packages(self) -> tuple[str, ...]:
        return self.library.packages

    def solve(self, equation: StudyEquation) -> Attempt:
        return self.library.solve(self.method, self.options, equation)
