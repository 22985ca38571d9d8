"""Registry of models and data: the names by which configurations and checkpoints know them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from ..options.naming import kebab
from .model_options import ModelOptions
from .sequence_model import SequenceModel

_SUFFIX = "-options"
_Model = TypeVar("_Model", bound=Callable[[Any], SequenceModel])
_Data = TypeVar("_Data", bound=type)

MODELS: dict[str, type] = {}
"""Options of models by name."""
DATA: dict[str, type] = {}
"""Settings of data by name."""
_MAKERS: dict[type, Callable[[Any], SequenceModel]] = {}


def name_of(kind: type) -> str:
    """The name of a class of options in a configuration.

    Examples:
        >>> from implicitly.models import TransformerOptions
        >>> name_of(TransformerOptions)
        'transformer'
    """
    return kebab(kind).removesuffix(_SUFFIX)


def register_model(options: type[ModelOptions]) -> Callable[[_Model], _Model]:
    """Make a model known to configurations and checkpoints, under the name of its options.

    Args:
        options: A frozen dataclass that inherits `ModelOptions`. The model is made by calling the decorated
            class with an instance. `GatedConvolutionOptions` has the name `gated-convolution`.

    Returns:
        A decorator for the model's class.

    Raises:
        TypeError: `options` is no such dataclass.
        ValueError: Another model has the name.

    Examples:
        >>> from implicitly.models import EquilibriumRNN, RecurrentOptions
        >>> register_model(RecurrentOptions)(EquilibriumRNN) is EquilibriumRNN
        True
    """
    if not (issubclass(options, ModelOptions) and dataclasses.is_dataclass(options)):
        raise TypeError(
            f"options must be a frozen dataclass that inherits ModelOptions, got {options!r}"
        )
    missing = {"vocabulary", "depth"} - {field.name for field in dataclasses.fields(options)}
    if missing:
        raise TypeError(f"{options.__name__} must have the fields {', '.join(sorted(missing))}")

    def register(model: _Model) -> _Model:
        _add(MODELS, options, "model")
        _MAKERS[options] = model
        return model

    return register


def register_data(data: _Data) -> _Data:
    """Make a source of batches known to configurations and checkpoints, under its class's name.

    Args:
        data: A frozen dataclass that inherits `training.Data`. `MyTask` has the name `my-task`.

    Raises:
        TypeError: `data` is no dataclass.
        ValueError: Other data has the name.

    Examples:
        >>> from implicitly.models.training import CopyMemoryTask
        >>> register_data(CopyMemoryTask) is CopyMemoryTask
        True
    """
    if not (isinstance(data, type) and dataclasses.is_dataclass(data)):
        raise TypeError(f"data must be a frozen dataclass that inherits Data, got {data!r}")
    _add(DATA, data, "data")
    return data


def make_model(options: ModelOptions) -> SequenceModel:
    """The model for its options, its weights drawn from torch's generator."""
    return _MAKERS[type(options)](options)


def check_registered(options: object, data: object) -> None:
    """Raise a `TypeError` unless a model is registered for these options, and the class of the data."""
    if type(data) not in DATA.values():
        raise TypeError(
            f"data must be of a registered class, one of {', '.join(DATA)}, got {data!r}: decorate its "
            "class with register_data"
        )
    if type(options) not in _MAKERS:
        raise TypeError(
            f"model must be the options of a registered model, one of {', '.join(MODELS)}, got "
            f"{options!r}: decorate the model's class with register_model({type(options).__name__})"
        )


def _add(known: dict[str, type], kind: type, what: str) -> None:
    name = name_of(kind)
    before = known.get(name, kind)
    # A module that runs again makes its classes anew.
    if (before.__module__, before.__qualname__) != (kind.__module__, kind.__qualname__):
        raise ValueError(
            f"a {what} called {name!r} is registered already, by {before.__module__}."
            f"{before.__qualname__}: give {kind.__qualname__} another name"
        )
    known[name] = kind
