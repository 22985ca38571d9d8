"""Store of a study's rows and plans."""

from .claims import Claims
from .plan import Plan
from .store import Store, now

__all__ = ["Claims", "Plan", "Store", "now"]
