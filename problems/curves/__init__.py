"""Equations whose solutions are curves in a parameter, with known folds and branch points."""

from ..registry import register
from .bratu_line import BratuOnALine
from .elastic_rod import ElasticRod
from .problem import CurveProblem
from .stirred_reactor import StirredReactor

__all__ = ["CurveProblem"]

IN_ORDER = (StirredReactor, BratuOnALine, ElasticRod)

for _problem in IN_ORDER:
    register(_problem)
