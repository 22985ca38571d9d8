"""Checks: the same computation presented otherwise has the same gradients.

Memory layout, a second backward pass on one graph, the order of the rows of a batch, one row alone: a
derivative that depends on any of them is wrong in one of the two. Rows are compared only where the
layer's values say that rows are independent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .evidence import Evidence
from .identities import slack_of, smallest
from .setup import NotExercisedError, Setup
from .subject import LayerError, Tape, Tensors

_LAG = 1e3
_INDEPENDENT = 1e-3
"""Outputs of one row that differ by more with its neighbours depend on them."""


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
    tape = _called(setup, values)
    return _all_outputs(setup, "memory layout", tape)


def rows(setup: Setup) -> list[Evidence]:
    """A batch in another order, and its last row alone, give each row the same gradients.

    Raises:
        NotExercisedError: Inputs and outputs share no batch axis, or its rows depend on each other.
    """
    batch = _batch(setup)
    order = torch.roll(torch.arange(batch), 1)
    return _rows(setup, "permuted batch", order) + _rows(
        setup, "a row alone", torch.tensor([batch - 1])
    )


def _rows(setup: Setup, name: str, index: Tensor) -> list[Evidence]:
    values = [
        slot.value[index] if slot.position is not None else slot.value for slot in setup.slots
    ]
    tape = _called(setup, values)
    distance = _distance([value[index] for value in setup.tape.values], tape.values)
    if distance > _INDEPENDENT:
        raise NotExercisedError("the rows of the batch depend on each other")
    found = []
    for o, _ in enumerate(setup.outputs):
        cotangent = torch.zeros_like(setup.probes[0][o])
        cotangent[index] = setup.probes[0][o][index]
        reference = setup.tape.pullback(setup.only(o, cotangent))
        gradients = tape.pullback(setup.only(o, cotangent[index]))
        spread = tuple(
            torch.zeros_like(whole).index_copy(0, index, part)
            if slot.position is not None
            else part
            for slot, whole, part in zip(setup.slots, reference, gradients, strict=True)
        )
        found += _compared(setup, o, name, reference, spread, distance)
    return found


def _batch(setup: Setup) -> int:
    tensors = [slot.value for slot in setup.slots if slot.position is not None]
    sizes = {t.shape[0] if t.ndim > 1 else 0 for t in (*tensors, *setup.tape.values)}
    if len(sizes) != 1 or not tensors or sizes == {0} or min(sizes) < 2:
        raise NotExercisedError("inputs and outputs share no batch axis")
    if setup.subject.ignored:
        raise NotExercisedError("inputs that require no gradients may belong to rows")
    return sizes.pop()


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
    says: Tensors,
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
        doubt = _LAG * distance * scale if setup.residual is None else 0.0
        found.append(
            Evidence(
                name, setup.outputs[o], slot.name,
                error=float((right - other).norm()),
                scale=scale,
                floor=2 * setup.relative_floor(o, s) * scale + smallest(setup, o, s),
                slack=slack_of(setup, o, s),
                doubt=doubt,
                reference=False,
                worst=setup.component(s, other, right),
            )
        )  # fmt: skip
    return found
