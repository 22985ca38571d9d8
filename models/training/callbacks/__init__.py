"""Optional parts of a run, as Lightning callbacks."""

from .implicit_layers import ImplicitLayerMonitor
from .jacobian import JacobianRegularisation
from .limits import RandomIterationLimits
from .progress import TrainingProgress
from .residual import ResidualRegularisation
from .spectral_radius import SpectralRadiusMonitor

__all__ = [
    "ImplicitLayerMonitor",
    "JacobianRegularisation",
    "RandomIterationLimits",
    "ResidualRegularisation",
    "SpectralRadiusMonitor",
    "TrainingProgress",
]
