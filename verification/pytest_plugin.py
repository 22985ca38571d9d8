"""Gradient tests in pytest: a marker, and `--grad-profile=fast|full`.

Pytest finds the plugin by its entry point, wherever the package is installed.

A test marked `gradients` returns the layer to verify and its inputs, as `(layer, inputs)`,
`(layer, inputs, residual)`, or a dictionary of these and `tighten`:

    @pytest.mark.gradients
    def test_my_layer():
        return MyLayer(), torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

A test with Hypothesis' `@given` may do the same: every example is verified.
"""

from __future__ import annotations

import functools
from collections.abc import Generator
from typing import Any

import pytest

from .asserting import assert_gradients, default_effort
from .requests import Request
from .verdict import Verdict
from .verifying import EFFORTS

_MARKER = (
    "gradients(unconverged=False, seed=0, effort=None, time_limit=None): the test returns (layer, inputs), "
    "(layer, inputs, residual) or a dictionary, and the gradients must be correct; unconverged=True lets a "
    "loose solve pass, the others are those of verify"
)
_OPTIONS = ("unconverged", "seed", "effort", "time_limit")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option `--grad-profile`."""
    parser.getgroup("implicitly").addoption(
        "--grad-profile",
        choices=EFFORTS,
        default="fast",
        help="effort of gradient verifications (default: fast)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker `gradients`."""
    config.addinivalue_line("markers", _MARKER)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Run every test with the requested effort."""
    with default_effort(item.config.getoption("--grad-profile")):
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Verify the layer that a marked test returns."""
    __tracebackhide__ = True
    marker = pyfuncitem.get_closest_marker("gradients")
    if marker is None:
        return None
    unknown = set(marker.kwargs) - set(_OPTIONS)
    if unknown or marker.args:
        raise TypeError(
            f"the marker gradients takes the options {', '.join(_OPTIONS)}, "
            f"got {sorted(unknown) or marker.args}"
        )
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    drawn = getattr(pyfuncitem.obj, "hypothesis", None)
    if drawn is None:
        _verified(pyfuncitem, marker, pyfuncitem.obj(**arguments))
        return True
    inner = drawn.inner_test

    @functools.wraps(inner)
    def each(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        _verified(pyfuncitem, marker, inner(*args, **kwargs))

    drawn.inner_test = each
    try:
        pyfuncitem.obj(**arguments)
    finally:
        drawn.inner_test = inner
    return True


def _verified(item: pytest.Function, marker: pytest.Mark, returned: object) -> None:
    __tracebackhide__ = True
    request = Request.of(returned, "a test marked gradients")
    options = dict(marker.kwargs)
    accept = {Verdict.CORRECT}
    if options.pop("unconverged", False):
        accept.add(Verdict.UNCONVERGED)
    report = assert_gradients(
        request.layer, request.inputs, residual=request.residual, tighten=request.tighten,
        accept=accept, **options,
    )  # fmt: skip
    item.user_properties.append(("detectable", f"{report.detectable:.1e}"))
