"""`assert_gradients`: a verification as an assertion of a test."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from .report import Report
from .tightening import Tighten
from .verdict import Verdict
from .verifying import Effort, verify

_effort: ContextVar[Effort] = ContextVar("effort", default="fast")


class GradientError(AssertionError):
    """The verdict on the gradients is not accepted; the report says why.

    Attributes:
        report: The report.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(f"gradients are {report.verdict.name}\n{report}")
        self.report = report


def assert_gradients(
    layer: Callable[..., Any],
    inputs: Any,
    *,
    residual: Callable[..., Any] | None = None,
    tighten: Tighten | None = None,
    seed: int = 0,
    effort: Effort | None = None,
    time_limit: float | None = None,
    accept: Collection[Verdict] = (Verdict.CORRECT,),
) -> Report:
    """Verify the gradients of a layer, and fail unless they are correct.

    Args:
        layer: See `verify`.
        inputs: See `verify`.
        residual: See `verify`.
        tighten: See `verify`.
        seed: See `verify`.
        effort: See `verify`; `None` for that of `--grad-profile`, else `"fast"`.
        time_limit: See `verify`.
        accept: Verdicts that pass. `UNRELIABLE` cannot be accepted: an undecided test must not pass.

    Returns:
        The report.

    Raises:
        GradientError: The verdict is not accepted.
        ValueError: `accept` contains `WRONG` or `UNRELIABLE`.

    Examples:
        >>> import torch
        >>> from implicitly.verification import assert_gradients
        >>> x = torch.ones(3, dtype=torch.float64, requires_grad=True)
        >>> assert_gradients(torch.sin, x).verdict.name
        'CORRECT'
    """
    __tracebackhide__ = True  # A failed test ends at the assertion, not inside of it.
    refused = {Verdict.WRONG, Verdict.UNRELIABLE} & set(accept)
    if refused:
        names = ", ".join(sorted(verdict.name for verdict in refused))
        raise ValueError(f"accept may contain CORRECT and UNCONVERGED, got {names}")
    report = verify(
        layer, inputs, residual=residual, tighten=tighten, seed=seed,
        effort=effort or _effort.get(), time_limit=time_limit,
    )  # fmt: skip
    if report.verdict not in accept:
        raise GradientError(report)
    return report


@contextmanager
def default_effort(effort: Effort) -> Iterator[None]:
    """Default effort of `assert_gradients` while active.

    Examples:
        >>> with default_effort("full"):
        ...     pass
    """
    token = _effort.set(effort)
    try:
        yield
    finally:
        _effort.reset(token)
