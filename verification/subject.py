"""Any layer as a flat function: tensors in named slots in, output tensors out.

A slot is a tensor that the outputs may depend on: an input that requires gradients, a parameter, a
tensor that the layer closes over. Inputs are replaced in the call; the others are written into in place,
so that a layer sees them however it reaches them, and restored afterwards. Every call runs under the
same random state.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, keystr, tree_flatten_with_path, tree_unflatten

from .reachable import graph_leaves, reachable_leaves
from .time_limit import TimeLimit

Tensors = tuple[Tensor, ...]


class LayerError(Exception):
    """The layer raised, or returned something that is no output."""


class NoForwardModeError(Exception):
    """The layer has no forward-mode derivative."""


@dataclass(frozen=True)
class Slot:
    """A tensor that the layer may be differentiated in.

    Attributes:
        name: `"input 0"`, `"parameter linear.weight"`, `"captured w"`.
        value: Its value, detached.
        position: Where it is among the leaves of the inputs, or `None`.
        leaf: The tensor itself, where it is not an input.
    """

    name: str
    value: Tensor
    position: int | None = None
    leaf: Tensor | None = None


@dataclass(frozen=True)
class Tape:
    """One call of the layer, and its derivatives as autograd gives them.

    Attributes:
        outputs: The floating-point outputs, attached.
        tensors: What stands in each slot.
        whole: The output as the layer returned it.
    """

    outputs: Tensors
    tensors: Tensors
    whole: Any

    @property
    def values(self) -> Tensors:
        return tuple(output.detach() for output in self.outputs)

    @property
    def finite(self) -> bool:
        """Whether all outputs are."""
        return all(bool(torch.isfinite(value).all()) for value in self.values)

    def connected(self) -> tuple[bool, ...]:
        """For each output whether it has an autograd graph at all."""
        return tuple(output.requires_grad for output in self.outputs)

    def pullback(self, cotangents: Sequence[Tensor | None], create_graph: bool = False) -> Tensors:
        """Gradients of `Σ ⟨cotangent, output⟩` in every slot; a missing graph gives zero.

        Raises:
            LayerError: The backward pass raised.
        """
        pairs = [
            (output, cotangent)
            for output, cotangent in zip(self.outputs, cotangents, strict=True)
            if cotangent is not None and output.requires_grad
        ]
        if not pairs:
            return tuple(torch.zeros_like(tensor) for tensor in self.tensors)
        with _foreign("the backward pass"):
            found = torch.autograd.grad(
                [output for output, _ in pairs],
                self.tensors,
                [cotangent for _, cotangent in pairs],
                retain_graph=True,
                create_graph=create_graph,
                allow_unused=True,
            )
        return tuple(
            torch.zeros_like(tensor) if gradient is None else gradient
            for tensor, gradient in zip(self.tensors, found, strict=True)
        )


class Subject:
    """The layer under verification.

    Args:
        layer: Called as `layer(*inputs)`.
        inputs: A tensor, a tuple or list of arguments (pytrees), or a dictionary of named arguments.
        seed: Of the random state that every call sees.
        equation: The layer's residual, whose tensors count as the layer's.
        time_limit: Of all calls together.

    Attributes:
        slots: What the layer may be differentiated in.
        outputs: Names of the floating-point outputs.
        ignored: What is not checked, in words.
        calls: How often the layer has been called, those of its `like` and `at` included.
        warnings: First lines of the warnings that it raised.
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
        self.ignored: list[str] = []
        self.warnings: set[str] = set()
        self._named = isinstance(inputs, dict)
        arguments = inputs if isinstance(inputs, (tuple, list, dict)) else (inputs,)
        paths, self._spec = tree_flatten_with_path(arguments if self._named else tuple(arguments))
        self._leaves = [leaf.detach() if isinstance(leaf, Tensor) else leaf for _, leaf in paths]
        slots = []
        for position, (path, leaf) in enumerate(paths):
            name = f"input {_path(path)}"
            if isinstance(leaf, Tensor) and leaf.requires_grad and leaf.is_floating_point():
                slots.append(Slot(name, leaf.detach(), position))
            elif isinstance(leaf, Tensor):
                what = "does not require gradients" if leaf.is_floating_point() else leaf.dtype
                self.ignored.append(f"{name} ({what})")
        self.slots: tuple[Slot, ...] = tuple(slots)
        self.outputs: tuple[str, ...] = ()
        self._wanted: list[int] = []
        self._out_spec: TreeSpec | None = None

    @property
    def calls(self) -> int:
        return self._count[0]

    def like(self, layer: Callable[..., Any]) -> tuple[Subject, Tape]:
        """Another layer in the place of this one, with the same slots, and its first call.

        Raises:
            LayerError: It does not use the tensors that this one captures.
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
        """The layer, or another, at other values of the inputs, yet to be discovered.

        Args:
            change: Gives the new value of every floating-point input.
            layer: Another layer.
            equation: Its residual.
        """
        wanted = {slot.position for slot in self.slots}
        leaves = [
            change(leaf).detach().requires_grad_(position in wanted)
            if isinstance(leaf, Tensor) and leaf.is_floating_point()
            else leaf
            for position, leaf in enumerate(self._leaves)
        ]
        args, named = self.rebuild(leaves)
        chosen = self.layer if layer is None else layer
        there = Subject(chosen, named if self._named else args, self.seed, equation, self._limit)
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
            leaves = list(self._leaves)
            for slot, part in zip(own, parts, strict=True):
                leaves[slot.position or 0] = part
            return self._outputs_of(self._apply(leaves))

        with _foreign("the layer under vmap"):
            outputs = torch.func.vmap(mapped, randomness="same")(*tensors)
        return Tape(outputs, tuple(tensors), outputs)

    def discover(self) -> Tape:
        """The first call: finds outputs and captured tensors.

        Raises:
            LayerError: The layer raised, or returned no floating-point tensor.
        """
        values = [slot.value for slot in self.slots]
        tensors, whole = self._call(values)
        paths, self._out_spec = tree_flatten_with_path(whole)
        names = []
        for position, (path, leaf) in enumerate(paths):
            name = f"output {_path(path)}".strip()
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                self._wanted.append(position)
                names.append(name)
            else:
                kind = leaf.dtype if isinstance(leaf, Tensor) else type(leaf).__name__
                self.ignored.append(f"{name} ({kind})")
        if not names:
            raise LayerError("the layer returned no floating-point tensor")
        self.outputs = tuple(names)
        outputs = tuple(paths[position][1] for position in self._wanted)
        inputs = {id(tensor) for tensor in tensors}
        own: dict[int, tuple[str, Tensor]] = {}
        parameters = self.layer.named_parameters() if isinstance(self.layer, nn.Module) else ()
        for name, leaf in parameters:
            if leaf.requires_grad:
                own[id(leaf)] = (f"parameter {name}", leaf)
            else:
                self.ignored.append(f"parameter {name} (does not require gradients)")
        for name, leaf in reachable_leaves(self.layer).items():
            own.setdefault(id(leaf), (f"captured {name}", leaf))
        for name, leaf in reachable_leaves(self._equation).items():
            own.setdefault(id(leaf), (f"captured {name}", leaf))
        for leaf in graph_leaves(outputs):
            if id(leaf) not in inputs and leaf.is_floating_point():
                own.setdefault(id(leaf), (f"captured tensor of shape {tuple(leaf.shape)}", leaf))
        extra = tuple(Slot(name, leaf.detach().clone(), None, leaf) for name, leaf in own.values())
        self.slots = (*self.slots, *extra)
        return Tape(outputs, (*tensors, *(leaf for _, leaf in own.values())), whole)

    def tape(self) -> Tape:
        """A call at the slots' own values, with its graph."""
        return self._tape([slot.value for slot in self.slots])

    def tape_of(self, inputs: Sequence[Tensor]) -> Tape:
        """A call with other tensors as inputs, perhaps of other shapes or strides."""
        return self._tape(
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
            whole = self._apply(leaves)
        return tuple(output.detach() for output in self._outputs_of(whole))

    def tied(self, values: Sequence[Tensor], first: int, second: int) -> Tape:
        """A call with one tensor in the slots of two inputs."""
        with written(self.slots, values):
            leaves, tensors = self._filled(values)
            leaves[self.slots[second].position or 0] = tensors[first]
            whole = self._apply(leaves)
        inputs = list(tensors)
        inputs[second] = tensors[first]
        own = [slot.leaf for slot in self.slots if slot.leaf is not None]
        return Tape(self._outputs_of(whole), (*inputs, *own), whole)

    def values(self, values: Sequence[Tensor]) -> Tensors:
        """The outputs with other tensors in the slots."""
        return self._tape(values).values

    def gradients(self, values: Sequence[Tensor], cotangents: Sequence[Tensor | None]) -> Tensors:
        """Gradients in every slot with other tensors in the slots."""
        with written(self.slots, values):
            tensors, whole = self._call(values)
            leaves = [slot.leaf for slot in self.slots if slot.leaf is not None]
            tape = Tape(self._outputs_of(whole), (*tensors, *leaves), whole)
            return tuple(gradient.detach() for gradient in tape.pullback(cotangents))

    def _tape(self, values: Sequence[Tensor]) -> Tape:
        with written(self.slots, values):
            tensors, whole = self._call(values)
        outputs = self._outputs_of(whole)
        leaves = [slot.leaf for slot in self.slots if slot.leaf is not None]
        return Tape(outputs, (*tensors, *leaves), whole)

    def pushforward(self, tangents: Sequence[Tensor]) -> Tensors:
        """Tangents of the outputs in forward mode.

        Raises:
            NoForwardModeError: The layer has none, or a slot of it is no input.
        """
        self._check_tangents(tangents)
        with forward_ad.dual_level():
            found = [forward_ad.unpack_dual(output) for output in self._dual_call(tangents)[1]]
            return tuple(
                torch.zeros_like(dual.primal) if dual.tangent is None else dual.tangent.detach()
                for dual in found
            )

    def pushforward_of_gradients(
        self, tangents: Sequence[Tensor], cotangents: Sequence[Tensor | None]
    ) -> Tensors:
        """Tangents of the gradients in the inputs' slots: forward over reverse mode.

        A gradient without a tangent counts as constant. Other slots get zeros.

        Raises:
            NoForwardModeError: The layer, or its backward pass, has no forward mode.
        """
        self._check_tangents(tangents)
        with forward_ad.dual_level():
            duals, outputs = self._dual_call(tangents)
            tape = Tape(outputs, tuple(duals.values()), outputs)
            try:
                gradients = tape.pullback(cotangents, create_graph=True)
            except LayerError as error:
                raise NoForwardModeError(str(error)) from error
            found = iter([forward_ad.unpack_dual(gradient).tangent for gradient in gradients])
            return tuple(
                torch.zeros_like(slot.value)
                if slot.position is None or (tangent := next(found)) is None
                else tangent.detach()
                for slot in self.slots
            )

    def _check_tangents(self, tangents: Sequence[Tensor]) -> None:
        if any(
            slot.leaf is not None and bool(t.any())
            for slot, t in zip(self.slots, tangents, strict=True)
        ):
            raise NoForwardModeError("captured tensors cannot carry tangents")

    def _dual_call(self, tangents: Sequence[Tensor]) -> tuple[dict[int, Tensor], Tensors]:
        """The inputs as dual numbers, by position, and the outputs; inside of a dual level."""
        duals = {
            slot.position: forward_ad.make_dual(slot.value.clone().requires_grad_(), tangent)
            for slot, tangent in zip(self.slots, tangents, strict=True)
            if slot.position is not None
        }
        leaves = [duals.get(i, leaf) for i, leaf in enumerate(self._leaves)]
        try:
            return duals, self._outputs_of(self._apply(leaves))
        except (NotImplementedError, RuntimeError, LayerError) as error:
            raise NoForwardModeError(str(error).splitlines()[0]) from error

    def argument_leaves(self) -> list[Any]:
        """The leaves of the inputs, detached, to be refilled and given to `rebuild`."""
        return list(self._leaves)

    def rebuild(self, leaves: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and named arguments from the leaves of the inputs."""
        built = tree_unflatten(leaves, self._spec)
        return ((), built) if self._named else (tuple(built), {})

    def rebuild_output(self, whole: Any, outputs: Sequence[Tensor]) -> Any:
        """The structure that the layer returned, with other floating-point tensors in it."""
        leaves, spec = tree_flatten_with_path(whole)
        filled = [leaf for _, leaf in leaves]
        for position, output in zip(self._wanted, outputs, strict=True):
            filled[position] = output
        return tree_unflatten(filled, spec)

    def output_leaves(self, whole: Any) -> Tensors:
        """The floating-point outputs in what the layer, or a residual, returned."""
        return self._outputs_of(whole)

    def _outputs_of(self, whole: Any) -> Tensors:
        paths, spec = tree_flatten_with_path(whole)
        if self._out_spec is not None and spec != self._out_spec:
            raise LayerError("the layer returned another structure than before")
        return tuple(paths[position][1] for position in self._wanted)

    def _call(self, values: Sequence[Tensor]) -> tuple[Tensors, Any]:
        leaves, tensors = self._filled(values)
        return tensors, self._apply(leaves)

    def _filled(self, values: Sequence[Tensor]) -> tuple[list[Any], Tensors]:
        """The leaves of the inputs with other values, and those among them that are in slots."""
        leaves = list(self._leaves)
        tensors = []
        for slot, value in zip(self.slots, values, strict=True):
            if slot.position is not None:
                tensor = _same_strides(value).requires_grad_()
                leaves[slot.position] = tensor
                tensors.append(tensor)
        return leaves, tuple(tensors)

    def _apply(self, leaves: Sequence[Any]) -> Any:
        self._count[0] += 1
        args, named = self.rebuild(leaves)
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always")
            with (
                random_state(self.seed),
                torch.enable_grad(),
                _foreign("the layer"),
                self._limit.running(),
            ):
                value = self.layer(*args, **named)
        self.warnings.update(str(warning.message).splitlines()[0] for warning in raised)
        return value


def _same_strides(value: Tensor) -> Tensor:
    """A copy that a layer may not tell from `value`: strided and expanded alike."""
    if any(
        stride == 0 and size > 1 for size, stride in zip(value.shape, value.stride(), strict=True)
    ):
        return value.detach()
    copy = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
    return copy.copy_(value.detach())


def _path(path: Any) -> str:
    """`0` for the first of several, `0['a']` for an entry of a dictionary in it, `` for the only one."""
    if not path:
        return ""
    first, *rest = path
    text = keystr((first,)).strip("[].'\"")
    return text + keystr(tuple(rest))


@contextmanager
def random_state(seed: int) -> Iterator[None]:
    """The random state of a fixed seed, and the one from before afterwards."""
    # Not torch.manual_seed, which takes longer than a small layer where accelerators sleep.
    awake = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=awake):
        torch.set_rng_state(_state_of(seed))
        if awake:
            torch.cuda.manual_seed(seed)
        yield


@functools.lru_cache(maxsize=8)
def _state_of(seed: int) -> Tensor:
    return torch.Generator().manual_seed(seed).get_state()


@contextmanager
def written(slots: Sequence[Slot], values: Sequence[Tensor]) -> Iterator[None]:
    """While active, the tensors that are no inputs hold other values."""
    changed = [
        (slot.leaf, slot.value, value)
        for slot, value in zip(slots, values, strict=True)
        if slot.leaf is not None and value is not slot.value
    ]
    try:
        for leaf, _, value in changed:
            leaf.data.copy_(value)
        yield
    finally:
        for leaf, before, _ in changed:
            leaf.data.copy_(before)


@contextmanager
def _foreign(what: str) -> Iterator[None]:
    """Turn whatever somebody else's code raises into a `LayerError`."""
    try:
        yield
    except LayerError:
        raise
    except Exception as error:
        text = str(error).strip().splitlines()
        raise LayerError(
            f"{what} raised {type(error).__name__}: {text[0] if text else ''}"
        ) from error
