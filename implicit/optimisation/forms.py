"""The objective, the bounds and the programme of a user's function, in the forms that equations carry."""

from __future__ import annotations

from ..equations.boxes import BoxForm
from ..equations.objectives import ObjectiveForm
from ..surroundings.evaluation import UserFunction
from .bounds import Bounded, Conditions
from .programme_conditions import ProgrammeConditions
from .stationarity import Stationarity


def objective_of(given: UserFunction) -> ObjectiveForm | None:
    """The objective whose gradient the function is, if it is one."""
    function = given.function
    inner = function.function if isinstance(function, Bounded) else function
    return inner.form(given.bind_objective) if isinstance(inner, Stationarity) else None


def box_of(given: UserFunction) -> BoxForm | None:
    """The bounds of the function, if it has any."""
    function = given.function
    if not isinstance(function, Bounded):
        return None
    first = len(given.tensors) - 2 * len(given.start)
    return BoxForm(first, given.bind_unreduced if function.reduces else None)


def is_programme(given: UserFunction) -> bool:
    """True for the conditions of a quadratic programme."""
    function = given.function
    inner = function.function if isinstance(function, Bounded) else None
    return isinstance(inner, Conditions) and isinstance(inner.function, ProgrammeConditions)
