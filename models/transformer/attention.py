"""Attention with relative positions, in plain matrix products where a derivative may be asked for.

The score of query `i` for key `j` at distance `δ` is `(qᵢ + u)·kⱼ + (qᵢ + v)·R_δ`, over `√(head width)`:
content and position, each with its own bias (Dai et al. 2019, section 3.3). Fused kernels have no
second derivative and no forward mode on a CPU; matrix products have both. Iterations of a solve, evaluation
and generation ask for none, and take the kernel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.functional import scaled_dot_product_attention

from ..dropout import apply_mask


def sinusoids(length: int, features: int, like: Tensor) -> Tensor:
    """Sines and cosines of the distances `length − 1, …, 1, 0`, `(length, features)`.

    Source: Vaswani et al. 2017, section 3.5; sines before cosines as in Dai et al. 2019.
    """
    distance = torch.arange(length - 1, -1, -1, dtype=torch.float64, device=like.device)
    even = torch.arange(0, features, 2, dtype=torch.float64, device=like.device)
    angle = distance.unsqueeze(1) * torch.exp(even * (-math.log(10000.0) / features))
    return torch.cat((angle.sin(), angle.cos()), dim=1)[:, :features].to(like.dtype)


def visible(queries: int, keys: int, context: int | None, device: torch.device) -> Tensor:
    """Mask of the keys that each query sees: itself and earlier ones, up to `context` in all.

    The queries are the last of the keys.

    Examples:
        >>> visible(2, 3, None, torch.device("cpu")).int()
        tensor([[1, 1, 0],
                [1, 1, 1]], dtype=torch.int32)
    """
    query = torch.arange(keys - queries, keys, device=device).unsqueeze(1)
    distance = query - torch.arange(keys, device=device)
    seen = distance >= 0
    return seen if context is None else seen & (distance < context)


def shifted(scores: Tensor) -> Tensor:
    """Reorder scores by distance into the order of keys.

    Column `m` of a row is for the distance `K − 1 − m`. Key `j` lies `K − T + i − j` before query `i`, in
    column `T − 1 − i + j`: shifting each row by one against the last is a change of shape.
    Entries beyond the query itself have no meaning.
    """
    *batch, rows, columns = scores.shape
    padded = torch.nn.functional.pad(scores, (1, 0)).reshape(*batch, columns + 1, rows)
    return padded[..., 1:, :].reshape(*batch, rows, columns)


def lost_tokens(z: Tensor) -> Tensor | None:
    """Mask of the tokens with features that are not finite, `(batch, T)`; `None` if it is known to be empty.

    On a processor the sum of all features tells, for less than a mask costs. Its value is not read on other
    devices, which would wait for it, nor where a value may be one of many.

    Examples:
        >>> z = torch.zeros(1, 3, 2)
        >>> lost_tokens(z), lost_tokens(z.index_fill(1, torch.tensor([2]), torch.nan))
        (None, tensor([[False, False,  True]]))
    """
    dtype = torch.promote_types(z.dtype, torch.float32)
    readable = type(z) is Tensor and z.device.type == "cpu" and not _traced()
    if readable and math.isfinite(z.detach().sum(dtype=dtype)):
        return None
    return ~z.sum(dim=2, dtype=dtype).isfinite()


def either(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Mask of the tokens of two masks, each of which may be `None`."""
    if one is None or other is None:
        return other if one is None else one
    return one | other


def without(lost: Tensor | None, x: Tensor) -> Tensor:
    """`x` with zeros for lost tokens.

    Attention weighs the future by zero; zero times NaN would be NaN.
    """
    return x if lost is None else x.masked_fill(lost.unsqueeze(2), 0.0)


def _traced() -> bool:
    """True within a transform or a trace, where tensors have no single value."""
    return (
        torch._C._are_functorch_transforms_active()
        or torch.compiler.is_compiling()
        or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None
    )


def relative_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    positions: Tensor,
    content_bias: Tensor,
    position_bias: Tensor,
    seen: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """Attention output of each query, `(batch, heads, T, width)`.

    Args:
        queries: `(batch, heads, T, width)`.
        keys: `(batch, heads, K, width)`, the last `T` of them at the positions of the queries.
        values: Values, shaped like the keys.
        positions: `R`, `(heads, K, width)`, for the distances `K − 1, …, 0`.
        content_bias: `u`, `(heads, width)`.
        position_bias: `v`, `(heads, width)`.
        seen: `(T, K)`, boolean.
        mask: A dropout mask for the weights, `(batch, heads, T, K)`.
    """
    batch, _, length, width = queries.shape
    scale = width**-0.5
    queries = scale * queries
    # One product for each head: the distances are the same for all sequences.
    about = (queries + scale * position_bias.unsqueeze(1)).transpose(0, 1).flatten(1, 2)
    position = (about @ positions.mT).unflatten(1, (batch, length))
    hidden = position.new_zeros(seen.shape).masked_fill(~seen, -torch.inf)
    by_position = (shifted(position) + hidden).transpose(0, 1)
    by_content = queries + scale * content_bias.unsqueeze(1)
    if mask is None and _fused((by_content, keys, values, by_position)):
        return scaled_dot_product_attention(by_content, keys, values, by_position, scale=1.0)
    weights = (by_content @ keys.mT + by_position).softmax(dim=-1)
    return apply_mask(weights, mask).to(values.dtype) @ values


def _fused(tensors: tuple[Tensor, ...]) -> bool:
    """True if a kernel may take these: no derivative can be asked for, and they are of one precision."""
    differentiable = (
        torch.is_grad_enabled()
        or forward_ad._current_level >= 0
        or torch._C._are_functorch_transforms_active()
    )
    mixed = torch.is_autocast_enabled(tensors[0].device.type)
    return not (differentiable or mixed) and len({tensor.dtype for tensor in tensors}) == 1
