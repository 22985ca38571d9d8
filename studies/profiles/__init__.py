"""Profiles of solvers on a set of problems: pure functions of arrays.

Arrays are laid out `(problems, solvers)`. A cost is positive; it is `inf` where a solver failed.
"""

from .bootstrap import Interval, Statistic, bootstrap, mean, median
from .data import data_profile, evaluations_to_reach
from .performance import head_to_head, performance_profile, ratios
from .precision import Precision, work_precision
from .proportions import wilson
from .steps import Steps, cumulative_share
from .taxonomy import Raised, group_exceptions, outcome_counts
from .traces import thin_trace

__all__ = [
    "Interval",
    "Precision",
    "Raised",
    "Statistic",
    "Steps",
    "bootstrap",
    "cumulative_share",
    "data_profile",
    "evaluations_to_reach",
    "group_exceptions",
    "head_to_head",
    "mean",
    "median",
    "outcome_counts",
    "performance_profile",
    "ratios",
    "thin_trace",
    "wilson",
    "work_precision",
]
