"""implicitly: functions defined by an equation instead of by a sequence of operations.

`root` and `fixed_point` solve an equation and differentiate its solution to every order; any solver
may find it. `ImplicitLayer` is the same as a PyTorch module. Everything public of `implicitly.implicit`
and `implicitly.solvers`, also what solvers and gradient modes of your own build on, is found here.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .implicit import *  # noqa: F403
    from .solvers import *  # noqa: F403

__version__ = "0.1.0"

_HOMES = ("implicit", "solvers")
_SUBPACKAGES = (*_HOMES, "models", "problems", "studies", "verification")


def __getattr__(name: str) -> Any:
    """Import names when they are asked for: PyTorch takes seconds, and help needs none."""
    if name in _SUBPACKAGES:
        return import_module(f".{name}", __name__)
    homes = [] if name.startswith("_") and name != "__all__" else _homes()
    if name == "__all__":
        # Constants, classes, functions.
        order = sorted(public for home in homes for public in home.__all__)
        return sorted(order, key=lambda public: (not public.isupper(), not public[0].isupper()))
    for home in homes:
        if name in home.__all__:
            globals()[name] = value = getattr(home, name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _homes() -> list[ModuleType]:
    return [import_module(f".{home}", __name__) for home in _HOMES]


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__"), *_SUBPACKAGES})
