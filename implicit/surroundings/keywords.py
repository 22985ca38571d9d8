"""Keyword arguments of the user's function, as further arguments of the equation."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..equations.identity import Identity

_RULE = "tolerances and limits are those of a rule: stopping=Stopping(rtol=1e-6, max_steps=100)"
_ELSEWHERE = {
    **dict.fromkeys(
        (
            "tol", "tolerance", "xtol", "ftol", "gtol", "rtol", "atol", "f_tol", "x_tol", "eps", "thresh",
            "threshold", "maxiter", "max_iter", "max_iters", "maxfev", "max_nfev", "max_steps", "steps",
            "iterations", "n_iter", "num_iters", "f_max_iter", "max_evaluations", "patience",
        ),
        _RULE,
    ),
    **dict.fromkeys(
        ("method", "algorithm", "backend"), "choose an algorithm by solver=Newton() or another solver"
    ),
    **dict.fromkeys(("jac", "fprime"), "give a Jacobian by jacobian="),
    "options": "options are those of the solver, solver=Anderson(memory=5), and of stopping=Stopping(...)",
    "x0": "the start is the second argument, z0",
    "args": "arguments of the function follow the start: root(F, z0, x, y)",
    **dict.fromkeys(("vmap", "batched", "batch_axes"), "say which leading axes index systems by batch_dims="),
    "verbose": "progress=True writes lines while a solve runs",
    "disp": "progress=True writes lines while a solve runs",
}  # fmt: skip
"""Options by the names that other libraries have for them, and where they are here."""


def called(function: Callable[..., Any], z: Any, args: Sequence[Any], names: Sequence[str]) -> Any:
    """`function(z, ...)` with the last of `args` by their `names`."""
    if not names:
        return function(z, *args)
    positional = len(args) - len(names)
    return function(z, *args[:positional], **dict(zip(names, args[positional:], strict=True)))


class WithKeywords:
    """A function whose last arguments are given by name."""

    def __init__(self, function: Callable[..., Any], names: tuple[str, ...]) -> None:
        self._function, self._names = function, names

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the last arguments."""
        return self._names

    def __call__(self, z: Any, *args: Any) -> Any:
        return called(self._function, z, args, self._names)

    def identity(self) -> Identity:
        """The identity of the function between calls."""
        return Identity.of(self._function) + Identity(self._names)


def options_of(call: Callable[..., Any]) -> tuple[str, ...]:
    """The options of a call such as `root`: what it takes by name alone.

    Examples:
        >>> options_of(lambda F, *, solver=None, **keywords: None)
        ('solver',)
    """
    parameters = inspect.signature(call).parameters.items()
    return tuple(name for name, parameter in parameters if parameter.kind == parameter.KEYWORD_ONLY)


def check_keywords(
    described: str, function: Callable[..., Any], keywords: Iterable[str], options: Sequence[str]
) -> None:
    """Raise a `TypeError` for a keyword that neither the call nor the function knows.

    Args:
        described: The function's name in messages.
        function: The function.
        keywords: The keywords that are not options of the call.
        options: The options of the call.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # No signature is known; then the call of the function decides.
        return
    known = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    takes_any = any(p.kind == p.VAR_KEYWORD for p in parameters)
    for keyword in keywords:
        near = difflib.get_close_matches(keyword, options, n=1, cutoff=0.75)
        if keyword in known or (takes_any and not near):
            continue
        if keyword in _ELSEWHERE:
            advice = _ELSEWHERE[keyword]
        else:
            advice = f"did you mean {near[0]}?" if near else f"options are {', '.join(options)}"
        raise TypeError(
            f"got an unexpected keyword argument {keyword!r}, which is neither an option nor an argument of "
            f"{described}: {advice}"
        )


def accepted(function: Callable[..., Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that `function` takes by name, as far as its signature is known."""
    if not keywords:
        return {}
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {}
    if any(p.kind == p.VAR_KEYWORD for p in parameters):
        return dict(keywords)
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return {name: value for name, value in keywords.items() if name in names}
