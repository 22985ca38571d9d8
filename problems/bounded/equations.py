"""Equations with bounds, from chemistry and from circuits: concentrations, fractions and voltages."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .problem import BoundedProblem

_INF = math.inf
_CARBON, _PHOSPHORUS, _CHLORIDE = 2e-3, 1e-3, 1e-3
_WATER, _CARBONIC, _BICARBONATE = 1e-14, 4.45e-7, 4.69e-11
_PHOSPHORIC = (7.1e-3, 6.3e-8, 4.5e-13)


def carbonate_phosphate(
    z: Tensor,
    carbon: float = _CARBON,
    phosphorus: float = _PHOSPHORUS,
    chloride: float = _CHLORIDE,
) -> Tensor:
    """Carbon dioxide, phosphoric and hydrochloric acid in water: six mass-action laws, two sums, the charge.

    The unknowns are concentrations in mol/l: H⁺, OH⁻, CO₂, HCO₃⁻, CO₃²⁻, H₃PO₄, H₂PO₄⁻, HPO₄²⁻, PO₄³⁻. The
    sums are those of carbon and phosphorus; chloride below zero is sodium.
    """
    h, oh, c0, c1, c2, p0, p1, p2, p3 = z.unbind(-1)
    first, second, third = _PHOSPHORIC
    return torch.stack(
        (
            h * oh - _WATER,
            h * c1 - _CARBONIC * c0,
            h * c2 - _BICARBONATE * c1,
            h * p1 - first * p0,
            h * p2 - second * p1,
            h * p3 - third * p2,
            c0 + c1 + c2 - carbon,
            p0 + p1 + p2 + p3 - phosphorus,
            h - chloride - oh - c1 - 2 * c2 - p1 - 2 * p2 - 3 * p3,
        ),
        dim=-1,
    )


_FEED = (0.5, 0.3, 0.15, 0.05)
_RATIOS = (8.0, 1.5, 0.2, 0.0001)


def isothermal_flash(z: Tensor) -> Tensor:
    """Four components split into liquid and vapour: balances, equilibrium ratios, equal sums of fractions.

    The unknowns are the vapour fraction and the mole fractions of liquid and vapour.
    """
    feed, ratios = (torch.tensor(t, dtype=z.dtype, device=z.device) for t in (_FEED, _RATIOS))
    share, x, y = z[..., :1], z[..., 1:5], z[..., 5:]
    balance = share * y + (1 - share) * x - feed
    sums = (y - x).sum(dim=-1, keepdim=True)
    return torch.cat((balance, y - ratios * x, sums), dim=-1)


_VOLTAGE, _RESISTANCE, _THERMAL = 12.0, 1000.0, 0.02585
_SATURATION = (1e-14, 2.5e-9)
_IDEALITY = (1.0, 2.0)


def diode_circuit(z: Tensor) -> Tensor:
    """A source, a resistor and two diodes in series, whose currents are exponentials of their voltages.

    The unknowns are the current in A and the voltages of the diodes in V.
    """
    current, first, second = z.unbind(-1)
    loop = _VOLTAGE - _RESISTANCE * current - first - second
    diodes = (
        saturation * torch.expm1(voltage / (ideality * _THERMAL)) - current
        for voltage, saturation, ideality in zip(
            (first, second), _SATURATION, _IDEALITY, strict=True
        )
    )
    return torch.stack((loop, *diodes), dim=-1)


# Solutions by bisection of one unknown, the others eliminated by hand, in 40 digits.
EQUATIONS = (
    BoundedProblem(
        "carbonate-phosphate",
        "root",
        "aqueous equilibrium, constants at 25 °C of Stumm & Morgan 1996",
        carbonate_phosphate,
        first=(1.0,) * 9,
        lower=(0.0,) * 9,
        upper=(_INF,) * 9,
        solution=(
            0.0017984225859537681335,
            5.5604283876898935827e-12,
            0.0019995052442824844385,
            4.9475570461311980812e-7,
            1.2902441688391819921e-14,
            0.00020210012534819917561,
            0.00079787192464068689982,
            2.7950011106930935682e-8,
            6.9936315837851970231e-18,
        ),
    ),
    BoundedProblem(
        "isothermal-flash",
        "root",
        "Rachford & Rice 1952",
        isothermal_flash,
        first=(0.5,) + (0.25,) * 8,
        lower=(0.0,) * 9,
        upper=(1.0,) * 9,
        solution=(
            0.81973013705755590122,
            0.07420477386206598109,
            0.21278632026329720062,
            0.43577302560249568122,
            0.27723588027214113708,
            0.59363819089652784872,
            0.31917948039494580093,
            0.087154605120499136243,
            0.000027723588027214113708,
        ),
    ),
    BoundedProblem(
        "diode-circuit",
        "root",
        "Shockley 1949 (the law of a diode)",
        diode_circuit,
        first=(0.0, 0.0, 0.0),
        lower=(0.0, 0.0, 0.0),
        upper=(_VOLTAGE / _RESISTANCE, _VOLTAGE, _VOLTAGE),
        solution=(0.01049605027730244482, 0.71551339592010152566, 0.78843632677745365448),
    ),
)
