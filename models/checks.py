"""Validation of options and inputs of models."""

from __future__ import annotations

import torch
from torch import Tensor

from ..options.options import check_integer, is_number
from .depth import Equilibrium, Stacked, WeightTied


def check_sizes(options: object, *names: str) -> None:
    """Raise a `ValueError` unless all these attributes are integers ≥ 1."""
    for name in names:
        check_integer(name, getattr(options, name), 1)


def check_rates(options: object, *names: str) -> None:
    """Raise a `ValueError` unless all these attributes are in `[0, 1)`."""
    for name in names:
        value = getattr(options, name)
        if not (is_number(value, 0) and value < 1):
            raise ValueError(f"{name} must be a number in [0, 1), got {value!r}")


def check_deviation(name: str, value: object) -> None:
    """Raise a `ValueError` unless `value` is a finite number ≥ 0."""
    if not is_number(value, 0):
        raise ValueError(f"{name} must be a finite number ≥ 0, got {value!r}")


def check_kind_of_depth(depth: object) -> None:
    """Raise a `TypeError` unless `depth` is one of the three kinds."""
    if not isinstance(depth, (Equilibrium, WeightTied, Stacked)):
        raise TypeError(
            f"depth must be Equilibrium(...), WeightTied(depth) or Stacked(depth), got {depth!r}"
        )


def check_equilibrium(model: str, general: str, depth: object) -> None:
    """Raise a `TypeError` unless the depth of an equilibrium model is an `Equilibrium`."""
    if not isinstance(depth, Equilibrium):
        raise TypeError(f"{model} needs depth=Equilibrium(...), got {depth!r}; {general} takes any")


def check_tokens(name: str, tokens: object, vocabulary: int) -> Tensor:
    """The tokens, after checking that they are `(batch, time)` integers from 0 to `vocabulary − 1`.

    On an accelerator the range is checked there, without waiting for it: a token out of range ends the next
    operation that waits with the error of an assertion on the device.
    """
    if not isinstance(tokens, Tensor):
        raise TypeError(f"{name} must be a tensor of integers, got {type(tokens).__name__}")
    if tokens.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name} must be integers (torch.int64 or int32), got {tokens.dtype}")
    if tokens.ndim != 2 or 0 in tokens.shape:
        raise ValueError(
            f"{name} must be of shape (batch, time), neither of them 0, got {tuple(tokens.shape)}"
        )
    _check_range(name, tokens, vocabulary)
    return tokens


def _check_range(name: str, tokens: Tensor, vocabulary: int) -> None:
    if tokens.device.type == "meta":
        return
    if tokens.device.type != "cpu":
        within = ((tokens >= 0) & (tokens < vocabulary)).all()
        torch._assert_async(within, f"{name} must lie between 0 and {vocabulary - 1}")
        return
    least, most = (int(end) for end in torch.aminmax(tokens))
    if least < 0 or most >= vocabulary:
        raise ValueError(
            f"{name} must lie between 0 and {vocabulary - 1}, for a vocabulary of {vocabulary}; got "
            f"values from {least} to {most}"
        )
