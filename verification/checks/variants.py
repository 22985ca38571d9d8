"""Checks: the same computation presented otherwise has the same gradients.

Memory layout, expanded tensors, a second backward pass on one graph, the order of the rows of a batch, one
row alone, none, `vmap`, one tensor in the place of two, a call after another, another start of the
iteration: a derivative that depends on any of them is wrong in one of the two. Rows are compared only
where the layer's values say that rows are independent.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ...implicit import ImplicitLayer
from ..evidence import Evidence
from ..probes import moved_at_random
from ..setup import NotExercisedError, Setup
from ..subject import LayerError, Tape

_LAG = 1e3
_INDEPENDENT = 1e-3
"""Outputs of one row that differ by more with its neighbours depend on them."""
_OTHER_START = 0.1


def second_backward(setup: Setup) -> list[Evidence]:
    """A second backward pass on the same graph gives the same gradients."""
    found = []
    for o, _ in enumerate(setup.outputs):
        first = setup.gradients[0][o]
        again = setup.tape.pullback(setup.only(o, setup.probes[0][o]))
        found += _compared(setup, o, "second backward pass", first, again)
    return found


def memory_layout(setup: Setup) -> list[Evidence]:
    """Inputs that are not contiguous give the same gradients.

    Raises:
        NotExercisedError: No input has two axes.
    """
    values = [
        _strided(slot.value) if slot.position is not None else slot.value for slot in setup.slots
    ]
    if all(
        new.stride() == slot.value.stride() for new, slot in zip(values, setup.slots, strict=True)
    ):
        raise NotExercisedError("no input has two axes longer than 1")
    return _all_outputs(setup, "memory layout", _called(setup, values))


def expanded(setup: Setup) -> list[Evidence]:
    """Inputs whose rows share one piece of memory (`expand`) give the gradients of their copies.

    Raises:
        NotExercisedError: Inputs and outputs share no batch axis.
    """
    _, own = _batch(setup)
    shared = [
        slot.value[:1].expand_as(slot.value) if s in own else slot.value
        for s, slot in enumerate(setup.slots)
    ]
    copies = [value.clone(memory_format=torch.contiguous_format) for value in shared]
    there, expected = _called(setup, shared), _called(setup, copies)
    found = []
    for o, _ in enumerate(setup.outputs):
        cotangents = setup.only(o, setup.probes[0][o])
        found += _compared(
            setup, o, "expanded inputs", expected.pullback(cotangents),
            there.pullback(cotangents), _distance(expected.values, there.values),
        )  # fmt: skip
    return found


def rows(setup: Setup) -> list[Evidence]:
    """A batch in another order, and its last row alone, give each row the same gradients.

    Raises:
        NotExercisedError: Inputs and outputs share no batch axis, or its rows depend on each other.
    """
    batch, own = _batch(setup)
    order = torch.roll(torch.arange(batch), 1)
    return _rows(setup, "permuted batch", own, order) + _rows(
        setup, "a row alone", own, torch.tensor([batch - 1])
    )


def empty_batch(setup: Setup) -> list[Evidence]:
    """A batch of no rows gives every other tensor the gradient zero.

    Raises:
        NotExercisedError: Inputs and outputs share no batch axis, or the layer takes no empty batch.
    """
    _, own = _batch(setup)
    tape = _called(setup, _chosen(setup, own, torch.arange(0)))
    if any(value.shape[:1] != (0,) for value in tape.values):
        raise NotExercisedError("an empty batch gives an output with rows")
    found = []
    for o, output in enumerate(setup.outputs):
        try:
            gradients = tape.pullback(setup.only(o, setup.probes[0][o][:0]))
        except LayerError as error:
            raise NotExercisedError(f"with an empty batch {error}") from error
        for s, slot in enumerate(setup.slots):
            size = float(setup.gradients[0][o][s].double().norm())
            left = float(gradients[s].double().norm())
            found.append(
                Evidence(
                    "empty batch", output, slot.name,
                    error=left if left == left else torch.inf,
                    scale=size,
                    floor=setup.underflow(o, s),
                    reference=False,
                )
            )  # fmt: skip
    return found


def vmapped(setup: Setup) -> list[Evidence]:
    """The layer mapped by `torch.func.vmap` over two inputs gives each the gradients it has alone.

    Raises:
        NotExercisedError: The layer has no batching rule, or no input to map over.
    """
    own = [s for s, slot in enumerate(setup.slots) if slot.position is not None]
    if not own:
        raise NotExercisedError("no input requires gradients")
    here = [slot.value for slot in setup.slots]
    there = [0.5 * value for value in here]
    try:
        both = setup.subject.vmapped([torch.stack((here[s], there[s])) for s in own])
    except LayerError as error:
        raise NotExercisedError(str(error)) from error
    alone = (setup.tape, _called(setup, there))
    found = []
    for o, _ in enumerate(setup.outputs):
        w = setup.probes[0][o]
        try:
            mapped = both.pullback(setup.only(o, torch.stack((w, w))))
        except LayerError as error:
            raise NotExercisedError(f"under vmap {error}") from error
        for which, tape in enumerate(alone):
            expected = tape.pullback(setup.only(o, w))
            distance = _distance(tape.values, [value[which] for value in both.values])
            said = [torch.zeros_like(gradient) for gradient in expected]
            for position, s in enumerate(own):
                said[s] = mapped[position][which]
            pieces = _compared(setup, o, "vmap", expected, said, distance)
            found += [pieces[s] for s in own]
    return found


def tied_inputs(setup: Setup) -> list[Evidence]:
    """One tensor in the place of two inputs gets the sum of their gradients.

    Raises:
        NotExercisedError: No two inputs have the same shape and dtype.
    """
    first, second = _alike(setup)
    shared = setup.slots[first].value
    values = [shared if s == second else slot.value for s, slot in enumerate(setup.slots)]
    apart = _called(setup, values)
    try:
        together = setup.subject.tied(values, first, second)
    except LayerError as error:
        raise NotExercisedError(f"the layer does not take one tensor twice: {error}") from error
    found = []
    for o, _ in enumerate(setup.outputs):
        cotangents = setup.only(o, setup.probes[0][o])
        expected, says = list(apart.pullback(cotangents)), together.pullback(cotangents)
        expected[first] = expected[first] + expected[second]
        pieces = _compared(
            setup, o, "tied inputs", expected, says, _distance(apart.values, together.values)
        )
        found += [piece for s, piece in enumerate(pieces) if s != second]
    return found


def after_another_call(setup: Setup) -> list[Evidence]:
    """Gradients do not depend on the call before."""
    _called(setup, [0.5 * slot.value for slot in setup.slots])
    return _all_outputs(setup, "after another call", setup.subject.tape())


def start_of_the_iteration(setup: Setup) -> list[Evidence]:
    """Gradients do not depend on where the iteration of an `ImplicitLayer` starts.

    Raises:
        NotExercisedError: The layer is none.
    """
    layer = setup.subject.layer
    if not isinstance(layer, ImplicitLayer):
        raise NotExercisedError("the start of the iteration is not known")
    moved = copy.copy(layer)
    generator = setup.generator(8)

    # Near the solution, so that an equation with several gives the same.
    start = tree_map(
        lambda leaf: moved_at_random(leaf.detach(), _OTHER_START, generator), setup.tape.whole
    )
    moved.init = lambda *inputs: start
    _, tape = setup.subject.like(moved)
    if _distance(setup.tape.values, tape.values) > _INDEPENDENT:
        raise NotExercisedError("another start gives another solution")
    return _all_outputs(setup, "start of the iteration", tape)


def _alike(setup: Setup) -> tuple[int, int]:
    own = [s for s, slot in enumerate(setup.slots) if slot.position is not None]
    for place, first in enumerate(own):
        for second in own[place + 1 :]:
            a, b = setup.slots[first].value, setup.slots[second].value
            if a.shape == b.shape and a.dtype == b.dtype:
                return first, second
    raise NotExercisedError("no two inputs have the same shape")


def _rows(setup: Setup, name: str, own: frozenset[int], index: Tensor) -> list[Evidence]:
    tape = _called(setup, _chosen(setup, own, index))
    distance = _distance([value[index] for value in setup.tape.values], tape.values)
    if distance > _INDEPENDENT:
        raise NotExercisedError("the rows of the batch depend on each other")
    found = []
    for o, _ in enumerate(setup.outputs):
        cotangent = torch.zeros_like(setup.probes[0][o])
        cotangent[index] = setup.probes[0][o][index]
        reference = setup.tape.pullback(setup.only(o, cotangent))
        gradients = tape.pullback(setup.only(o, cotangent[index]))
        spread = [
            torch.zeros_like(whole).index_copy(0, index, part) if s in own else part
            for s, (whole, part) in enumerate(zip(reference, gradients, strict=True))
        ]
        found += _compared(setup, o, name, reference, spread, distance)
    return found


def _batch(setup: Setup) -> tuple[int, frozenset[int]]:
    """The size of the batch, and the inputs that have its axis first.

    An input that has another axis of that size first is told by the values, which then do not agree.
    """
    sizes = {value.shape[0] if value.ndim > 1 else 0 for value in setup.tape.values}
    batch = sizes.pop() if len(sizes) == 1 else 0
    own = frozenset(
        s
        for s, slot in enumerate(setup.slots)
        if slot.position is not None and slot.value.ndim > 1 and slot.value.shape[0] == batch
    )
    if batch < 2 or not own:
        raise NotExercisedError("inputs and outputs share no batch axis")
    if setup.subject.ignored:
        raise NotExercisedError("inputs that require no gradients may belong to rows")
    return batch, own


def _chosen(setup: Setup, own: frozenset[int], index: Tensor) -> list[Tensor]:
    """Rows of the inputs that have them."""
    return [slot.value[index] if s in own else slot.value for s, slot in enumerate(setup.slots)]


def _strided(value: Tensor) -> Tensor:
    if value.ndim < 2:
        return value
    return value.mT.contiguous().mT


def _called(setup: Setup, values: Sequence[Tensor]) -> Tape:
    try:
        return setup.subject.tape_of(values)
    except LayerError as error:
        raise NotExercisedError(f"the layer does not take such inputs: {error}") from error


def _distance(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Relative distance of two calls' outputs."""
    distance = 0.0
    for a, b in zip(before, after, strict=True):
        if a.shape != b.shape:
            return torch.inf
        size = float(a.double().norm())
        difference = float((a.double() - b.double()).norm())
        distance = max(distance, difference / size if size > 0 else difference)
    return distance


def _all_outputs(setup: Setup, name: str, tape: Tape) -> list[Evidence]:
    distance = _distance(setup.tape.values, tape.values)
    found = []
    for o, _ in enumerate(setup.outputs):
        gradients = tape.pullback(setup.only(o, setup.probes[0][o]))
        found += _compared(setup, o, name, setup.gradients[0][o], gradients, distance)
    return found


def _compared(
    setup: Setup,
    o: int,
    name: str,
    expected: Sequence[Tensor],
    says: Sequence[Tensor],
    distance: float = 0.0,
) -> list[Evidence]:
    """Evidence for every slot.

    Another call may have ended at another iterate: `distance` is the relative one of the values,
    and a gradient lags behind its value.
    """
    found = []
    for s, slot in enumerate(setup.slots):
        right, other = expected[s].detach().double(), says[s].detach().double()
        scale = float(right.norm())
        doubt = 0.0 if setup.solver_is_known else _LAG * distance * scale
        found.append(
            Evidence(
                name, setup.outputs[o], slot.name,
                error=float((right - other).norm()),
                scale=scale,
                floor=2 * setup.relative_floor(o, s) * scale + setup.underflow(o, s),
                slack=setup.known_slack(o, s),
                lag=setup.lag,
                doubt=doubt,
                reference=False,
                worst=setup.component(s, other, right),
            )
        )  # fmt: skip
    return found
