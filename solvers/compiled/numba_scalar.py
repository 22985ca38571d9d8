"""The kernel of `NumbaRoot` for systems of one unknown: the secant method in lockstep.

With one unknown Broyden's update is the secant method, and each step of a system needs the value of the
last. So the systems of a tile advance together, one evaluation each in turn: the processor then works
on several of them at a time.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from ..newton.parabola import SUFFICIENT_DECREASE
from .numba_code import (
    CONVERGED,
    HALF_DIGITS,
    LOST,
    MAX_STEPS,
    MOST_PROBES,
    NON_FINITE,
    REUSE,
    SINGULAR,
    STALLED,
    Array,
    borrowed,
    guarded,
    jit,
    shorter,
)

_TILE = 64
# Purposes of an evaluation: a step, a difference, or the search for the width of one.
_TRIAL, _DIFFERENCE, _PROBE = 0, 1, 2
# Columns of the state of each system.
_STEP, _LENGTH, _NORM = 0, 1, 2
_PURPOSE, _UPDATES, _TRIES = 0, 1, 2


@lru_cache(maxsize=64)
def kernel(function: Any, jacobian: Any, n: int, form: str) -> tuple[Any, Any]:
    """The kernel, called as in `NumbaRoot.run`, and a function that makes its workspace."""
    value = guarded(function)
    given = jacobian is not None
    derivative = guarded(jacobian) if given else value
    fixed = form == "fixed_point"

    @jit
    def residual_of(value: float, z: float) -> float:
        return value - z if fixed else -value

    @jit
    def take_step(slope: float, z: float, r: float, c: int, points: Array, state: Array) -> None:
        state[c, _STEP] = -r / slope
        state[c, _LENGTH] = 1.0
        points[c, 0] = z + state[c, _STEP]

    @jit
    def difference(z: float, c: int, points: Array, flags: Array) -> None:
        width = HALF_DIGITS * z
        flags[c, _PURPOSE] = _DIFFERENCE
        if width == 0.0:
            width = HALF_DIGITS
            flags[c, _PURPOSE] = _PROBE
        flags[c, _TRIES] = 0
        points[c, 0] = z + width

    @jit
    def solve(
        z: Array, parameters: Array, residual: Array, known: bool, tolerances: Array, limits: Array,
        counters: Array, start: int, stop: int,
        points: Array, values: Array, slopes: Array, state: Array, flags: Array, active: Array,
    ) -> None:  # fmt: skip
        z, parameters, residual = borrowed(z), borrowed(parameters), borrowed(residual)
        tolerances, counters = borrowed(tolerances), borrowed(counters)
        points, values, slopes = borrowed(points), borrowed(values), borrowed(slopes)
        state, flags, active = borrowed(state), borrowed(flags), borrowed(active)
        max_steps, max_evaluations, max_updates, max_trials = limits
        for begin in range(start, stop, _TILE):
            # Unsigned indices need no test for counting from the end.
            base = np.uintp(begin)
            count = 0
            for place in range(min(_TILE, stop - begin)):
                c = np.uintp(place)
                i = base + c
                if not known:
                    value(z[i], parameters[i], values[c])
                    residual[i, 0] = residual_of(values[c, 0], z[i, 0])
                norm = abs(residual[i, 0])
                state[c, _NORM] = norm
                if not norm < math.inf:
                    counters[i, 0] = NON_FINITE
                elif norm <= tolerances[i, 0] + tolerances[i, 1] * abs(z[i, 0]):
                    counters[i, 0] = CONVERGED
                else:
                    active[count] = c
                    count += 1
                    flags[c, _PURPOSE] = _DIFFERENCE
                    flags[c, _UPDATES] = -1
            # A system without updates needs a slope: its first, or a new one in place of the last.
            while count > 0:
                left = 0
                for a in range(count):
                    c = active[a]
                    i = base + c
                    if flags[c, _UPDATES] < 0:
                        flags[c, _UPDATES] = 0
                        counters[i, 3] += 1
                        if given:
                            slopes[0, 0] = 0.0
                            derivative(z[i], parameters[i], slopes)
                            slope = slopes[0, 0] - 1.0 if fixed else -slopes[0, 0]
                            if not 0.0 < abs(slope) < math.inf:
                                counters[i, 0] = SINGULAR
                                continue
                            take_step(slope, z[i, 0], residual[i, 0], c, points, state)
                            flags[c, _PURPOSE] = _TRIAL
                            flags[c, _TRIES] = 0
                        else:
                            difference(z[i, 0], c, points, flags)
                    active[left] = c
                    left += 1
                count = left
                for a in range(count):
                    c = active[a]
                    value(points[c], parameters[base + c], values[c])
                left = 0
                for a in range(count):
                    c = active[a]
                    i = base + c
                    at, here, r, norm = points[c, 0], z[i, 0], residual[i, 0], state[c, _NORM]
                    new = residual_of(values[c, 0], at)
                    counters[i, 2] += 1
                    if flags[c, _PURPOSE] == _TRIAL:
                        size = abs(new)
                        if flags[c, _TRIES] == 0:
                            counters[i, 1] += 1
                        if size <= tolerances[i, 0] + tolerances[i, 1] * abs(at):
                            z[i, 0], residual[i, 0] = at, new
                            counters[i, 0] = CONVERGED
                            continue
                        fresh = flags[c, _UPDATES] == 0
                        length = state[c, _LENGTH]
                        if (
                            size <= REUSE * norm
                            and length == 1.0
                            and flags[c, _UPDATES] < max_updates
                        ):
                            flags[c, _UPDATES] += 1
                            slope = (new - r) / state[c, _STEP]
                            take_step(slope, at, new, c, points, state)
                        elif size <= (1.0 - SUFFICIENT_DECREASE * length) * norm:
                            flags[c, _UPDATES] = -1
                        elif not fresh:
                            flags[c, _UPDATES] = -1
                            at, new, size = here, r, norm
                        else:
                            flags[c, _TRIES] += 1
                            state[c, _LENGTH] = shorter(length, size / norm)
                            points[c, 0] = here + state[c, _LENGTH] * state[c, _STEP]
                            if flags[c, _TRIES] >= max_trials or points[c, 0] == here:
                                counters[i, 0] = STALLED
                                continue
                            at, new, size = here, r, norm
                        z[i, 0], residual[i, 0], state[c, _NORM] = at, new, size
                        if flags[c, _UPDATES] != 0 and counters[i, 1] >= max_steps:
                            counters[i, 0] = MAX_STEPS
                            continue
                        if flags[c, _UPDATES] > 0:
                            flags[c, _TRIES] = 0
                    else:
                        change = new - r
                        width = at - here
                        flags[c, _TRIES] += 1
                        if flags[c, _PURPOSE] == _PROBE and 0.0 < abs(change) < math.inf:
                            flags[c, _PURPOSE] = _DIFFERENCE
                            points[c, 0] = here + width * (HALF_DIGITS * norm / abs(change))
                        elif not abs(change) > LOST * norm and flags[c, _TRIES] < MOST_PROBES:
                            flags[c, _PURPOSE] = _DIFFERENCE
                            points[c, 0] = here + width / HALF_DIGITS
                        else:
                            slope = change / width
                            if not 0.0 < abs(slope) < math.inf:
                                counters[i, 0] = SINGULAR
                                continue
                            take_step(slope, here, r, c, points, state)
                            flags[c, _PURPOSE] = _TRIAL
                            flags[c, _TRIES] = 0
                    if counters[i, 2] >= max_evaluations:
                        counters[i, 0] = MAX_STEPS
                        continue
                    active[left] = c
                    left += 1
                count = left

    def workspace() -> tuple[Array, ...]:
        points, values = np.empty((_TILE, 1)), np.empty((_TILE, 1))
        state, flags = np.empty((_TILE, 3)), np.empty((_TILE, 3), np.int64)
        return points, values, np.empty((1, 1)), state, flags, np.empty(_TILE, np.uintp)

    return solve, workspace
