"""Checks: equivalent computations have the same gradients.

They vary the memory layout, expanded tensors, a second backward pass on one graph, the order of a batch,
single and missing rows, `vmap`, one tensor in place of two, earlier calls and the start of the iteration. A
derivative that depends on any of these is wrong in one of the two. Rows are compared only if the layer's
values show that rows are independent.
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
from ..real import distance_of
from ..session import NotExercisedError, Session
from ..subject import LayerError, Tape
from .comparing import all_outputs, compared, same_values, vanishing
from .measuring import doubt_of

_INDEPENDENT = 1e-3
"""If the outputs of a row change by more than this with its neighbours, rows are dependent."""
_OTHER_START = 0.1
_FURTHER = 100.0
"""Two unfinished iterations may be apart by this multiple of their distance from the root."""
_LARGER = (1, 33)
"""Rows of a larger batch beyond the given ones, and beyond a block of 32."""


def second_backward(session: Session) -> list[Evidence]:
    """A second backward pass on the same graph gives the same gradients."""
    found = []
    for o, _ in enumerate(session.outputs):
        first = session.gradients[0][o]
        again = session.tape.pullback(session.only(o, session.probes[0][o]))
        found += compared(session, o, "second backward pass", first, again)
    return found


def memory_layout(session: Session) -> list[Evidence]:
    """Non-contiguous inputs give the same gradients.

    Raises:
        NotExercisedError: All inputs have fewer than two axes.
    """
    values = [
        _strided(slot.value) if slot.position is not None else slot.value for slot in session.slots
    ]
    if all(
        new.stride() == slot.value.stride() for new, slot in zip(values, session.slots, strict=True)
    ):
        raise NotExercisedError("no input has two axes longer than 1")
    return all_outputs(session, "memory layout", _called(session, values))


def expanded(session: Session) -> list[Evidence]:
    """Inputs whose rows share one piece of memory (`expand`) give the gradients of their copies.

    Raises:
        NotExercisedError: Inputs and outputs share no batch axis.
    """
    _, own = _batch(session)
    shared = [
        slot.value[:1].expand_as(slot.value) if s in own else slot.value
        for s, slot in enumerate(session.slots)
    ]
    copies = [value.clone(memory_format=torch.contiguous_format) for value in shared]
    there, expected = _called(session, shared), _called(session, copies)
    found = []
    for o, _ in enumerate(session.outputs):
        cotangents = session.only(o, session.probes[0][o])
        found += compared(
            session, o, "expanded inputs", expected.pullback(cotangents),
            there.pullback(cotangents), distance_of(expected.values, there.values),
        )  # fmt: skip
    return found


def rows(session: Session) -> list[Evidence]:
    """A batch in another order, and its last row alone, give each row the same gradients.

    Raises:
        NotExercisedError: Inputs and outputs share no batch axis, or its rows depend on each other.
    """
    batch, own = _batch(session)
    order = torch.roll(torch.arange(batch), 1)
    return _rows(session, "permuted batch", own, order) + _rows(
        session, "a row alone", own, torch.tensor([batch - 1])
    )


def larger_batch(session: Session) -> list[Evidence]:
    """The rows repeated in a larger batch get the gradients that they have in the given one.

    Each repetition has its own part of the cotangent, so tensors that all rows share get the sum of the
    parts'.

    Raises:
        NotExercisedError: Inputs and outputs share no batch axis, or its rows depend on each other.
    """
    batch, own = _batch(session)
    found = []
    for more in _LARGER:
        order = torch.arange(batch + more) % batch
        tape = _called(session, _chosen(session, own, order))
        distance = distance_of([value[order] for value in session.tape.values], tape.values)
        if distance > _INDEPENDENT:
            raise NotExercisedError("the rows of the batch depend on each other")
        for o, _ in enumerate(session.outputs):
            w = session.probes[0][o]
            cotangent = w[order] * (1 + order.roll(3).reshape(-1, *[1] * (w.ndim - 1)) % 3).to(
                w.dtype
            )
            gradients = tape.pullback(session.only(o, cotangent))
            expected = [torch.zeros_like(g) for g in gradients]
            for start in range(0, batch + more, batch):
                rows_here = slice(start, min(start + batch, batch + more))
                part = torch.zeros_like(w)
                part[: rows_here.stop - start] = cotangent[rows_here]
                for s, g in enumerate(session.tape.pullback(session.only(o, part))):
                    if s in own:
                        expected[s][rows_here] = g[: rows_here.stop - start]
                    else:
                        expected[s] = expected[s] + g
            found += compared(session, o, "a larger batch", expected, gradients, distance)
    return found


def empty_batch(session: Session) -> list[Evidence]:
    """An empty batch gives every other tensor a gradient of zero.

    Raises:
        NotExercisedError: Inputs and outputs share no batch axis, or the layer takes no empty batch.
    """
    _, own = _batch(session)
    tape = _called(session, _chosen(session, own, torch.arange(0)))
    if any(value.shape[:1] != (0,) for value in tape.values):
        raise NotExercisedError("an empty batch gives an output with rows")
    found = []
    for o in range(len(session.outputs)):
        try:
            gradients = tape.pullback(session.only(o, session.probes[0][o][:0]))
        except LayerError as error:
            raise NotExercisedError(f"with an empty batch {error}") from error
        found += vanishing(session, o, "empty batch", gradients)
    return found


def vmapped(session: Session) -> list[Evidence]:
    """The layer mapped by `torch.func.vmap` over two inputs gives each the gradients it has alone.

    Raises:
        NotExercisedError: The layer has no batching rule, or no input to map over.
    """
    own = [s for s, slot in enumerate(session.slots) if slot.position is not None]
    if not own:
        raise NotExercisedError("no input requires gradients")
    here = [slot.value for slot in session.slots]
    there = [0.5 * value for value in here]
    try:
        both = session.subject.vmapped([torch.stack((here[s], there[s])) for s in own])
    except LayerError as error:
        raise NotExercisedError(str(error)) from error
    alone = (session.tape, _called(session, there))
    found = []
    for o, _ in enumerate(session.outputs):
        w = session.probes[0][o]
        try:
            mapped = both.pullback(session.only(o, torch.stack((w, w))))
        except LayerError as error:
            raise NotExercisedError(f"under vmap {error}") from error
        for which, tape in enumerate(alone):
            expected = tape.pullback(session.only(o, w))
            distance = distance_of(tape.values, [value[which] for value in both.values])
            if distance > _another_value(session):
                fault = f"under vmap the layer has other values, by {distance:.1e}"
                return [
                    Evidence("vmap", output, slot.name, 0.0, 0.0, 0.0, reference=False, fault=fault)
                    for output in session.outputs
                    for slot in session.slots
                ]
            said = [torch.zeros_like(gradient) for gradient in expected]
            for position, s in enumerate(own):
                said[s] = mapped[position][which]
            pieces = compared(session, o, "vmap", expected, said, distance)
            found += [pieces[s] for s in own]
    return found


def _another_value(session: Session) -> float:
    """The relative distance above which two values are not those of one function.

    Raises:
        NotExercisedError: The layer draws random numbers, which `vmap` draws otherwise.
    """
    if session.random:
        raise NotExercisedError("the layer draws random numbers, which vmap draws otherwise")
    solver = session.solver_error if session.solver_is_known else 0.0
    jumps = max((doubt_of(session, s) for s in range(len(session.slots))), default=0.0)
    return same_values(session) + _FURTHER * solver + jumps


def tied_inputs(session: Session) -> list[Evidence]:
    """One tensor in the place of two inputs gets the sum of their gradients.

    Raises:
        NotExercisedError: All inputs differ in shape or dtype.
    """
    first, second = _alike(session)
    shared = session.slots[first].value
    values = [shared if s == second else slot.value for s, slot in enumerate(session.slots)]
    apart = _called(session, values)
    try:
        together = session.subject.tied(values, first, second)
    except LayerError as error:
        raise NotExercisedError(f"the layer does not take one tensor twice: {error}") from error
    found = []
    for o, _ in enumerate(session.outputs):
        cotangents = session.only(o, session.probes[0][o])
        expected, says = list(apart.pullback(cotangents)), together.pullback(cotangents)
        expected[first] = expected[first] + expected[second]
        pieces = compared(
            session, o, "tied inputs", expected, says, distance_of(apart.values, together.values)
        )
        found += [piece for s, piece in enumerate(pieces) if s != second]
    return found


def after_another_call(session: Session) -> list[Evidence]:
    """Gradients do not depend on the call before."""
    _called(session, [0.5 * slot.value for slot in session.slots])
    return all_outputs(session, "after another call", session.subject.tape())


def start_of_the_iteration(session: Session) -> list[Evidence]:
    """Gradients do not depend on the start of the iteration of an `ImplicitLayer`.

    Raises:
        NotExercisedError: The layer is not an `ImplicitLayer`.
    """
    layer = session.subject.layer
    if not isinstance(layer, ImplicitLayer):
        raise NotExercisedError("the start of the iteration is not known")
    moved = copy.copy(layer)
    generator = session.generator(8)

    # Near the solution, so that the same one of several solutions is found.
    found = session.tape.whole[0] if layer.settings.has_aux else session.tape.whole
    start = tree_map(lambda leaf: moved_at_random(leaf.detach(), _OTHER_START, generator), found)
    moved.init = lambda *inputs: start
    _, tape = session.subject.like(moved)
    if distance_of(session.tape.values, tape.values) > _INDEPENDENT:
        raise NotExercisedError("another start gives another solution")
    return all_outputs(session, "start of the iteration", tape)


def _alike(session: Session) -> tuple[int, int]:
    own = [s for s, slot in enumerate(session.slots) if slot.position is not None]
    for place, first in enumerate(own):
        for second in own[place + 1 :]:
            a, b = session.slots[first].value, session.slots[second].value
            if a.shape == b.shape and a.dtype == b.dtype:
                return first, second
    raise NotExercisedError("no two inputs have the same shape")


def _rows(session: Session, name: str, own: frozenset[int], index: Tensor) -> list[Evidence]:
    tape = _called(session, _chosen(session, own, index))
    distance = distance_of([value[index] for value in session.tape.values], tape.values)
    if distance > _INDEPENDENT:
        raise NotExercisedError("the rows of the batch depend on each other")
    found = []
    for o, _ in enumerate(session.outputs):
        cotangent = torch.zeros_like(session.probes[0][o])
        cotangent[index] = session.probes[0][o][index]
        reference = session.tape.pullback(session.only(o, cotangent))
        gradients = tape.pullback(session.only(o, cotangent[index]))
        spread = [
            torch.zeros_like(whole).index_copy(0, index, part) if s in own else part
            for s, (whole, part) in enumerate(zip(reference, gradients, strict=True))
        ]
        found += compared(session, o, name, reference, spread, distance)
    return found


def _batch(session: Session) -> tuple[int, frozenset[int]]:
    """The size of the batch, and the inputs that have its axis first.

    If the first axis of an input only happens to have that size, values differ, and the check is left out.
    """
    sizes = {value.shape[0] if value.ndim > 1 else 0 for value in session.tape.values}
    batch = sizes.pop() if len(sizes) == 1 else 0
    own = frozenset(
        s
        for s, slot in enumerate(session.slots)
        if slot.position is not None and slot.value.ndim > 1 and slot.value.shape[0] == batch
    )
    if batch < 2 or not own:
        raise NotExercisedError("inputs and outputs share no batch axis")
    if session.subject.ignored:
        raise NotExercisedError("inputs that require no gradients may belong to rows")
    return batch, own


def _chosen(session: Session, own: frozenset[int], index: Tensor) -> list[Tensor]:
    """Rows of the inputs that have a batch axis."""
    return [slot.value[index] if s in own else slot.value for s, slot in enumerate(session.slots)]


def _strided(value: Tensor) -> Tensor:
    if value.ndim < 2:
        return value
    return value.mT.contiguous().mT


def _called(session: Session, values: Sequence[Tensor]) -> Tape:
    try:
        return session.subject.tape_of(values)
    except LayerError as error:
        raise NotExercisedError(f"the layer does not take such inputs: {error}") from error
