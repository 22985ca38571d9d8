"""Store of a study's rows and plans."""

from .plan import Plan
from .store import Store, now

__all__ = ["Plan", "Store", "now"]
