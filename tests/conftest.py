"""Settings of every test, and what tests of several folders share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings
from pairs import DEFAULT_RUN

# The project's own marker and option for gradient tests.
pytest_plugins = ["implicitly.verification.pytest_plugin", "pytester"]

settings.register_profile(
    "specification",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=20,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(DEFAULT_RUN, parent=settings.get_profile("specification"), max_examples=8)


def is_default_run(config: pytest.Config) -> bool:
    return config.getoption("markexpr") == "not long"


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile(DEFAULT_RUN if is_default_run(config) else "specification")


def pytest_itemcollected(item: pytest.Item) -> None:
    # The long run repeats properties, with more examples than the default run draws.
    if not is_default_run(item.config) and is_hypothesis_test(getattr(item, "obj", None)):
        item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def shared_processes() -> Iterator[Callable[[], None]]:
    """Studies leave the processes for their cells, which take seconds to start, to the next test.

    The value ends those that wait, as every study does by itself when it is done.
    """
    running = pytest.importorskip("implicitly.studies.running")
    end = running._close_guards
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(running, "_close_guards", lambda: None)
        yield end
    end()
