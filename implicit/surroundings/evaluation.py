"""The user's function on tuples of tensors, and its first evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from ...solvers import SolveError
from ..derivatives.calling import CallDerivatives
from ..derivatives.given import GivenDerivatives
from ..equations.capture import captured_leaves, check_mapped, graph_clock
from ..equations.differentiation import Product, coarsest, constants, transforming
from ..equations.exchange import Substitute, exchanged
from ..equations.identity import Identity, of_values
from ..equations.layout import Leaves
from ..optimisation.bounds import Bounded, Conditions
from ..optimisation.stationarity import Stationarity
from . import inference
from .arguments import Tree, Unknown, per_leaf
from .auxiliary import parts_of
from .keywords import WithKeywords, called
from .kinds import RAGGED, is_ragged
from .module import PureModule
from .purity import differs, note_of_change
from .replay import Replay
from .tracing import explain_transforms
from .writes import Lending, check_arguments, writes_to

# Part of PyTorch's message for a gradient with respect to a tensor that is not part of a graph.
_NOT_RECORDED = "does not require grad"


class UserFunction:
    """The user's function with the structures of its arguments and the surroundings of the call.

    Attributes:
        described: Its name in messages.
        function: The function.
        start: The leaves of `z0`.
        tensors: The tensors among the arguments.
        replay: Evaluates it in the surroundings of the call.
        has_aux: It returns a pair, of which the second is not part of the equation.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        described: str,
        z0: Any,
        args: tuple[Any, ...],
        batch_dims: int,
        replay: Replay,
        has_aux: bool = False,
    ) -> None:
        self.function, self.described, self.replay = function, described, replay
        self.has_aux = has_aux
        self._unknown, start = Unknown.of(z0, batch_dims)
        # Python calls a partial faster than a method that calls another.
        self._value = partial(self._unknown.leaves_of, described)
        self._args = args
        self._tree, tensors = Tree.of(args)
        own = exchanged(tensors)
        self.start = inference.ordinary(exchanged(start))
        self.tensors = inference.ordinary(own)
        # Arguments for which an enclosing call has put others in place.
        self._exchanged = [i for i, given in enumerate(tensors) if own[i] is not given]
        self._lending = Lending(described)

    @property
    def takes_tensors(self) -> bool:
        """True for a module whose inputs are tensors, and no structures of them."""
        return isinstance(self.function, PureModule) and all(
            isinstance(arg, Tensor) for arg in self._args[:-2]
        )

    @property
    def moves_buffers(self) -> bool:
        """True for a module that changes its buffers when it is called."""
        return isinstance(self.function, PureModule) and self.function.changes_buffers

    def bind(self, args: Leaves) -> Product:
        """The function of the unknown's leaves for these tensors among the arguments."""
        paired = self.has_aux and self._pair is None
        return self._bound(self.function, args, self._residual if paired else self._value)

    @property
    def _pair(self) -> Callable[..., Any] | None:
        """The function with its auxiliary output, where its value is without it already."""
        function = self.function
        inner = function.function if isinstance(function, Bounded) else function
        if not isinstance(inner, (Stationarity, Conditions)):
            return None
        return function.pair if isinstance(function, Bounded) else inner.pair

    def bind_objective(self, args: Leaves) -> Product:
        """The objective, or its residuals, whose gradient the function is."""
        assert isinstance(self.function, (Stationarity, Bounded))  # for the type checker
        return self._bound(self.function.parts, args, lambda value, z: (value,))

    def bind_unreduced(self, args: Leaves) -> Product:
        """The function before bounds reduce it."""
        assert isinstance(self.function, Bounded)  # for the type checker
        return self._bound(self.function.unreduced, args, self._value)

    def _residual(self, value: Any, z: Leaves) -> Leaves:
        return self._value(parts_of(self.described, value)[0], z)

    def _bound(
        self,
        function: Callable[..., Any],
        args: Leaves,
        taken: Callable[[Any, Leaves], Leaves],
    ) -> Product:
        """The part of the value of `function` that `taken` takes, given `z`."""
        filled = self._tree.fill(args)

        def of_leaves(z: Leaves) -> Leaves:
            try:
                value = self.replay.run(lambda: function(self._unknown.build(z), *filled))
            except (RuntimeError, NotImplementedError) as error:
                explain_transforms(self.described, error)
                raise
            return taken(value, z)

        if self._exchanged:
            return lambda z: self._lending.run(self._in_place(of_leaves, args), z)

        return lambda z: self._lending.run(of_leaves, z)

    def identity(self) -> Identity:
        """The identity of the function, of the constants among its arguments and of its surroundings."""
        function = self.function
        if isinstance(function, (PureModule, WithKeywords)):
            own = function.identity()
        else:
            own = Identity.of(function)
        tree, replay = self._tree, self.replay
        structure = Identity((repr(tree.spec), repr(self._unknown.spec), replay.autocast))
        return own + of_values(tree.constants) + structure

    def _in_place(self, function: Product, args: Leaves) -> Product:
        """The function, which sees `args` where an enclosing call has put others in place."""

        def of_leaves(z: Leaves) -> Leaves:
            originals = tuple(self.tensors[i] for i in self._exchanged)
            with Substitute(originals, tuple(args[i] for i in self._exchanged)):
                return function(z)

        return of_leaves

    def build(self, leaves: Leaves) -> Any:
        """The leaves of the unknown in the structure of `z0`."""
        return self._unknown.build(leaves)

    def evaluate_first(self) -> FirstEvaluation:
        """Evaluate the function once, at the start, on tensors without gradients."""
        clock = graph_clock()
        before = [writes_to(tensor) for tensor in self.tensors]
        value = self._first()
        if self.replay.doubtful:
            with self.replay.recording():
                value = self.bind(constants(self.tensors))(constants(self.start))
        module = isinstance(self.function, PureModule)
        check_arguments(self.described, self.tensors, before, module=module)
        if isinstance(self.function, PureModule):
            self.tensors = self.function.freeze(self.tensors)
        captured = captured_leaves(self.described, value, clock, self.replay.standing_in)
        if any(map(is_ragged, captured)):
            raise TypeError(f"{self.described} closes over a tensor that {RAGGED}")
        if self._lending.recorded:  # The unknown itself is then a leaf of the graph.
            lent = set(map(id, self._lending.recorded))
            captured = tuple(leaf for leaf in captured if id(leaf) not in lent)
            value = constants(value)
        check_mapped(self.described, value, (*self.start, *self.tensors))
        return FirstEvaluation(value, captured)

    def _first(self) -> Leaves:
        """The value at the start; the function may differentiate with respect to its unknown."""
        function, start = self.bind(constants(self.tensors)), constants(self.start)
        try:
            return function(start)
        except RuntimeError as error:
            if _NOT_RECORDED not in str(error):
                raise
            remedy = (
                f"{self.described} takes a gradient by torch.autograd.grad with respect to a tensor that "
                "autograd does not record there; take it by torch.func.grad, or call requires_grad_() on a "
                "copy of the tensor under torch.enable_grad()"
            )
            if transforming():
                raise RuntimeError(remedy) from error
            self._lending.records = True
            try:
                return function(start)
            except RuntimeError as again:
                raise (RuntimeError(remedy) if _NOT_RECORDED in str(again) else again) from error

    def evaluate_known(self, at: Leaves) -> FirstEvaluation:
        """Evaluate a function of an earlier call at another point, on the arguments themselves.

        Where gradients are recorded, it is found out anew which leaf tensors it closes over.
        """
        recording = torch.is_grad_enabled()
        clock = graph_clock() if recording else 0
        before = [writes_to(tensor) for tensor in self.tensors]
        value = self.bind(self.tensors)(constants(at))
        module = isinstance(self.function, PureModule)
        check_arguments(self.described, self.tensors, before, module=module)
        if not recording:
            return FirstEvaluation(value, ())
        found = captured_leaves(
            self.described, value, clock, (*self.replay.standing_in, *self.tensors)
        )
        own = set(map(id, self.tensors))
        return FirstEvaluation(value, tuple(leaf for leaf in found if id(leaf) not in own))

    def auxiliary(self, z: Leaves) -> Any:
        """The auxiliary output at a solution, by one evaluation, differentiable if `z` is."""
        others: list[Any] = []

        def tensors_of(value: Any, _: Leaves) -> Leaves:
            leaves, spec = tree_flatten(parts_of(self.described, value)[1])
            others[:] = [[None if isinstance(leaf, Tensor) else leaf for leaf in leaves], spec]
            return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))

        found = self._bound(self._pair or self.function, self.tensors, tensors_of)(z)
        # A function that differentiates itself was given a leaf of its own in place of a constant.
        if self._lending.recorded and not any(leaf.requires_grad for leaf in z):
            found = constants(found)
        tensors = iter(found)
        leaves = [next(tensors) if leaf is None else leaf for leaf in others[0]]
        return tree_unflatten(leaves, others[1])

    def derivatives(self, given: GivenDerivatives) -> CallDerivatives:
        """The derivatives that were given for this function."""
        jacobian = given.jacobian
        pure = isinstance(self.function, PureModule)
        names = getattr(self.function, "keywords" if pure else "names", ())

        def at(args: Leaves) -> Callable[[Leaves], Any]:
            filled = self._tree.fill(args[: len(self.tensors)])
            filled = filled[:-2] if pure else filled  # Without parameters and buffers.
            assert jacobian is not None  # for the type checker

            def of_leaves(z: Leaves) -> Any:
                return self.replay.run(lambda: called(jacobian, self.build(z), filled, names))

            return of_leaves

        return CallDerivatives(
            given, self.described, None if jacobian is None else at, self.build, self._value
        )

    def batched(self, flags: Sequence[bool] | None, captured: int) -> tuple[bool, ...] | None:
        """A flag for each tensor: its first axis is the batch. `None` where systems must stay together.

        Args:
            flags: The user's flags, one for each argument.
            captured: The number of captured tensors, which follow the arguments.
        """
        if flags is None:
            return None
        each = per_leaf(flags, self._args, self.start[0].shape[0]) + (False,) * captured
        # Random numbers and batch statistics of a system would depend on which others are left.
        return None if self.replay.random or self.moves_buffers else each

    def note_changes(
        self, error: SolveError, first: FirstEvaluation, precision: torch.dtype | None
    ) -> None:
        """Add to the message of a failed solve if the function has changed since its first evaluation."""
        if transforming():
            return
        with torch.no_grad():
            value = self.bind(constants(self.tensors))(constants(self.start))
        if differs(value, constants(first.value), precision or coarsest(value)):
            error.args = (f"{error}\n{note_of_change(self.described)}", *error.args[1:])

    def finish(self, value: Leaves) -> None:
        """Update buffers once, by an evaluation at the solution, and check the random state."""
        if isinstance(self.function, PureModule) and self.function.changes_buffers:
            pure, at = self.function, self.build(constants(value))
            inputs = self._tree.fill(constants(self.tensors))[:-2]
            try:
                self.replay.run(lambda: pure.move_buffers(at, *inputs))
            except RuntimeError as error:
                explain_transforms(self.described, error)
                raise

        def evaluate() -> None:
            with torch.no_grad():
                self.bind(constants(self.tensors))(constants(value))

        self.replay.check_unmoved(evaluate)

    def release(self) -> None:
        """Let go of the start, which only the solve needs, since graphs of derivatives hold this object."""
        self.start = ()


@dataclass(frozen=True)
class FirstEvaluation:
    """Value of a function at its start, and the leaf tensors that it closes over."""

    value: tuple[Tensor, ...]
    captured: Leaves
