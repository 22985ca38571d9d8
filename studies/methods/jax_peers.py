"""Libraries for JAX by themselves: JAXopt and Optimistix, on the study's own function through callbacks.

A callback turns a function of PyTorch into one of JAX. Its derivative rule calls back as well, so that every
evaluation and product is counted as for any other method.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ...options.text import Value
from .alone import Library
from .equation import BudgetSpentError, StudyEquation
from .method import Attempt

_JAXOPT = {
    "broyden": "Broyden",
    "anderson": "AndersonAcceleration",
    "fixed_point": "FixedPointIteration",
}
_OPTIMISTIX = {
    "newton": "Newton",
    "chord": "Chord",
    "dogleg": "Dogleg",
    "levenberg_marquardt": "LevenbergMarquardt",
    "fixed_point": "FixedPointIteration",
}


class _Bridge:
    """The residual as a function of JAX that counts products with the Jacobian and its transpose.

    An exception in a callback would return as one of JAX's; it is kept and raised again.
    """

    def __init__(self, equation: StudyEquation) -> None:
        self._equation, self.jvps, self.vjps = equation, 0, 0
        self.fault: BaseException | None = None

    def _torch(self, z: Any) -> torch.Tensor:
        like = self._equation.z0
        return torch.from_numpy(np.array(z)).to(like.dtype).view(like.shape)

    def _numpy(self, value: torch.Tensor) -> np.ndarray:
        return value.detach().double().flatten().numpy()

    def _guarded(self, function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        def called(*args: Any) -> np.ndarray:
            try:
                return function(*args)
            except BaseException as fault:
                self.fault = fault
                raise

        return called

    def residual(self, backwards: bool) -> Callable[[Any], Any]:
        """`F(z)` of a root, `f(z) − z` of a fixed point, flat, in float64.

        Args:
            backwards: True for products with the transposed Jacobian, for methods that take gradients; False
                for a dense Jacobian, which counts as one product for each unknown.
        """
        import jax

        size = self._equation.z0.numel()
        shape = jax.ShapeDtypeStruct((size,), np.float64)
        square = jax.ShapeDtypeStruct((size, size), np.float64)
        unwatched = self._equation.unwatched.residual

        def value(z: Any) -> np.ndarray:
            with torch.no_grad():
                return self._numpy(self._equation.residual(self._torch(z)))

        def jacobian(z: Any) -> np.ndarray:
            self.jvps += size
            matrix = torch.func.jacfwd(unwatched)(self._torch(z))
            return self._numpy(matrix).reshape(size, size)

        def transposed(z: Any, u: Any) -> np.ndarray:
            self.vjps += 1
            pulled: Any = torch.func.vjp(unwatched, self._torch(z))[1]
            return self._numpy(pulled(self._torch(u))[0])

        def callback(function: Callable[..., np.ndarray], result: Any, *args: Any) -> Any:
            guarded = self._guarded(function)
            return jax.pure_callback(guarded, result, *args, vmap_method="sequential")

        def plain(z: Any) -> Any:
            return callback(value, shape, z)

        if backwards:
            called: Any = jax.custom_vjp(plain)
            called.defvjp(
                lambda z: (plain(z), z), lambda z, u: (callback(transposed, shape, z, u),)
            )
            return called
        derived: Any = jax.custom_jvp(plain)
        derived.defjvp(lambda at, along: (plain(*at), callback(jacobian, square, *at) @ along[0]))
        return derived

    def attempt(
        self, solve: Callable[[Callable[[Any], Any], np.ndarray], Attempt], backwards: bool = False
    ) -> Attempt:
        """Result of `solve(residual, start)` in float64, with counted products."""
        import jax

        # An exception of a callback is raised again; JAX would print it as well.
        logging.getLogger("jax._src.callback").setLevel(logging.CRITICAL)
        start = self._equation.z0.detach().double().flatten().numpy()
        # Set for the whole process: a context does not reach the threads that callbacks run in.
        jax.config.update("jax_enable_x64", True)
        try:
            found = solve(self.residual(backwards), start)
        except Exception:
            if isinstance(self.fault, BudgetSpentError):
                raise self.fault from None
            raise
        return found

    def value(self, z: Any) -> torch.Tensor:
        return self._torch(z)


def _jaxopt(method: str, given: Mapping[str, Value], equation: StudyEquation) -> Attempt:
    """Solve with JAXopt; its fixed-point solvers get a root as `z + F(z)`."""
    with warnings.catch_warnings():  # The warning that it is no longer maintained.
        warnings.simplefilter("ignore", DeprecationWarning)
        import jaxopt

    bridge = _Bridge(equation)
    options: dict[str, Any] = {
        "maxiter": equation.limit, "tol": equation.target, "implicit_diff": False, **given,
    }  # fmt: skip

    def solve(residual: Callable[[Any], Any], start: np.ndarray) -> Attempt:
        kind = getattr(jaxopt, _JAXOPT[method])
        function = residual if method == "broyden" else lambda z: z + residual(z)
        value, state = kind(function, **options).run(start)
        error = float(state.error)
        claimed = error <= options["tol"]
        return _attempt(bridge, value, claimed, error, int(state.iter_num))

    return bridge.attempt(solve, backwards=True)


def _optimistix(method: str, given: Mapping[str, Value], equation: StudyEquation) -> Attempt:
    """Solve with Optimistix; plain iteration gets a root as `z + F(z)`.

    Its tolerances are relative and absolute; the relative one is 0.
    """
    import optimistix

    bridge = _Bridge(equation)

    def solve(residual: Callable[[Any], Any], start: np.ndarray) -> Attempt:
        kind = getattr(optimistix, _OPTIMISTIX[method])
        solver = kind(rtol=0.0, atol=equation.target, **given)
        iterate = method == "fixed_point"
        call = optimistix.fixed_point if iterate else optimistix.root_find
        found: Any = call(
            lambda z, args: z + residual(z) if iterate else residual(z),
            solver, start, max_steps=equation.limit, throw=False,
        )  # fmt: skip
        results: Any = optimistix.RESULTS
        claimed = bool(found.result == results.successful)
        reason = None if claimed else str(results[found.result])
        return _attempt(bridge, found.value, claimed, None, int(found.stats["num_steps"]), reason)

    return bridge.attempt(solve)


def _attempt(
    bridge: _Bridge,
    value: Any,
    claimed: bool,
    residual: float | None,
    steps: int,
    reason: str | None = None,
) -> Attempt:
    return Attempt(
        value=bridge.value(value),
        claimed=claimed,
        status="SUCCESS" if claimed else "FAILURE",
        residual=residual,
        jvps=bridge.jvps,
        vjps=bridge.vjps,
        steps=steps,
        reason=reason,
    )


JAXOPT = Library("jaxopt", tuple(_JAXOPT), _jaxopt, packages=("jaxopt", "jax"))
OPTIMISTIX = Library("optimistix", tuple(_OPTIMISTIX), _optimistix, packages=("optimistix", "jax"))
