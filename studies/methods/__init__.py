"""Methods that a study can run on an equation: solvers of this package, and other libraries by themselves."""

from .equation import BudgetSpentError, StudyEquation, Watch
from .method import Attempt, Method
from .native import Native

__all__ = ["Attempt", "BudgetSpentError", "Method", "Native", "StudyEquation", "Watch"]
