"""Helpers and constants shared by the kernels of `NumbaRoot` and of `NumbaEquation`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar, cast

import numpy as np

from ...options.libraries import needs
from ..interface.compiled_systems import CompilationError
from ..interface.solution import Status
from ..newton.parabola import LONGEST_CUT, SHORTEST_CUT

with needs("numba", "compiled code"):
    import numba
    from numba.core.errors import NumbaError
    from numba.extending import intrinsic

CONVERGED, MAX_STEPS, STALLED = map(int, (Status.CONVERGED, Status.MAX_STEPS, Status.STALLED))
NON_FINITE, SINGULAR = int(Status.NON_FINITE), int(Status.LINEAR_SOLVE_FAILED)

HALF_DIGITS = 2.0**-26
"""Relative width of differences: half the digits of float64, so that the other half are right."""
LOST = 2.0**-40
"""A difference is repeated with another width where the residual changes by less than this fraction of it."""
MOST_PROBES = 5
"""Largest number of widths to try for one difference."""
REUSE = 0.5
"""A Jacobian is updated and kept while full steps bring the residual below this fraction of the last."""

Array = np.ndarray
Function = TypeVar("Function", bound=Callable[..., Any])

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def jit(function: Function) -> Function:
    """Compile a kernel: it releases the interpreter lock, and a division by zero is infinite."""
    return cast("Function", numba.njit(nogil=True, error_model="numpy", forceinline=True)(function))


def compile_function(name: str, function: Any, dtype: str, out_axes: int) -> None:
    """Compile `function(z, parameters, out)` for real or complex arguments.

    Args:
        name: The function's name in errors.
        function: The function, decorated with `numba.njit`.
        dtype: `"float64"` or `"complex128"`, of all three arguments.
        out_axes: Axes of `out`.

    Raises:
        CompilationError: Numba does not compile it; the message has Numba's reason.
    """
    scalar = getattr(numba.types, dtype)
    try:
        function.compile((scalar[::1], scalar[::1], numba.types.Array(scalar, out_axes, "C")))
    except (NumbaError, RuntimeError, NotImplementedError) as error:
        raise CompilationError(
            f"{name} does not compile for {dtype} arguments. Numba: {reason(error)}"
        ) from error


def reason(error: Exception) -> str:
    """The first line of Numba's message that says something about the function."""
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines()]
    telling = [line for line in lines if line and not line.startswith("Failed in ")]
    return " ".join(telling[:2]) if telling else type(error).__name__


@lru_cache(maxsize=256)
def guarded(function: Any) -> Any:
    """`function`, which writes NaN where the original raises an exception."""

    @jit
    def attempt(z: Array, parameters: Array, out: Array) -> None:
        try:
            function(z, parameters, out)
        except Exception:
            out[...] = np.nan

    return attempt


def _borrowed(typing_context: Any, array: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        counted = numba.types.MemInfoPointer(numba.types.voidptr)
        view.meminfo = context.get_constant_null(counted)
        view.parent = context.get_constant_null(numba.types.pyobject)
        return view._getvalue()

    return array(array), generate


borrowed: Any = intrinsic(_borrowed)
"""`borrowed(array)`: the array without its reference count, while the caller keeps the original.

Rows of a counted array are counted too, by atomic operations that take longer than a step of a
small system.
"""


@jit
def shorter(length: float, ratio: float) -> float:
    """The next length of a search after a trial at which `‖r‖` is `ratio` times as large.

    It is the minimum of the parabola through `‖r‖²` with the slope of a Newton step at 0, clamped to
    between a tenth and a half of the last length (Dennis & Schnabel 1983, section 6.3.2); half if `ratio`
    is not finite.
    """
    cut = 1.0 / (ratio * ratio - 1.0 + 2.0 * length) * length
    if not math.isfinite(ratio):
        cut = LONGEST_CUT
    return length * min(max(cut, SHORTEST_CUT), LONGEST_CUT)
