"""Configuration of a run: model, data and training; read from YAML and written back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from ...options.options import Options, did_you_mean, is_integer, is_number, is_positive, one_of
from ...options.yaml_text import read_yaml
from ..checks import check_sizes
from ..code import CodeError, full_name, resolved
from ..depth import Equilibrium, Stacked
from ..model_options import ModelOptions
from ..registry import DATA, MODELS, check_registered, make_model, name_of
from ..sequence_model import SequenceModel
from .data import Data
from .errors import ConfigurationError
from .fields import as_fields, build
from .optimisation import Adam, AnyOptimiser, AnySchedule, Constant

NAMED = Path(__file__).parent / "named"
PRECISIONS = ("32-true", "64-true", "16-mixed", "bf16-mixed")
_ANY_VOCABULARY = 10**9
"""Placeholder for the number of tokens until the data has been read."""


@dataclass(frozen=True)
class ShallowStart(Options):
    """First steps on the unrolled network of few layers, with the same parameters.

    Attributes:
        steps: Number of steps, or their share of all steps of the run, above 0 and below 1.
        least: Smallest number of layers; each step draws its number.
        most: Largest number of layers; `None` for `least`.
        residual: Weight of `residual_penalty` in these steps, which brings the network near its equilibrium.
        alone: Steps with `least` layers before the penalty begins.

    Source: Bai, Kolter & Koltun 2019, section 4 and appendix (pretraining on 2 layers).

    Examples:
        >>> ShallowStart(steps=500, least=2).deepest, ShallowStart(steps=0.85).within(1000)
        (2, 850)
    """

    steps: int | float = 0
    least: int = 2
    most: int | None = None
    residual: float = 0.0
    alone: int = 0

    def __post_init__(self) -> None:
        check_sizes(self, "least")
        share = isinstance(self.steps, float) and 0 < self.steps < 1
        if not (share or is_integer(self.steps, 0)):
            raise ValueError(
                f"steps must be an integer ≥ 0, or a share above 0 and below 1, got {self.steps!r}"
            )
        if not is_integer(self.alone, 0):
            raise ValueError(f"alone must be an integer ≥ 0, got {self.alone!r}")
        if self.most is not None and not is_integer(self.most, self.least):
            raise ValueError(f"most must be an integer ≥ least={self.least}, got {self.most!r}")
        if not is_number(self.residual, 0):
            raise ValueError(f"residual must be a finite number ≥ 0, got {self.residual!r}")

    def within(self, steps: int) -> int:
        """Number of steps in a run of so many."""
        share = isinstance(self.steps, float)
        return round(self.steps * steps) if share else int(self.steps)

    @property
    def deepest(self) -> int:
        """Largest number of layers of any step."""
        return self.least if self.most is None else self.most


@dataclass(frozen=True)
class JacobianSettings(Options):
    """Regularisation of the Jacobian; see `jacobian_penalty`.

    Attributes:
        weight: Weight of the penalty in the loss; 0 for no penalty.
        probability: Probability that a step has the penalty.
        samples: Number of noise vectors of an estimate.

    Examples:
        >>> JacobianSettings(weight=0.1).probability
        0.35
    """

    weight: float = 0.0
    probability: float = 0.35
    samples: int = 1

    def __post_init__(self) -> None:
        if not is_number(self.weight, 0):
            raise ValueError(f"weight must be a finite number ≥ 0, got {self.weight!r}")
        if not (is_number(self.probability, 0) and self.probability <= 1):
            raise ValueError(f"probability must be from 0 to 1, got {self.probability!r}")
        check_sizes(self, "samples")


@dataclass(frozen=True)
class RandomLimits(Options):
    """Random limits on forward iterations, drawn in each step so that training does not adapt to one limit.

    Attributes:
        least: The smallest limit.
        most: The largest limit.

    Examples:
        >>> RandomLimits(least=8, most=24).most
        24
    """

    least: int
    most: int

    def __post_init__(self) -> None:
        check_sizes(self, "least")
        if not is_integer(self.most, self.least):
            raise ValueError(f"most must be an integer ≥ least={self.least}, got {self.most!r}")


_OPEN = {"model": MODELS, "data": DATA}
"""Fields whose classes are registered, with those that there are."""


@dataclass(frozen=True)
class TrainingConfiguration(Options):
    """Configuration of a run.

    Attributes:
        title: Name of the run.
        model: Options of a registered model; the vocabulary is that of the data.
        data: Source of the batches, of a registered class.
        description: Purpose of the run.
        seed: Seed of weights, data and dropout.
        batch: Sequences of one micro-batch, of all processes together.
        length: Tokens of a segment.
        steps: Steps of the optimiser.
        accumulate: Micro-batches of a step.
        optimiser: The optimiser with its learning rate.
        schedule: Schedule of the learning rate.
        clip: Largest norm of the gradient; `None` for no limit.
        precision: `"32-true"`, `"64-true"`, `"16-mixed"` or `"bf16-mixed"`.
        shallow: First steps on a few layers.
        jacobian: Regularisation of the Jacobian.
        limits: Random limits on iterations; `None` for those of the model.
        monitor: Steps between estimates of the spectral radius; 0 for none.
        validate: Steps between validations.
        checkpoint: Steps between checkpoints.
        log: Steps between records.
        largest_loss: Loss above which the run counts as diverged.

    Raises:
        ValueError: A number is out of range.
        TypeError: The model or the data are of no registered class.

    Examples:
        >>> from implicitly.models import TransformerOptions
        >>> from implicitly.models.training import TrainingConfiguration, CopyMemoryTask
        >>> run = TrainingConfiguration("tiny", TransformerOptions(10, width=8, heads=2), CopyMemoryTask(5))
        >>> run.steps
        1000
    """

    title: str
    model: ModelOptions
    data: Data
    description: str = ""
    seed: int = 0
    batch: int = 16
    length: int = 64
    steps: int = 1000
    accumulate: int = 1
    optimiser: AnyOptimiser = field(default_factory=Adam)
    schedule: AnySchedule = field(default_factory=Constant)
    clip: float | None = 1.0
    precision: Literal["32-true", "64-true", "16-mixed", "bf16-mixed"] = "32-true"
    shallow: ShallowStart = field(default_factory=ShallowStart)
    jacobian: JacobianSettings = field(default_factory=JacobianSettings)
    limits: RandomLimits | None = None
    monitor: int = 0
    validate: int = 500
    checkpoint: int = 500
    log: int = 10
    largest_loss: float = 1e4

    def __post_init__(self) -> None:
        if not isinstance(self.title, str) or not self.title:
            raise ValueError(f"title must be some text, got {self.title!r}")
        check_sizes(self, "batch", "length", "steps", "accumulate", "validate", "checkpoint", "log")
        for name in ("seed", "monitor"):
            if not is_integer(getattr(self, name), 0):
                raise ValueError(f"{name} must be an integer ≥ 0, got {getattr(self, name)!r}")
        for name in ("clip", "largest_loss"):
            value = getattr(self, name)
            if not (is_positive(value) or (name == "clip" and value is None)):
                raise ValueError(f"{name} must be a finite number > 0, got {value!r}")
        one_of("precision", self.precision, PRECISIONS)
        check_registered(self.model, self.data)
        self._check_depth()

    def _check_depth(self) -> None:
        depth = self.model.states
        if self.shallow.steps and isinstance(depth, Stacked):
            raise ValueError("shallow is for cells that share weights, not for stacked layers")
        for name, given in (
            ("jacobian", bool(self.jacobian.weight)),
            ("limits", self.limits is not None),
            ("monitor", bool(self.monitor)),
        ):
            if given and not isinstance(depth, Equilibrium):
                raise ValueError(f"{name} is for models at equilibrium, got depth={depth!r}")

    def model_for(self, vocabulary: int) -> SequenceModel:
        """The model for a number of tokens, its weights drawn from torch's generator.

        Raises:
            ConfigurationError: Sizes do not fit the vocabulary.
        """
        try:
            options: Any = replace(cast(Any, self.model), vocabulary=vocabulary)
        except ValueError as error:
            raise ConfigurationError(f"model: {error}") from error
        return make_model(options)


def named() -> list[str]:
    """Names of the configurations that come with the package.

    Examples:
        >>> "copy-memory" in named()
        True
    """
    return sorted(file.stem for file in NAMED.glob("*.yaml"))


def load(configuration: str | Path, changes: Sequence[str] = ()) -> TrainingConfiguration:
    """Load a configuration from a YAML file, or one that comes with the package by its name.

    A model or data named `file.py:Name` or `package.module:Name` is imported, which runs that module.

    Args:
        configuration: A path that ends in `.yaml`, or a name.
        changes: `field=value` with dots for fields of fields: `model.depth.stopping.max_steps=30`. Values
            are read as YAML.

    Raises:
        ConfigurationError: It cannot be read, or a field is unknown (the nearest is named), missing or out
            of range.

    Examples:
        >>> load("copy-memory", ["seed=3", "data.delay=50"]).data.delay
        50
    """
    file = Path(configuration)
    if file.suffix not in (".yaml", ".yml"):
        if str(configuration) not in named():
            raise ConfigurationError(
                f"no configuration is called {str(configuration)!r}"
                f"{did_you_mean(str(configuration), named())} There are: {', '.join(named())}. A file "
                "ends in .yaml"
            )
        file = NAMED / f"{configuration}.yaml"
    if file.exists() and not file.is_file():  # A pipe would block its reader.
        raise ConfigurationError(f"{file} is no file")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from error
    return from_text(text, str(configuration), changes, run_code=True)


def from_text(
    text: str,
    called: str = "the configuration",
    changes: Sequence[str] = (),
    *,
    run_code: bool = False,
) -> TrainingConfiguration:
    """A configuration from YAML; see `load`.

    Args:
        text: Its fields.
        called: Its name in messages.
        changes: See `load`.
        run_code: True if modules of models and data that it names may be imported; else they must have been.

    Examples:
        >>> from_text(as_text(load("copy-memory"))) == load("copy-memory")
        True
    """
    fields = _yaml(text, called)
    if not isinstance(fields, dict):
        raise ConfigurationError(f"{called} must hold fields such as title, model and data")
    for change in changes:
        _change(fields, change)
    for name in _OPEN:
        if name in fields:
            fields[name] = _with_registered_name(name, fields[name], run_code)
    model = fields.pop("model", None)
    options = (
        None if model is None else build(ModelOptions, model, "model", vocabulary=_ANY_VOCABULARY)
    )
    if model is None and not set(fields) - set(TrainingConfiguration.__dataclass_fields__):
        raise ConfigurationError(f"{called}: model must be given")
    made: TrainingConfiguration = build(
        TrainingConfiguration, fields, called, within=False, model=options
    )
    return made


def changed(configuration: TrainingConfiguration, changes: Sequence[str]) -> TrainingConfiguration:
    """A configuration with some fields changed; see `load`.

    Examples:
        >>> changed(load("copy-memory"), ["batch=4"]).batch
        4
    """
    return from_text(as_text(configuration), "the configuration", changes)


def as_text(configuration: TrainingConfiguration) -> str:
    """A configuration in YAML, without fields that have their defaults."""
    fields = as_fields(configuration)
    del fields["model"]["vocabulary"]
    for name in _OPEN:
        kind = type(getattr(configuration, name))
        fields[name] = {**fields[name], "name": full_name(kind, name_of(kind))}
    text: str = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    return text


def _yaml(text: str, called: str) -> Any:
    try:
        return read_yaml(text)
    except ValueError as error:
        raise ConfigurationError(f"{called} is no YAML: {error}") from error


def _with_registered_name(field: str, given: Any, run_code: bool) -> Any:
    """The content of a field with the registered name in place of `source:Name`."""
    called = given.get("name") if isinstance(given, Mapping) else given
    if not isinstance(called, str):
        return given
    try:
        name = resolved(called, _OPEN[field], run=run_code)
    except CodeError as error:
        raise ConfigurationError(f"{field}: {error}") from error
    return {**given, "name": name} if isinstance(given, Mapping) else name


def _change(fields: dict[str, Any], change: str) -> None:
    """Set the field of a change `a.b=value`."""
    path, equals, value = change.partition("=")
    if not equals or not path.strip():
        raise ConfigurationError(f"a change is written field=value, got {change!r}")
    *above, last = path.strip().split(".")
    place: Any = fields
    for name in above:
        inner = place.get(name)
        if isinstance(inner, str):  # A name alone stands for the defaults.
            inner = {"name": inner}
        place[name] = inner = {} if inner is None else inner
        if not isinstance(inner, Mapping):
            raise ConfigurationError(f"{change!r}: {name} has no fields, it is {inner!r}")
        place = inner
    place[last] = _yaml(value, change)
