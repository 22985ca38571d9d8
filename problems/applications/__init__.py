"""Equations from applications, most of them of any size; an evaluation costs `n` or `n log n`."""

from ..registry import register
from .battery import Battery
from .bratu import Bratu
from .brusselator import Brusselator
from .cavity import DrivenCavity
from .convection_diffusion import ConvectionDiffusion
from .kepler import Kepler
from .power_flow import PowerFlow
from .propane import PropaneEquilibrium
from .troesch import Troesch

IN_ORDER = (
    Bratu,
    ConvectionDiffusion,
    DrivenCavity,
    Brusselator,
    PowerFlow,
    PropaneEquilibrium,
    Kepler,
    Troesch,
    Battery,
)

for _problem in IN_ORDER:
    register(_problem)
