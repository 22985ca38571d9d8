"""Equations: functions of an unknown and of arguments, both tuples of tensors."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from ...solvers.interface.compiled_systems import CompiledSystems
from ...solvers.interface.problem import Form
from .boxes import BoxForm
from .capture import check_substituted
from .differentiation import Product, pullback, pushforward, transforming, unwrap_dead
from .exchange import Substitute
from .identity import Identity
from .layout import Leaves
from .objectives import ObjectiveForm

Direction = Literal["forward", "backward"]
"""The direction in time in which the time steps of an equation depend on each other."""

if TYPE_CHECKING:
    from ..derivatives.calling import CallDerivatives


# Derivatives within bounds come from dense factors up to so many unknowns of a system.
_DENSE_WITH_BOUNDS = 2048


@dataclass(frozen=True)
class Bound:
    """An equation with its arguments filled in."""

    function: Product
    operator: Product | None = None
    """The linear part of `function` if it is affine."""
    transpose: Product | None = None
    """The transpose of `operator`, computed at its first use."""


def at_first_use(make: Callable[[Leaves], Product]) -> Product:
    """The linear map that `make` gives for tensors like its argument; `make` runs at the first use."""
    made: Product | None = None

    def product(v: Leaves) -> Leaves:
        nonlocal made
        at = make(v) if made is None else made
        if not transforming():  # Tensors of a transform must not leave it.
            made = at
        return at(v)

    return product


class DifferentiableMap(Protocol):
    """A function of a batch of systems and of their parameters, with its Jacobians."""

    def values(self, z: Tensor, parameters: Tensor) -> Tensor:
        """The value of plain tensors."""

    def jacobian(self, by: Literal["z", "parameters"], z: Tensor, parameters: Tensor) -> Tensor:
        """The Jacobian by one of them."""


@dataclass(frozen=True)
class CompiledForm:
    """Compiled form of an equation.

    Attributes:
        n: Unknowns of one system.
        expand: The parameters of each system, `(*batch, k)`, from the batch axes and the arguments.
        systems: The `CompiledSystems` for solvers, from the batch axes and these parameters.
        map: The function with its Jacobians, for so many parameters of a system.
    """

    n: int
    expand: Callable[[torch.Size, Leaves], torch.Tensor]
    systems: Callable[[torch.Size, torch.Tensor], CompiledSystems]
    map: Callable[[int], DifferentiableMap]

    def at(self, batch: torch.Size, args: Leaves) -> CompiledSystems:
        """The systems for these arguments, plain tensors."""
        return self.systems(batch, self.expand(batch, args))

    def vmapped(self, axes: tuple[int | None, ...]) -> CompiledForm:
        """The form with one more batch axis, at the front of some arguments."""

        def expand(batch: torch.Size, args: Leaves) -> torch.Tensor:
            if all(axis is None for axis in axes):
                parameters = self.expand(batch[1:], args)
                return parameters.expand(*batch, parameters.shape[-1])
            return torch.vmap(lambda *args: self.expand(batch[1:], args), in_dims=axes)(*args)

        return replace(self, expand=expand)


class Equation(ABC):
    """A function of an unknown and of arguments, both tuples of tensors, to solve as a given form.

    Attributes:
        form: `"fixed_point"` or `"root"`.
        batch_dims: Leading axes of the unknown that index independent systems.
        captured: Leaf tensors that the function closes over; they are its last arguments too.
        described: Its name in error messages.
        batched_prefix: Number of leading arguments that have the shape of the unknown.
    """

    form: Form
    batch_dims: int
    captured: Leaves
    described: str
    batched_prefix: int
    causal: bool = False
    """The systems along the last batch axis are time steps; each depends on the ones before it."""
    derivatives: CallDerivatives | None = None
    """The derivatives that the caller gives, if any."""

    @abstractmethod
    def evaluate(self, z: Leaves, args: Leaves) -> Leaves:
        """The function, differentiable in both."""

    @abstractmethod
    def bind(self, args: Leaves) -> Bound:
        """The function of `z` alone; work that does not depend on `z` is done here, once."""

    @abstractmethod
    def vmapped(self, mapped: tuple[bool, ...], randomness: str) -> Equation:
        """The equation with one more batch axis, at the front of `z` and of the `mapped` arguments."""

    @property
    def direction(self) -> Direction | None:
        """The direction in time of its dependence, if it is causal or derived from a causal one."""
        return "forward" if self.causal else None

    @property
    def traceable(self) -> bool:
        """True if graphs are made of it: of a given equation and of its adjoint alone."""
        return False

    @abstractmethod
    def identity(self) -> Identity:
        """The identity of the function between calls."""

    @abstractmethod
    def small(self, z: Leaves) -> bool:
        """True if the systems of this unknown are known to be small: dense matrices are then fastest."""

    def pullback_z(self, z: Leaves, args: Leaves) -> tuple[Leaves, Product]:
        """The value at `z` and `u ↦ (∂f/∂z)ᵀ u`."""
        return pullback(lambda *z: self.evaluate(z, args), z)

    def pushforward_z(self, z: Leaves, args: Leaves) -> tuple[Leaves, Product]:
        """The value at `z` and `v ↦ (∂f/∂z) v`."""
        return pushforward(lambda *z: self.evaluate(z, args), z)

    def pullback_arguments(
        self, z: Leaves, args: Leaves, positions: list[int], *, with_z: bool = False
    ) -> tuple[Leaves, Product]:
        """The value, and the map from its cotangents to those of the arguments at `positions`.

        With `with_z` the cotangents of `z` come first. A captured leaf is differentiated as itself only
        while no graph of the derivative is recorded, because other arguments may depend on it as well, and
        only if it is no wrapper of a transform that has ended, because no graph connects to that.
        """
        first_captured = len(args)
        stands = all(unwrap_dead(leaf) is leaf for leaf in self.captured)
        if stands and not torch.is_grad_enabled() and not transforming():
            first_captured -= len(self.captured)
            args = (*(arg.detach() for arg in args[:first_captured]), *self.captured)
            z = tuple(leaf.detach() for leaf in z)
        before = len(z) if with_z else 0

        def function(*some: torch.Tensor) -> Leaves:
            return self.evaluate(some[:before] or z, _exchanged(args, positions, some[before:]))

        primals = (*z[:before], *(args[position] for position in positions))
        captured = frozenset(before + i for i, p in enumerate(positions) if p >= first_captured)
        return pullback(function, primals, captured)

    def pushforward_arguments(
        self, z: Leaves, args: Leaves, positions: list[int]
    ) -> tuple[Leaves, Product]:
        """The value, and the map from tangents of the arguments at `positions` to that of the value."""

        def function(*some: torch.Tensor) -> Leaves:
            return self.evaluate(z, _exchanged(args, positions, some))

        return pushforward(function, tuple(args[position] for position in positions))


def _exchanged(args: Leaves, positions: list[int], some: Leaves) -> Leaves:
    """`args` with `some` tensors at the given positions."""
    changed = list(args)
    for position, value in zip(positions, some, strict=True):
        changed[position] = value
    return tuple(changed)


@dataclass(frozen=True)
class GivenEquation(Equation):
    """An equation given by the user.

    Attributes:
        given: The map from the arguments, without the captured ones, to the function of `z`.
        linear: The function is affine in `z`, by the user's word.
        batched_args: For each argument, true if its first axis is the batch, so that systems can be
            dropped; `None` if that is unknown or impossible.
        compiled: The compiled form of the equation, if there is one.
        identified: Gives the identity of the function between calls; `None` if it has none.
        derivatives: The derivatives that the caller gives; under `vmap` there are those of autograd.
        objective: The objective whose gradient the function is, if it is one.
        box: The bounds on the unknown, if it has any.
        programme: It is the conditions of a quadratic programme, whose data are its first arguments.
    """

    given: Callable[[Leaves], Product]
    form: Form
    batch_dims: int
    captured: Leaves = ()
    linear: bool = False
    batched_args: tuple[bool, ...] | None = None
    described: str = "the equation"
    batched_prefix: int = 0
    compiled: CompiledForm | None = None
    causal: bool = False
    identified: Callable[[], Identity] | None = None
    derivatives: CallDerivatives | None = None
    objective: ObjectiveForm | None = None
    box: BoxForm | None = None
    programme: bool = False

    def at(self, args: Leaves) -> Product:
        """The function of `z` at these arguments."""
        return self._filled(self.given, args)

    def objective_at(self, args: Leaves) -> Product:
        """The objective, or its residuals, as a function of `z` at these arguments."""
        assert self.objective is not None  # for the type checker
        return self._filled(self.objective.given, args)

    def unreduced_at(self, args: Leaves) -> Product:
        """The function of `z` at these arguments before bounds reduce it."""
        assert self.box is not None  # for the type checker
        assert self.box.unreduced is not None  # for the type checker
        return self._filled(self.box.unreduced, args)

    def _filled(self, given: Callable[[Leaves], Product], args: Leaves) -> Product:
        if not self.captured:
            return given(args)
        own, captured = args[: -len(self.captured)], args[-len(self.captured) :]
        function = given(own)
        if all(one is leaf for one, leaf in zip(captured, self.captured, strict=True)):
            return function

        def substituted(z: Leaves) -> Leaves:
            with Substitute(self.captured, captured):
                value = function(z)
            if torch.is_grad_enabled() and not transforming():
                check_substituted(self.described, value, (*z, *args), self.captured)
            return value

        return substituted

    def evaluate(self, z: Leaves, args: Leaves) -> Leaves:
        return self.at(args)(z)

    def bind(self, args: Leaves) -> Bound:
        function = self.at(args)
        if not self.linear:
            return Bound(function)

        # A derivative, since `F(v) − F(0)` loses all digits where v is small.
        def operator(v: Leaves) -> Product:
            return self.pushforward_z(tuple(map(torch.zeros_like, v)), args)[1]

        def transpose(u: Leaves) -> Product:
            return self.pullback_z(tuple(map(torch.zeros_like, u)), args)[1]

        return Bound(function, at_first_use(operator), at_first_use(transpose))

    @property
    def traceable(self) -> bool:
        return not self.causal

    def identity(self) -> Identity:
        own = Identity((), (self.given,)) if self.identified is None else self.identified()
        return own + Identity((len(self.captured), self.linear), self.captured)

    def small(self, z: Leaves) -> bool:
        if self.box is not None:  # Its solver forms dense matrices, and unknowns have many scales.
            sizes = (math.prod(leaf.shape[self.batch_dims :]) for leaf in z)
            return sum(sizes) <= _DENSE_WITH_BOUNDS
        if self.compiled is None:
            return False
        return len(z) == 1 and z[0].shape[self.batch_dims :] == (self.compiled.n,)

    def vmapped(self, mapped: tuple[bool, ...], randomness: str) -> Equation:
        axes = tuple(0 if is_mapped else None for is_mapped in mapped)

        def over_axis(evaluate: Callable[[Leaves, Leaves], Leaves]) -> Callable[[Leaves], Product]:
            return lambda args: (
                lambda z: torch.vmap(
                    evaluate, in_dims=((0,) * len(z), axes), randomness=randomness
                )(z, args)
            )

        objective = self.objective
        if objective is not None:
            objective = objective.with_given(over_axis(lambda z, args: self.objective_at(args)(z)))
        box = self.box
        if box is not None and box.unreduced is not None:
            box = box.with_unreduced(over_axis(lambda z, args: self.unreduced_at(args)(z)))

        return _MappedEquation(
            given=over_axis(self.evaluate),
            form=self.form,
            batch_dims=self.batch_dims + 1,
            captured=self.captured,
            linear=self.linear,
            described=self.described,
            compiled=None if self.compiled is None else self.compiled.vmapped(axes),
            causal=self.causal,
            identified=lambda: self.identity() + Identity(("vmap", axes, randomness)),
            objective=objective,
            box=box,
            programme=self.programme,
        )


@dataclass(frozen=True)
class _MappedEquation(GivenEquation):
    """A given equation under `vmap`; its arguments include the captured tensors."""

    @property
    def traceable(self) -> bool:
        return False

    def _filled(self, given: Callable[[Leaves], Product], args: Leaves) -> Product:
        return given(args)
