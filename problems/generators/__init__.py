"""Generated fixed points of chosen difficulty and solution, drawn by a seed, the same in every dtype."""

from ..registry import register
from .contraction import Contraction, UnequalContractions
from .equilibrium import MonotoneEquilibrium, TanhEquilibrium
from .spectrum import Spectrum

IN_ORDER = (Contraction, UnequalContractions, Spectrum, MonotoneEquilibrium, TanhEquilibrium)

for _problem in IN_ORDER:
    register(_problem)
