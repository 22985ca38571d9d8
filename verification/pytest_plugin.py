"""Gradient tests in pytest: a marker, and `--grad-profile=fast|full`.

Enable it in a `conftest.py` by `pytest_plugins = ["implicitly.verification.pytest_plugin"]`. It does not
register itself, since every run of pytest on the machine would then import torch.

A test marked `gradients` returns the layer to verify and its inputs, as `(layer, inputs)` or
`(layer, inputs, residual)`:

    @pytest.mark.gradients
    def test_my_layer():
        return MyLayer(), torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from .asserting import assert_gradients, default_effort
from .verdict import Verdict
from .verifying import EFFORTS

_MARKER = (
    "gradients(unconverged=False): the test returns (layer, inputs) or (layer, inputs, residual), "
    "whose gradients must be correct; unconverged=True lets a loose solve pass"
)


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
    marker = pyfuncitem.get_closest_marker("gradients")
    if marker is None:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    returned = pyfuncitem.obj(**arguments)
    if not isinstance(returned, tuple) or len(returned) not in (2, 3):
        raise TypeError(
            "a test marked gradients must return (layer, inputs) or (layer, inputs, residual), "
            f"got {type(returned).__name__}"
        )
    layer, inputs, *rest = returned
    accept = {Verdict.CORRECT}
    if marker.kwargs.get("unconverged", False):
        accept.add(Verdict.UNCONVERGED)
    report = assert_gradients(layer, inputs, residual=rest[0] if rest else None, accept=accept)
    pyfuncitem.user_properties.append(("detectable", f"{report.detectable:.1e}"))
    return True
