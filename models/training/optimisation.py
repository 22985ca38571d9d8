"""Optimisers and schedules of their learning rate."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from ...options.options import Options, check_integer, is_integer, is_number, is_positive


class OptimiserSettings(Options, ABC):
    """Settings of an optimiser."""

    @abstractmethod
    def make(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of these parameters."""


@dataclass(frozen=True)
class Adam(OptimiserSettings):
    """Adam, with optional decoupled weight decay.

    Attributes:
        rate: Learning rate.
        betas: Decay rates of both moments.
        weight_decay: Decoupled weight decay, per step and unit of learning rate.

    Raises:
        ValueError: A number is out of range.

    Source: Kingma & Ba 2015; Loshchilov & Hutter 2019.

    Examples:
        >>> Adam(rate=1e-3).make([torch.nn.Parameter(torch.zeros(2))]).defaults["lr"]
        0.001
    """

    rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check_rate(self.rate)
        if len(self.betas) != 2 or not all(is_number(b, 0) and b < 1 for b in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas!r}")
        _check_decay(self.weight_decay)

    def make(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            parameters, lr=self.rate, betas=self.betas, weight_decay=self.weight_decay
        )


@dataclass(frozen=True)
class SGD(OptimiserSettings):
    """Stochastic gradient descent.

    Attributes:
        rate: Learning rate.
        momentum: Share of the last step that is added to the next.
        weight_decay: Factor of the weights that is added to the gradient.

    Raises:
        ValueError: A number is out of range.

    Examples:
        >>> SGD(rate=20.0).make([torch.nn.Parameter(torch.zeros(2))]).defaults["lr"]
        20.0
    """

    rate: float = 1.0
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check_rate(self.rate)
        if not (is_number(self.momentum, 0) and self.momentum < 1):
            raise ValueError(f"momentum must be a number in [0, 1), got {self.momentum!r}")
        _check_decay(self.weight_decay)

    def make(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            parameters, lr=self.rate, momentum=self.momentum, weight_decay=self.weight_decay
        )


class Schedule(Options, ABC):
    """Schedule of the learning rate, which first grows linearly for `warm_up` steps."""

    @abstractmethod
    def factor(self, step: int, steps: int) -> float:
        """Factor on the learning rate at a step, counted from 0, out of `steps`."""


@dataclass(frozen=True)
class Constant(Schedule):
    """Schedule with a constant learning rate.

    Attributes:
        warm_up: Steps of linear growth.

    Examples:
        >>> [Constant(warm_up=4).factor(step, 10) for step in (0, 1, 9)]
        [0.25, 0.5, 1.0]
    """

    warm_up: int = 0

    def __post_init__(self) -> None:
        _check_warm_up(self.warm_up)

    def factor(self, step: int, steps: int) -> float:
        return _grown(step, self.warm_up)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Schedule along half a period of the cosine, down to a fraction of the learning rate.

    Attributes:
        warm_up: Steps of linear growth.
        last: Fraction at the end.

    Source: Loshchilov & Hutter 2017, equation 5.

    Examples:
        >>> [round(Cosine().factor(step, 10), 3) for step in (0, 5, 10)]
        [1.0, 0.5, 0.0]
    """

    warm_up: int = 0
    last: float = 0.0

    def __post_init__(self) -> None:
        _check_warm_up(self.warm_up)
        if not (is_number(self.last, 0) and self.last <= 1):
            raise ValueError(f"last must be a number from 0 to 1, got {self.last!r}")

    def factor(self, step: int, steps: int) -> float:
        after = max(step - self.warm_up, 0) / max(steps - self.warm_up, 1)
        falling = self.last + (1 - self.last) * 0.5 * (1 + math.cos(math.pi * min(after, 1.0)))
        return _grown(step, self.warm_up) * falling


@dataclass(frozen=True)
class Milestones(Schedule):
    """Schedule with a factor at each of several steps.

    Attributes:
        at: The steps.
        factor_each: Factor on the learning rate at each of them.
        warm_up: Steps of linear growth.

    Examples:
        >>> [Milestones(at=(5,)).factor(step, 10) for step in (4, 5)]
        [1.0, 0.1]
    """

    at: tuple[int, ...] = ()
    factor_each: float = 0.1
    warm_up: int = 0

    def __post_init__(self) -> None:
        if not all(is_integer(step, 1) for step in self.at) or list(self.at) != sorted(self.at):
            raise ValueError(f"at must be integers ≥ 1 in ascending order, got {self.at!r}")
        if not is_positive(self.factor_each):
            raise ValueError(f"factor_each must be a number > 0, got {self.factor_each!r}")
        _check_warm_up(self.warm_up)

    def factor(self, step: int, steps: int) -> float:
        passed = sum(step >= milestone for milestone in self.at)
        return float(_grown(step, self.warm_up) * self.factor_each**passed)


AnyOptimiser = Adam | SGD
AnySchedule = Constant | Cosine | Milestones


def _grown(step: int, warm_up: int) -> float:
    return min((step + 1) / warm_up, 1.0) if warm_up else 1.0


def _check_rate(rate: object) -> None:
    if not is_positive(rate):
        raise ValueError(f"rate must be a finite number > 0, got {rate!r}")


def _check_decay(decay: object) -> None:
    if not is_number(decay, 0):
        raise ValueError(f"weight_decay must be a finite number ≥ 0, got {decay!r}")


def _check_warm_up(warm_up: object) -> None:
    check_integer("warm_up", warm_up, 0)
