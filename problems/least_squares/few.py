"""The problems of the collection with few unknowns, 1 to 19, by number."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..classical.few_unknowns import HelicalValley, PowellBadlyScaled, PowellSingular
from ..classical.one_or_two import FreudensteinRoth
from .problem import LeastSquaresProblem


def _row(z: Tensor, values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=z.dtype, device=z.device)


def _index(z: Tensor, m: int) -> Tensor:
    return torch.arange(1, m + 1, dtype=z.dtype, device=z.device)


def _columns(z: Tensor) -> tuple[Tensor, ...]:
    """The unknowns, each with a last axis along which residuals follow."""
    return tuple(z[..., j : j + 1] for j in range(z.shape[-1]))


def rosenbrock(z: Tensor) -> Tensor:
    """A curved valley."""
    x1, x2 = z.unbind(-1)
    return torch.stack((10 * (x2 - x1**2), 1 - x1), dim=-1)


def brown_badly_scaled(z: Tensor) -> Tensor:
    """Unknowns whose sizes differ by twelve orders of magnitude."""
    x1, x2 = z.unbind(-1)
    return torch.stack((x1 - 1e6, x2 - 2e-6, x1 * x2 - 2), dim=-1)


def beale(z: Tensor) -> Tensor:
    """Three products with powers."""
    x1, x2 = _columns(z)
    return _row(z, (1.5, 2.25, 2.625)) - x1 * (1 - x2 ** _index(z, 3))


def jennrich_sampson(z: Tensor) -> Tensor:
    """Two exponentials that cannot be told apart; large residuals."""
    x1, x2 = _columns(z)
    i = _index(z, 10)
    return 2 + 2 * i - (torch.exp(i * x1) + torch.exp(i * x2))


_BARD = (
    0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39,
)  # fmt: skip


def bard(z: Tensor) -> Tensor:
    """A rational fit, whose other minimum is at infinity."""
    x1, x2, x3 = _columns(z)
    u = _index(z, 15)
    v = 16 - u
    return _row(z, _BARD) - (x1 + u / (v * x2 + torch.minimum(u, v) * x3))


_GAUSSIAN = (
    0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521, 0.3989, 0.3521, 0.2420, 0.1295, 0.0540,
    0.0175, 0.0044, 0.0009,
)  # fmt: skip


def gaussian(z: Tensor) -> Tensor:
    """A fit of the normal density."""
    x1, x2, x3 = _columns(z)
    t = (8 - _index(z, 15)) / 2
    return x1 * torch.exp(-x2 * (t - x3) ** 2 / 2) - _row(z, _GAUSSIAN)


_MEYER = (
    34780.0, 28610.0, 23650.0, 19630.0, 16370.0, 13720.0, 11540.0, 9744.0, 8261.0, 7030.0, 6005.0,
    5147.0, 4427.0, 3820.0, 3307.0, 2872.0,
)  # fmt: skip


def meyer(z: Tensor) -> Tensor:
    """The resistance of a thermistor: a valley that is narrow and long."""
    x1, x2, x3 = _columns(z)
    t = 45 + 5 * _index(z, 16)
    return x1 * torch.exp(x2 / (t + x3)) - _row(z, _MEYER)


def gulf(z: Tensor) -> Tensor:
    """The Weibull distribution of the Gulf research and development problem."""
    x1, x2, x3 = _columns(z)
    t = _index(z, 99) / 100
    y = 25 + (-50 * torch.log(t)) ** (2 / 3)
    return torch.exp(-((y - x2).abs() ** x3) / x1) - t


def box(z: Tensor) -> Tensor:
    """Differences of exponentials, zero on a plane as well."""
    x1, x2, x3 = _columns(z)
    t = 0.1 * _index(z, 10)
    return torch.exp(-t * x1) - torch.exp(-t * x2) - x3 * (torch.exp(-t) - torch.exp(-10 * t))


def wood(z: Tensor) -> Tensor:
    """Two coupled valleys."""
    x1, x2, x3, x4 = z.unbind(-1)
    return torch.stack(
        (
            10 * (x2 - x1**2),
            1 - x1,
            math.sqrt(90) * (x4 - x3**2),
            1 - x3,
            math.sqrt(10) * (x2 + x4 - 2),
            (x2 - x4) / math.sqrt(10),
        ),
        dim=-1,
    )


_KOWALIK = (
    0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246,
)  # fmt: skip
_KOWALIK_AT = (4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625)


def kowalik_osborne(z: Tensor) -> Tensor:
    """An enzyme reaction, whose other minimum is at infinity."""
    x1, x2, x3, x4 = _columns(z)
    u = _row(z, _KOWALIK_AT)
    return _row(z, _KOWALIK) - x1 * (u**2 + u * x2) / (u**2 + u * x3 + x4)


def brown_dennis(z: Tensor) -> Tensor:
    """Squares of two fits; large residuals."""
    x1, x2, x3, x4 = _columns(z)
    t = _index(z, 20) / 5
    return (x1 + t * x2 - torch.exp(t)) ** 2 + (x3 + x4 * torch.sin(t) - torch.cos(t)) ** 2


_OSBORNE_1 = (
    0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751, 0.718, 0.685, 0.658,
    0.628, 0.603, 0.580, 0.558, 0.538, 0.522, 0.506, 0.490, 0.478, 0.467, 0.457, 0.448, 0.438, 0.431,
    0.424, 0.420, 0.414, 0.411, 0.406,
)  # fmt: skip


def osborne_1(z: Tensor) -> Tensor:
    """A fit of two exponentials."""
    x1, x2, x3, x4, x5 = _columns(z)
    t = 10 * (_index(z, 33) - 1)
    return _row(z, _OSBORNE_1) - (x1 + x2 * torch.exp(-t * x4) + x3 * torch.exp(-t * x5))


def biggs(z: Tensor) -> Tensor:
    """A fit of three exponentials by three others."""
    x1, x2, x3, x4, x5, x6 = _columns(z)
    t = 0.1 * _index(z, 13)
    y = torch.exp(-t) - 5 * torch.exp(-10 * t) + 3 * torch.exp(-4 * t)
    fit = x3 * torch.exp(-t * x1) - x4 * torch.exp(-t * x2) + x6 * torch.exp(-t * x5)
    return fit - y


_OSBORNE_2 = (
    1.366, 1.191, 1.112, 1.013, 0.991, 0.885, 0.831, 0.847, 0.786, 0.725, 0.746, 0.679, 0.608, 0.655,
    0.616, 0.606, 0.602, 0.626, 0.651, 0.724, 0.649, 0.649, 0.694, 0.644, 0.624, 0.661, 0.612, 0.558,
    0.533, 0.495, 0.500, 0.423, 0.395, 0.375, 0.372, 0.391, 0.396, 0.405, 0.428, 0.429, 0.523, 0.562,
    0.607, 0.653, 0.672, 0.708, 0.633, 0.668, 0.645, 0.632, 0.591, 0.559, 0.597, 0.625, 0.739, 0.710,
    0.729, 0.720, 0.636, 0.581, 0.428, 0.292, 0.162, 0.098, 0.054,
)  # fmt: skip


def osborne_2(z: Tensor) -> Tensor:
    """A fit of an exponential and three bell curves."""
    x = _columns(z)
    t = (_index(z, 65) - 1) / 10
    fit = x[0] * torch.exp(-t * x[4])
    for k in range(3):
        fit = fit + x[1 + k] * torch.exp(-((t - x[8 + k]) ** 2) * x[5 + k])
    return _row(z, _OSBORNE_2) - fit


FEW = (
    LeastSquaresProblem(
        "rosenbrock", 1, "Rosenbrock 1960", rosenbrock, (-1.2, 1.0), (0.0,), (1.0, 1.0)
    ),
    LeastSquaresProblem(
        "freudenstein-roth", 2, "Freudenstein & Roth 1963", FreudensteinRoth().function, (0.5, -2.0),
        (0.0, 48.9842), (5.0, 4.0),
    ),
    LeastSquaresProblem(
        "powell-badly-scaled", 3, "Powell 1970", PowellBadlyScaled().function, (0.0, 1.0), (0.0,),
        (1.0981593296998175e-05, 9.106146739866524),
    ),
    LeastSquaresProblem(
        "brown-badly-scaled", 4, "Moré, Garbow & Hillstrom 1981", brown_badly_scaled, (1.0, 1.0),
        (0.0,), (1e6, 2e-6),
    ),
    LeastSquaresProblem("beale", 5, "Beale 1958", beale, (1.0, 1.0), (0.0,), (3.0, 0.5)),
    LeastSquaresProblem(
        "jennrich-sampson", 6, "Jennrich & Sampson 1968", jennrich_sampson, (0.3, 0.4), (124.362,)
    ),
    LeastSquaresProblem(
        "helical-valley", 7, "Fletcher & Powell 1963", HelicalValley().function, (-1.0, 0.0, 0.0),
        (0.0,), (1.0, 0.0, 0.0),
    ),
    LeastSquaresProblem("bard", 8, "Bard 1970", bard, (1.0, 1.0, 1.0), (8.21487e-3, 17.4286)),
    LeastSquaresProblem(
        "gaussian", 9, "Moré, Garbow & Hillstrom 1981", gaussian, (0.4, 1.0, 0.0), (1.12793e-8,)
    ),
    LeastSquaresProblem("meyer", 10, "Meyer 1970", meyer, (0.02, 4000.0, 250.0), (87.9458,)),
    LeastSquaresProblem(
        "gulf", 11, "Cox 1969", gulf, (5.0, 2.5, 0.15), (0.0,), (50.0, 25.0, 1.5)
    ),
    LeastSquaresProblem(
        "box", 12, "Box 1966", box, (0.0, 10.0, 20.0), (0.0,), (1.0, 10.0, 1.0)
    ),
    LeastSquaresProblem(
        "powell-singular", 13, "Powell 1962", PowellSingular().function, (3.0, -1.0, 0.0, 1.0), (0.0,),
        (0.0, 0.0, 0.0, 0.0), unique=False,
    ),
    LeastSquaresProblem(
        "wood", 14, "Colville 1968", wood, (-3.0, -1.0, -3.0, -1.0), (0.0,), (1.0, 1.0, 1.0, 1.0)
    ),
    LeastSquaresProblem(
        "kowalik-osborne", 15, "Kowalik & Osborne 1968", kowalik_osborne, (0.25, 0.39, 0.415, 0.39),
        (3.07505e-4, 1.02734e-3),
    ),
    LeastSquaresProblem(
        "brown-dennis", 16, "Brown & Dennis 1971", brown_dennis, (25.0, 5.0, -5.0, -1.0), (85822.2,)
    ),
    LeastSquaresProblem(
        "osborne-1", 17, "Osborne 1972", osborne_1, (0.5, 1.5, -1.0, 0.01, 0.02), (5.46489e-5,)
    ),
    LeastSquaresProblem(
        "biggs", 18, "Biggs 1971", biggs, (1.0, 2.0, 1.0, 1.0, 1.0, 1.0), (0.0, 5.65565e-3),
        (1.0, 10.0, 1.0, 5.0, 4.0, 3.0),
    ),
    LeastSquaresProblem(
        "osborne-2", 19, "Osborne 1972", osborne_2,
        (1.3, 0.65, 0.65, 0.7, 0.6, 3.0, 5.0, 7.0, 2.0, 4.5, 5.5), (4.01377e-2,),
    ),
)  # fmt: skip
