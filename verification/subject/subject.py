"""Subject of a verification: any layer as a flat function from tensors in named slots to output tensors.

A slot is a tensor that the outputs may depend on: an input that requires gradients, a parameter, a
tensor that the layer closes over. Inputs are replaced in the call. The others are overwritten in place, so
that a layer sees them however it reaches them, and restored afterwards. Every call runs under the same
random state.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..reachable import graph_leaves, reachable_leaves
from ..real import differentiable, distance_of
from ..time_limit import TimeLimit
from .errors import LayerError, foreign_errors
from .random_state import random_state
from .slots import Slot, written
from .structure import Inputs, Outputs
from .tape import Tape, Tensors


class Subject:
    """The layer under verification.

    Args:
        layer: Called as `layer(*inputs)`.
        inputs: A tensor, a tuple or list of arguments (pytrees), or a dictionary of named arguments.
        seed: Seed of the random state of every call.
        equation: The layer's residual; tensors that it captures count as the layer's.
        time_limit: Limit for all calls together.

    Attributes:
        inputs: Structure of the inputs.
        structure: Structure of the outputs, once discovered.
        slots: Tensors that the layer may be differentiated in.
        outputs: Names of the differentiable outputs.
        ignored: Descriptions of tensors that are not checked.
        calls: Number of calls of the layer, those of its `like` and `at` included.
        warnings: First lines of the warnings that it raised.
        around: Context of every call and backward pass.
        originals: Further tensors that carry a slot's gradient, by its position.
        observed: Side effects of backward passes, in words.
    """

    def __init__(
        self,
        layer: Callable[..., Any],
        inputs: Any,
        seed: int = 0,
        equation: object = None,
        time_limit: TimeLimit | None = None,
    ) -> None:
        if not callable(layer):
            raise TypeError(f"layer must be callable, got {layer!r}")
        self.layer = layer
        self.seed = seed
        self._equation = equation
        self._limit = time_limit or TimeLimit(None)
        self._count = [0]
        self.warnings: set[str] = set()
        self.inputs, leaves = Inputs.of(inputs)
        self.structure: Outputs | None = None
        self.ignored: list[str] = []
        slots = []
        for position, (name, leaf) in enumerate(zip(self.inputs.names, leaves, strict=True)):
            if not isinstance(leaf, Tensor):
                continue
            if leaf.requires_grad and differentiable(leaf):
                try:
                    slots.append(Slot.of_input(name, leaf, position))
                except ValueError as error:
                    self.ignored.append(f"{name} ({error})")
            else:
                what = "does not require gradients" if differentiable(leaf) else leaf.dtype
                self.ignored.append(f"{name} ({what})")
        self.slots: tuple[Slot, ...] = tuple(slots)
        self.around: Callable[[], AbstractContextManager[Any]] = nullcontext
        self.originals: dict[int, Tensor] = {}
        self.observed: set[str] = set()

    @property
    def calls(self) -> int:
        return self._count[0]

    @property
    def outputs(self) -> tuple[str, ...]:
        return () if self.structure is None else self.structure.names

    def like(self, layer: Callable[..., Any]) -> tuple[Subject, Tape]:
        """Another layer in the place of this one, with the same slots, and its first call.

        Raises:
            LayerError: It does not use all tensors that this one captures.
        """
        if not callable(layer):
            raise LayerError(f"it must be a layer, got {layer!r}")
        other = copy.copy(self)
        other.layer = layer
        reached = {id(leaf) for leaf in reachable_leaves(layer).values()}
        tape = other.tape()
        reached |= {id(leaf) for leaf in graph_leaves(tape.outputs)}
        for slot in self.slots:
            if slot.leaf is not None and id(slot.leaf) not in reached:
                raise LayerError(f"it must use the same tensors, but has not the {slot.name}")
        return other, tape

    def at(
        self,
        change: Callable[[Tensor], Tensor],
        layer: Callable[..., Any] | None = None,
        equation: object = None,
    ) -> Subject:
        """The layer, or another, at other values of the inputs; call `discover` on it.

        Args:
            change: Returns the new value of every floating-point input.
            layer: Another layer.
            equation: Its residual.
        """
        wanted = {slot.position for slot in self.slots}
        leaves = [
            change(leaf).detach().requires_grad_(position in wanted)
            if differentiable(leaf) and leaf.layout == torch.strided
            else leaf.detach().clone().requires_grad_(position in wanted)
            if differentiable(leaf)
            else leaf
            for position, leaf in enumerate(self.inputs.leaves)
        ]
        args, named = self.inputs.arguments(leaves)
        chosen = self.layer if layer is None else layer
        given = named if self.inputs.named else args
        there = Subject(chosen, given, self.seed, equation, self._limit)
        there._count, there.warnings = self._count, self.warnings
        return there

    def vmapped(self, stacked: Sequence[Tensor]) -> Tape:
        """The layer under `torch.func.vmap` over a new first axis of the inputs' slots.

        Raises:
            LayerError: It cannot be mapped.
        """
        own = [slot for slot in self.slots if slot.position is not None]
        tensors = [value.clone().requires_grad_() for value in stacked]

        def mapped(*parts: Tensor) -> Tensors:
            replaced = {slot.position: part for slot, part in zip(own, parts, strict=True)}
            return self.called_with(replaced)

        with foreign_errors("the layer under vmap"):
            outputs = torch.func.vmap(mapped, randomness="same")(*tensors)
        return Tape(outputs, tuple(tensors), outputs)

    def pulled_by_functions(self, output: int, cotangents: Tensor) -> Tensors:
        """Gradients of one output in the inputs' slots, by `torch.func.vjp` under `torch.func.vmap`.

        Raises:
            LayerError: The layer cannot be transformed so.
        """
        own = [slot for slot in self.slots if slot.position is not None]

        def value(*parts: Tensor) -> Tensor:
            replaced = {slot.position: part for slot, part in zip(own, parts, strict=True)}
            return self.called_with(replaced)[output]

        def pulled(cotangent: Tensor) -> Tensors:
            pull = torch.func.vjp(value, *(slot.value.detach() for slot in own))[1]
            return pull(cotangent)

        with foreign_errors("the layer under vmap"):
            return torch.func.vmap(pulled, randomness="same")(cotangents)

    def discover(self) -> Tape:
        """The first call, which finds outputs and captured tensors.

        Raises:
            LayerError: The layer raised, or returned no floating-point tensor.
        """
        tensors, whole = self._call([slot.value for slot in self.slots])
        self.structure = Outputs.of(whole)
        self.ignored += self.structure.ignored
        outputs = self.structure.tensors(whole)
        own = self._captured_in(outputs, {id(tensor) for tensor in tensors})
        extra = (Slot(name, leaf.detach().clone(), None, leaf) for name, leaf in own.values())
        self.slots = (*self.slots, *extra)
        return self._taped(outputs, (*tensors, *(leaf for _, leaf in own.values())), whole)

    def _captured_in(self, outputs: Tensors, inputs: set[int]) -> dict[int, tuple[str, Tensor]]:
        """Parameters and captured tensors with their names, by identity."""
        own: dict[int, tuple[str, Tensor]] = {}
        parameters = self.layer.named_parameters() if isinstance(self.layer, nn.Module) else ()
        for name, leaf in parameters:
            if leaf.requires_grad:
                own[id(leaf)] = (f"parameter {name}", leaf)
            else:
                self.ignored.append(f"parameter {name} (does not require gradients)")
        for holder in (self.layer, self._equation):
            for name, tensor in reachable_leaves(holder).items():
                if id(tensor) not in inputs:  # A layer may keep the inputs of its latest call.
                    own.setdefault(id(tensor), (f"captured {name}", tensor))
        for tensor in graph_leaves(outputs):
            if id(tensor) not in inputs and differentiable(tensor):
                name = f"captured tensor of shape {tuple(tensor.shape)}"
                own.setdefault(id(tensor), (name, tensor))
        return own

    def tape(self) -> Tape:
        """A call at the slots' own values, with its graph."""
        return self.tape_at([slot.value for slot in self.slots])

    def tape_at(self, values: Sequence[Tensor]) -> Tape:
        """A call with other tensors in the slots."""
        with written(self.slots, values):
            return self._tape(values)

    def tape_of(self, inputs: Sequence[Tensor]) -> Tape:
        """A call with other tensors as inputs, perhaps of other shapes or strides."""
        return self.tape_at(
            [
                slot.value if slot.position is None else value
                for slot, value in zip(self.slots, inputs, strict=True)
            ]
        )

    def complex_values(self, slot: int, value: Tensor) -> Tensors:
        """The outputs with a complex tensor in the slot of an input."""
        leaves, _ = self._filled([own.value for own in self.slots])
        leaves[self.slots[slot].position or 0] = value
        with torch.no_grad():
            return tuple(output.detach() for output in self.output_leaves(self._apply(leaves)))

    def is_random(self, tape: Tape) -> bool:
        """True if another seed gives other values than those of a call."""
        other = copy.copy(self)
        other.seed = self.seed + 1
        try:
            return distance_of(tape.values, other.tape().values) > 0
        except LayerError:
            return True

    @contextmanager
    def in_one(self, wanted: int) -> Iterator[Tape]:
        """A call in which one slot alone requires gradients, with that slot alone on its tape."""
        leaves, tensors = self._filled([slot.value for slot in self.slots])
        everything = (*tensors, *self._captured)
        others = [leaf for s, leaf in enumerate(everything) if s != wanted]
        for leaf in others:
            leaf.requires_grad_(False)
        try:
            whole = self._apply(leaves)
            tape = self._taped(self.output_leaves(whole), (everything[wanted],), whole)
            project = tape.projections.get(wanted)
            yield replace(tape, projections={} if project is None else {0: project}, originals={})
        finally:
            for leaf in others:
                leaf.requires_grad_(True)

    def tied(self, values: Sequence[Tensor], first: int, second: int) -> Tape:
        """A call with one tensor in the slots of two inputs."""
        with written(self.slots, values):
            leaves, tensors = self._filled(values)
            leaves[self.slots[second].position or 0] = tensors[first]
            whole = self._apply(leaves)
        inputs = list(tensors)
        inputs[second] = tensors[first]
        return self._taped(self.output_leaves(whole), (*inputs, *self._captured), whole)

    def values(self, values: Sequence[Tensor]) -> Tensors:
        """The outputs with other tensors in the slots."""
        return self.tape_at(values).values

    def gradients(self, values: Sequence[Tensor], cotangents: Sequence[Tensor | None]) -> Tensors:
        """Gradients in every slot with other tensors in the slots."""
        with written(self.slots, values):
            pulled = self._tape(values).pullback(cotangents)
            return tuple(gradient.detach() for gradient in pulled)

    def called_with(self, replaced: Mapping[int | None, Tensor]) -> Tensors:
        """The outputs with other tensors as inputs, by position among the leaves."""
        leaves = [replaced.get(i, leaf) for i, leaf in enumerate(self._arguments())]
        return self.output_leaves(self._apply(leaves))

    def output_leaves(self, whole: Any) -> Tensors:
        """The differentiable outputs in the value of the layer or of a residual."""
        return self.structure.tensors(whole) if self.structure is not None else ()

    def rebuild_output(self, whole: Any, outputs: Sequence[Tensor]) -> Any:
        """The layer's value with other tensors as its differentiable outputs."""
        return whole if self.structure is None else self.structure.filled(whole, outputs)

    @property
    def _captured(self) -> Tensors:
        """The tensors of the slots that are no inputs."""
        return tuple(slot.leaf for slot in self.slots if slot.leaf is not None)

    def _tape(self, values: Sequence[Tensor]) -> Tape:
        tensors, whole = self._call(values)
        return self._taped(self.output_leaves(whole), (*tensors, *self._captured), whole)

    def _taped(self, outputs: Tensors, tensors: Tensors, whole: Any) -> Tape:
        projections = {s: slot.project for s, slot in enumerate(self.slots) if slot.project}
        return Tape(
            outputs, tensors, whole, projections, self.originals, self.around, self.observed
        )

    def _call(self, values: Sequence[Tensor]) -> tuple[Tensors, Any]:
        leaves, tensors = self._filled(values)
        return tensors, self._apply(leaves)

    def _filled(self, values: Sequence[Tensor]) -> tuple[list[Any], Tensors]:
        """The leaves of the inputs with other values, and the tensors among them that are in slots."""
        leaves = self._arguments()
        tensors = []
        for slot, value in zip(self.slots, values, strict=True):
            if slot.position is not None:
                copied = _same_strides(value) if slot.rebuild is None else slot.rebuild(value)
                tensor = copied.requires_grad_()
                leaves[slot.position] = tensor
                tensors.append(tensor)
        return leaves, tuple(tensors)

    def _arguments(self) -> list[Any]:
        """Leaves for a call, copied where no slot replaces them: a layer may write into its arguments."""
        replaced = {slot.position for slot in self.slots}
        return [
            leaf.clone() if isinstance(leaf, Tensor) and i not in replaced else leaf
            for i, leaf in enumerate(self.inputs.leaves)
        ]

    def _apply(self, leaves: Sequence[Any]) -> Any:
        self._count[0] += 1
        args, named = self.inputs.arguments(leaves)
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always")
            with (
                random_state(self.seed),
                torch.enable_grad(),
                foreign_errors("the layer"),
                self._limit.running(),
                self.around(),
            ):
                value = self.layer(*args, **named)
        self.warnings.update(str(warning.message).splitlines()[0] for warning in raised)
        return value


def _same_strides(value: Tensor) -> Tensor:
    """A copy that a layer cannot distinguish from `value`: strided and expanded alike."""
    if any(
        stride == 0 and size > 1 for size, stride in zip(value.shape, value.stride(), strict=True)
    ):
        return value.detach()
    copy = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
    return copy.copy_(value.detach())
