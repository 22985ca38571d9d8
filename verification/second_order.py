"""Check: derivatives of the gradient, in reverse over reverse mode, against differences of gradients.

For `G(x) = ⟨p, ∇⟨w, y(x)⟩⟩` with fixed probes `w` and `p`, the gradient of `G` that a second backward
pass gives is compared with finite differences of `G`: of the implicit gradient at the polished root
where the equation is known, else of the layer's own gradient. A gradient without a graph has the
derivative zero, as whoever differentiates it silently gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .differences import slope
from .evidence import Evidence
from .polish import PolishError, Root
from .setup import NotExercisedError, Setup
from .subject import LayerError, Tensors

NAME = "second order"
_TRUST = 4.0
_SOLVES = 10.0
"""A second derivative takes several adjoint solves, one after another."""


def label(output: str) -> str:
    """How findings name the gradient of an output."""
    return f"{output}, {NAME}"


def second_order(setup: Setup) -> list[Evidence]:
    """Two pieces of evidence for each output and slot.

    Raises:
        NotExercisedError: The layer refuses a second backward pass, or the root was not found.
    """
    root = _root(setup)
    found = []
    for o in range(len(setup.outputs)):
        probes = tuple(
            setup.direction(s, 3).to(slot.value.dtype) for s, slot in enumerate(setup.slots)
        )
        twice = _twice(setup, o, probes)
        for s in range(len(setup.slots)):
            found.append(_differenced(setup, o, s, probes, twice[s], root))
            found.append(_symmetry(setup, o, s))
    return found


def _root(setup: Setup) -> Root | None:
    return None if setup.residual is None else setup.roots[1]


def _twice(setup: Setup, o: int, probes: Sequence[Tensor]) -> Tensors:
    """The gradient of `G` by a second backward pass, in every slot."""
    tape = setup.subject.tape()
    # A cotangent that is itself differentiated, as that of a nonlinear loss is: only then does a
    # function marked once_differentiable refuse.
    cotangent = setup.probes[0][o].clone().requires_grad_()
    try:
        gradients = tape.pullback(setup.only(o, cotangent), create_graph=True)
        value = sum(
            ((p * g).sum() for p, g in zip(probes, gradients, strict=True)),
            torch.zeros((), dtype=torch.float64),
        )
        if not value.requires_grad:
            return tuple(torch.zeros_like(tensor) for tensor in tape.tensors)
        if _refuses(value):
            raise NotExercisedError(
                "the layer refuses a second backward pass (once_differentiable)"
            )
        found = torch.autograd.grad(value, tape.tensors, allow_unused=True, materialize_grads=True)
    except (LayerError, RuntimeError) as error:
        raise NotExercisedError(
            f"a second backward pass raised: {str(error).splitlines()[0]}"
        ) from error
    return tuple(gradient.detach().double() for gradient in found)


def _refuses(value: Tensor) -> bool:
    """Whether the graph holds a node that raises when it is reached.

    It need not be reached on the way to the inputs, and would then pass for a zero derivative.
    """
    seen: set[object] = set()
    stack = [value.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name().rsplit(":", 1)[-1] in ("Error", "DelayedError"):
            return True
        stack.extend(parent for parent, _ in node.next_functions)
    return False


def _differenced(
    setup: Setup, o: int, s: int, probes: Sequence[Tensor], twice: Tensor, root: Root | None
) -> Evidence:
    direction = setup.direction(s, 0)
    sample = _of_root(setup, o, s, probes, root) if root else _of_layer(setup, o, s, probes)
    relative = _SOLVES * setup.relative_floor(o, s)
    first = max(float(g.double().norm()) for g in setup.gradients[0][o])
    natural = first / setup.size(s)
    name = f"{NAME} by differences" + (" at the root" if root else "")
    output, slot = label(setup.outputs[o]), setup.slots[s].name
    try:
        measured = slope(sample, setup.size(s), np.array([relative / _TRUST]), np.array([natural]))
    except ArithmeticError as error:
        return Evidence(name, output, slot, 0.0, 0.0, 0.0, unreliable=str(error))
    sees = float(measured.value[0])
    scale = max(float(twice.norm()), abs(sees), natural)
    slack = 0.0 if root is None else setup.relative_slack(o, s) * scale
    return Evidence(
        name, output, slot,
        error=abs(float((twice * direction.double()).sum()) - sees),
        scale=scale,
        floor=relative * scale + _TRUST * float(measured.error[0]),
        slack=slack,
    )  # fmt: skip


def _symmetry(setup: Setup, o: int, s: int) -> Evidence:
    """The Hessian is symmetric: `⟨H p, v⟩ = ⟨H v, p⟩`."""
    p, v = setup.direction(s, 3), setup.direction(s, 0)
    hp, hv = (_twice(setup, o, _alone(setup, s, probe))[s] for probe in (p, v))
    one, other = float((hp * v.double()).sum()), float((hv * p.double()).sum())
    natural = float(setup.gradients[0][o][s].double().norm()) / setup.size(s)
    scale = max(float(hp.norm()), float(hv.norm()), natural)
    slack = setup.relative_slack(o, s) * scale if setup.residual is not None else 0.0
    return Evidence(
        "symmetry of the Hessian", label(setup.outputs[o]), setup.slots[s].name,
        error=abs(one - other),
        scale=scale,
        floor=_SOLVES * setup.relative_floor(o, s) * scale,
        slack=slack,
        reference=False,
    )  # fmt: skip


def _alone(setup: Setup, s: int, probe: Tensor) -> Tensors:
    return tuple(
        probe if i == s else torch.zeros_like(slot.value) for i, slot in enumerate(setup.slots)
    )


def _of_root(
    setup: Setup, o: int, s: int, probes: Sequence[Tensor], root: Root | None
) -> Callable[[float], np.ndarray]:
    assert root is not None  # for the type checker
    equation, along = root.equation, setup.direction(s, 0).double()
    zeros = [torch.zeros_like(value) for value in setup.tape.values]
    zeros[o] = setup.probes[0][o]
    w = equation.flat(zeros)

    def sample(t: float) -> np.ndarray:
        values = [v + t * along if i == s else v for i, v in enumerate(equation.base)]
        try:
            there = Root(equation, root.moved(values), setup.generator(5), values)
        except LayerError as error:
            raise PolishError(str(error)) from error
        gradients = there.gradient(w)
        return np.array(
            [sum(float((p.double() * g).sum()) for p, g in zip(probes, gradients, strict=True))]
        )

    return sample


def _of_layer(
    setup: Setup, o: int, s: int, probes: Sequence[Tensor]
) -> Callable[[float], np.ndarray]:
    along = setup.direction(s, 0)
    cotangents = setup.only(o, setup.probes[0][o])

    def sample(t: float) -> np.ndarray:
        values = [
            slot.value + t * along if i == s else slot.value for i, slot in enumerate(setup.slots)
        ]
        try:
            gradients = setup.subject.gradients(values, cotangents)
        except LayerError as error:
            raise ArithmeticError(str(error)) from error
        return np.array(
            [
                sum(
                    float((p.double() * g.double()).sum())
                    for p, g in zip(probes, gradients, strict=True)
                )
            ]
        )

    return sample
