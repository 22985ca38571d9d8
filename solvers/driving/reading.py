"""One read-back from the device for each look: norms, and the solver's own verdicts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .active import Active


class Reading(NamedTuple):
    """Norms, Euclidean and in the dtype of the state; an entry for each system of the batch."""

    norm: np.ndarray
    reference: np.ndarray
    end_status: np.ndarray | None


def read(
    state: Any, active: Active, relative_to_iterate: bool, first: np.ndarray | None
) -> Reading:
    """Norms of residual and iterate and the solver's own verdicts, in one read-back.

    Args:
        state: The solver's state.
        active: The systems that it has.
        relative_to_iterate: The reference is the norm of the iterate, else `first`.
        first: The norms of the first look; `None` if this is it.
    """
    own = getattr(state, "norm", None)
    norm = torch.linalg.vector_norm(state.residual, dim=1) if own is None else own
    parts = [norm]
    if relative_to_iterate:
        z_norm = getattr(state, "z_norm", None)
        parts.append(torch.linalg.vector_norm(state.z, dim=1) if z_norm is None else z_norm)
    end_status = getattr(state, "end_status", None)
    if end_status is not None:
        parts.append(end_status.to(norm.dtype))
    stacked = torch.stack(parts)
    host = (stacked.detach() if stacked.requires_grad else stacked).cpu().numpy()
    extreme = np.flatnonzero(~((host[0] > 0) & (host[0] < np.inf))) if own is None else ()
    if len(extreme):
        rows = state.residual.detach()[torch.from_numpy(extreme).to(state.residual.device)]
        if bool(rows.any()):
            host = host.astype(np.float64)
            host[0, extreme] = _in_range(rows)
    host = active.spread(host)
    reference = host[1] if relative_to_iterate else host[0] if first is None else first
    codes = None if end_status is None else np.nan_to_num(host[-1]).astype(np.int64)
    return Reading(host[0], reference, codes)


def plain_reading(
    z: Tensor, residual: Tensor, relative_to_iterate: bool, first: np.ndarray | None
) -> Reading:
    """The same for all systems of an iterate and its residual, with norms as they are."""
    norm = torch.linalg.vector_norm(residual, dim=1)
    if not relative_to_iterate:
        host: np.ndarray = norm.detach().cpu().numpy()
        return Reading(host, host if first is None else first, None)
    both = torch.stack((norm, torch.linalg.vector_norm(z, dim=1))).detach().cpu().numpy()
    return Reading(both[0], both[1], None)


def _in_range(residual: Tensor) -> np.ndarray:
    """Norms in float64 without under- or overflow of the squares, by the largest entry of each system."""
    rows = residual.double()
    largest = rows.abs().amax(dim=1, keepdim=True)
    unit = torch.where((largest > 0) & torch.isfinite(largest), largest, 1.0)
    norm: np.ndarray = (
        (torch.linalg.vector_norm(rows / unit, dim=1) * unit.squeeze(1)).cpu().numpy()
    )
    return norm
