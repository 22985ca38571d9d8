"""Configuration of a study: read, checked, and expanded into cells."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..options.text import nearest
from ..options.yaml_text import read_yaml
from .catalogue import Catalogue
from .cell import Cell, Limits
from .errors import StudyError
from .methods.native import Native
from .selection import all_chosen, not_called

_SEEDS = 2**63
SHIPPED = Path(__file__).parent / "shipped"


class StudyConfiguration(BaseModel):
    """A study: every problem with every solver, at every tolerance, seed and dtype.

    Attributes:
        name: The name of the study, also in its store.
        description: Purpose of the study.
        problems: Selections of problems; sizes and parameters in brackets.
        solvers: Selections of solvers.
        tolerances: Largest entries of the residual that count as solved.
        target: `"absolute"`, or `"relative"` for tolerances relative to the initial residual.
        seeds: Seeds of generated problems, or of a perturbed start of other problems: normal numbers times
            a tenth of `1 + |z0|` are added, except for seed 0.
        dtypes: `"float64"`, `"float32"`, …
        device: Device of the unknown.
        gradients: Selections of gradient modes; each gives a gradient of every cell.
        adjoint_solvers: Selections of solvers for the adjoint equation of the mode `exact`.
        max_evaluations: Evaluations of the function that a solve may use.
        time_limit: Seconds that a solve may take.
        memory_limit: Megabytes that a cell may allocate.
        repeats: Timed solves of each cell; with any, cells run one at a time.
        minutes: Minutes that it takes, a cell at a time, on one core; for lists of studies.

    Raises:
        pydantic.ValidationError: A field is unknown, missing or out of range; `load` and `from_text` raise
            a `StudyError` instead.

    Examples:
        >>> from implicitly.studies import StudyConfiguration
        >>> study = StudyConfiguration(name="tiny", problems=["boggs"], solvers=["newton", "scipy:hybr"])
        >>> [cell.solver.text for cell in study.cells()]
        ['newton', 'scipy:hybr']
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    problems: tuple[str, ...] = Field(min_length=1)
    solvers: tuple[str, ...] = Field(min_length=1)
    tolerances: tuple[float, ...] = Field(default=(1e-8,), min_length=1)
    target: Literal["absolute", "relative"] = "absolute"
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    dtypes: tuple[Literal["float64", "float32", "float16", "bfloat16"], ...] = Field(
        default=("float64",), min_length=1
    )
    device: str = "cpu"
    gradients: tuple[str, ...] = ()
    adjoint_solvers: tuple[str, ...] = ()
    max_evaluations: int = Field(default=10_000, ge=1)
    time_limit: float = Field(default=60.0, gt=0)
    memory_limit: int = Field(default=2048, ge=1)
    repeats: int = Field(default=0, ge=0)
    minutes: float | None = Field(default=None, gt=0)
    own: str | None = Field(default=None, exclude=True)

    @field_validator("tolerances")
    @classmethod
    def _positive(cls, given: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < tolerance < float("inf") for tolerance in given):
            raise ValueError("tolerances must be numbers > 0")
        return given

    @field_validator("seeds")
    @classmethod
    def _not_negative(cls, given: tuple[int, ...]) -> tuple[int, ...]:
        if any(not 0 <= seed < _SEEDS for seed in given):
            raise ValueError("seeds must be integers ≥ 0 of at most 63 bits")
        return given

    def cells(self, catalogue: Catalogue | None = None) -> list[Cell]:
        """Every cell, in the order of the problems.

        Combinations of a solver and a gradient mode that do not fit are left out (`reuse-inverse` needs a
        solver that learns an inverse). A mode that fits no solver is an error.

        Args:
            catalogue: The catalogue of names, which keeps the objects it has built; `None` for a new one.

        Raises:
            StudyError: A problem, solver, mode, tag or option is unknown; the nearest is named.
        """
        catalogue = catalogue or Catalogue(self.own)
        modes: list[Any] = [None]
        if self.gradients:
            modes = [*all_chosen(self.gradients, catalogue.gradients)]
        elif self.adjoint_solvers:
            raise StudyError("adjoint_solvers are for gradients: give gradients: [exact]")
        adjoints = all_chosen(self.adjoint_solvers, catalogue.solvers)
        pairs = [
            (mode, adjoint)
            for mode in modes
            for adjoint in (adjoints if mode and mode.name == "exact" and adjoints else [None])
        ]
        limits = Limits(
            self.max_evaluations, self.time_limit, self.memory_limit << 20, self.repeats
        )
        cells = [
            Cell(
                problem, solver, mode, adjoint, tolerance, self.target == "relative", seed, dtype,
                self.device, limits, self.own, catalogue.digest,
            )
            for problem, tolerance, seed, dtype, solver, (mode, adjoint) in itertools.product(
                all_chosen(self.problems, catalogue.problems),
                self.tolerances,
                self.seeds,
                self.dtypes,
                all_chosen(self.solvers, catalogue.solvers),
                pairs,
            )
        ]  # fmt: skip
        possible = [cell for cell in cells if _refusal(cell, catalogue) is None]
        left = {cell.gradient for cell in possible}
        for cell in cells:
            if cell.gradient not in left:
                raise StudyError(str(_refusal(cell, catalogue)))
        return possible


def _refusal(cell: Cell, catalogue: Catalogue) -> str | None:
    """Reason why the gradient mode does not fit the solver; `None` if it fits."""
    problem, _ = catalogue.problem(cell.problem, cell.seed)
    method = catalogue.method(cell.solver, cell.gradient, cell.adjoint)
    return method.refusal(problem.form) if isinstance(method, Native) else None


def shipped() -> list[str]:
    """Names of the studies that come with the package.

    Examples:
        >>> from implicitly.studies import shipped
        >>> "classical" in shipped()
        True
    """
    return sorted(file.stem for file in SHIPPED.glob("*.yaml"))


def load(configuration: StudyConfiguration | str | Path) -> tuple[StudyConfiguration, str]:
    """A configuration and its text, from a YAML file, a Python file, or a shipped study.

    A Python file holds `configuration`, a `StudyConfiguration` or a dictionary of its fields; problems
    that it registers and the dictionary `solvers` can be chosen by name. It is run; a YAML file never is.

    Raises:
        StudyError: It cannot be read, or a field is unknown or out of range (the nearest is named).
    """
    if isinstance(configuration, StudyConfiguration):
        return configuration, as_text(configuration)
    file = Path(configuration)
    if not file.suffix and not file.is_file():
        if str(configuration) not in shipped():
            said = not_called("study that is shipped", str(configuration), shipped())
            raise StudyError(f"{said}. A file has the ending .yaml or .py")
        file = SHIPPED / f"{configuration}.yaml"
    text = text_of(file)
    if file.suffix == ".py":
        return _of_module(file), text
    return from_text(text, str(file)), text


def text_of(file: Path) -> str:
    """The text of a file.

    Raises:
        StudyError: It is no file, or no text in UTF-8.
    """
    if file.exists() and not file.is_file():  # A pipe would block its reader.
        raise StudyError(f"{file} is no file")
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{file} cannot be read: {error}") from error


def from_text(text: str, called: str = "the configuration") -> StudyConfiguration:
    """A configuration from YAML.

    Raises:
        StudyError: It is no YAML, or a field is unknown or out of range.
    """
    try:
        fields = read_yaml(text)
    except ValueError as error:
        raise StudyError(f"{called} is no YAML: {error}") from error
    return _of_fields(fields, called)


def as_text(configuration: StudyConfiguration) -> str:
    """A configuration in YAML, without fields that have their defaults."""
    fields = configuration.model_dump(mode="json", exclude_defaults=True)
    text: str = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    return text


def _of_module(file: Path) -> StudyConfiguration:
    file = file.resolve()
    found = getattr(Catalogue(str(file)).module, "configuration", None)
    if isinstance(found, StudyConfiguration):
        return found.model_copy(update={"own": str(file)})
    if found is None:
        raise StudyError(f"{file} defines no `configuration`")
    return _of_fields(found, str(file), own=str(file))


def _of_fields(fields: object, called: str, own: str | None = None) -> StudyConfiguration:
    if not isinstance(fields, dict):
        raise StudyError(f"{called} must hold fields such as name, problems and solvers")
    if own is None and "own" in fields:  # A text must not make a Python file run.
        raise StudyError(
            f"{called}: there is no field 'own': a study with problems or solvers of its own is a Python "
            "file, which is given in place of the YAML"
        )
    # YAML reads 1e-8 as text, since it has no decimal point.
    numbers = fields.get("tolerances")
    if isinstance(numbers, (str, int, float)):
        numbers = [numbers]
    given = {**fields, **({} if numbers is None else {"tolerances": numbers})}
    try:
        return StudyConfiguration(**given, own=own) if own else StudyConfiguration(**given)
    except ValidationError as error:
        raise StudyError(f"{called}: {'; '.join(map(_said, error.errors()))}") from error
    except TypeError as error:
        raise StudyError(f"{called}: {error}") from error


def _said(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        valid = [name for name in StudyConfiguration.model_fields if name != "own"]
        return f"there is no field {place!r}{nearest(place, valid)}, of {', '.join(valid)}"
    return f"{place}: {problem['msg']}, got {problem['input']!r}"
