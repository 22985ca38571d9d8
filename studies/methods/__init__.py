"""What a study can run on an equation: solvers of this package, and other libraries by themselves."""

from .equation import BudgetSpentError, Equation, Watch
from .method import Attempt, Method
from .native import Native

__all__ = ["Attempt", "BudgetSpentError", "Equation", "Method", "Native", "Watch"]
