"""Initial state of a Doyle–Fuller–Newman battery: coefficients from 1e-11 to 1e11 and exponentials."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..problem import Root, TestProblem

_RATE = 19.460872248113507  # F / 2RT
_THERMAL = 0.025692579121085843  # RT / F
_CURRENT = 292.3000724036127
# Negative and positive electrode, three nodes each.
_EQUILIBRIUM = (0.6608489145760508, 3.3618450059739535)
_EXCHANGE = (114676.11822324689, 147554.10828979727)
_REACTION_SCALE = (1.9876764062810574e10, 4.284490145672665e10)
_TOTAL_SCALE = (1.793773306620288e9, 2.193876971198113e9)
_SOLID_CONDUCTANCE = (5.6064049586776855e10, 8.296874999999998e10)
_CURRENT_SCALE = (34090.90909090909, -37499.99999999999)
_SIDE_REACTION, _SIDE_EQUILIBRIUM = 1.5546404484393263e-11, 0.4
# Conductances of the electrolyte to the node before and to the node after, where it is not the reference:
# two nodes in the negative electrode, three in the separator, three in the positive electrode.
_BEFORE = (
    7.680104664733624e7, 7.680104664733624e7, 5.1142109690283257e8, 4.7254130462088e9,
    4.7254130462088e9, 7.200116314883803e7, 3.6900178974461965e7, 3.6900178974461965e7,
)  # fmt: skip
_AFTER = (
    7.680104664733624e7, 1.4529008434739566e8, 4.7254130462088e9, 4.7254130462088e9,
    2.3040372207628164e8, 3.6900178974461965e7, 3.6900178974461965e7, 0.0,
)  # fmt: skip


@dataclass(frozen=True)
class Battery(TestProblem):
    """Potentials and reaction rates through a cell under load, on three nodes per electrode.

    Unknowns: potential of the electrolyte (8, the first node is the reference), potential of the
    solid (6), current (1), and total, intercalation and side reaction rates (6 each).
    """

    name = "battery"
    tags = ("application",)
    source = "Doyle, Fuller & Newman 1993; Berliner 2023 (NonlinearProblemLibrary.jl)"
    standard_size = 33
    sizes = "33"
    remark = "The known root is given. Rounding alone leaves a residual of 1e-6 in float64."

    def function(self, z: Tensor) -> Tensor:
        electrolyte, solid, current, total, intercalation, side = z.split((8, 6, 1, 6, 6, 6), -1)

        def constant(values: tuple[float, ...]) -> Tensor:
            return torch.tensor(values, dtype=z.dtype, device=z.device)

        def by_electrode(values: tuple[float, float]) -> Tensor:
            return constant(values).repeat_interleave(3)

        drops = pad(electrolyte, (1, 0)).diff(dim=-1)
        leaving = constant(_BEFORE) * drops - constant(_AFTER) * pad(drops[..., 1:], (0, 1))
        sources = torch.cat((total[..., 1:3], torch.zeros_like(total[..., :3]), total[..., 3:]), -1)
        scale = by_electrode(_TOTAL_SCALE)
        sources = sources * torch.cat((scale[1:3], torch.ones_like(scale[:3]), scale[3:]))

        steps = solid.unflatten(-1, (2, 3)).diff(dim=-1)
        along = pad(steps, (0, 1)) - pad(steps, (1, 0))
        conduction = by_electrode(_SOLID_CONDUCTANCE) * along.flatten(-2)
        # The current enters at the first node and leaves at the last.
        fed = pad(current * _CURRENT_SCALE[0], (0, 5)) + pad(current * _CURRENT_SCALE[1], (5, 0))

        at_nodes = torch.cat((pad(electrolyte[..., :2], (1, 0)), electrolyte[..., 5:]), dim=-1)
        jump = solid - at_nodes
        driving = _RATE * (jump - by_electrode(_EQUILIBRIUM))
        plating = _SIDE_REACTION * torch.exp(-_RATE * (jump[..., :3] - _SIDE_EQUILIBRIUM))
        reaction = by_electrode(_REACTION_SCALE)
        return torch.cat(
            (
                _THERMAL * leaving - sources,
                _THERMAL * (fed + conduction) - scale * total,
                current + _CURRENT,
                reaction * (side + intercalation - total),
                2 * by_electrode(_EXCHANGE) * torch.sinh(driving) - reaction * intercalation,
                -side - pad(plating, (0, 3)),
            ),
            dim=-1,
        )

    def first(self, n: int) -> list[float]:
        solid = [_EQUILIBRIUM[0]] * 3 + [_EQUILIBRIUM[1]] * 3
        return [0.0] * 8 + solid + [0.0] * 19

    def known(self, n: int) -> list[Root]:
        return [Root.of(_ROOT)]


# Published to 16 digits.
_ROOT = (
    0.019709320908045884, 0.06927785744111935, 0.13786323434647954, 0.14528607936456214,
    0.15270892438264475, 0.3049460860584471, 0.3812355737657502, 0.40860971681949443,
    0.5895178515117894, 0.5896685912243755, 0.5897784273806014,
    3.837532182598256, 3.8376303660343676, 3.837750304468262,
    -292.3000724036127,
    -2.1680981811627007e-5, -3.2846241323890243e-5, -8.820027436448276e-5,
    9.53999632159426e-5, 2.1138249693289567e-5, 1.1829446876191545e-5,
    -2.1680981422696e-5, -3.284624075480569e-5, -8.820027287447222e-5,
    9.53999632159426e-5, 2.1138249693289567e-5, 1.1829446876191545e-5,
    -3.889310081682032e-13, -5.690845522092043e-13, -1.4900105367898274e-12,
    0.0, 0.0, 0.0,
)  # fmt: skip
