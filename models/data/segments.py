"""A long text as parallel streams, cut into segments that follow one another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from ...solvers.options import is_integer


class Segment(NamedTuple):
    """Tokens and the tokens after each of them, `(batch, time)`."""

    tokens: Tensor
    targets: Tensor


def segments(codes: Tensor, batch: int, length: int) -> Iterator[Segment]:
    """Cut a text into `batch` streams side by side, and these into segments of `length`.

    A stream's segments follow one another, so that memory can go from one to the next. What does not
    fill the streams evenly is left out; the last segment may be shorter.

    Args:
        codes: The text, one-dimensional.
        batch: Streams.
        length: Tokens of a segment.

    Raises:
        ValueError: A size is not an integer ≥ 1, or the text is too short for the streams.

    Examples:
        >>> import torch
        >>> [s.tokens.tolist() for s in segments(torch.arange(9), batch=2, length=3)]
        [[[0, 1, 2], [4, 5, 6]]]
    """
    for name, value in (("batch", batch), ("length", length)):
        if not is_integer(value, 1):
            raise ValueError(f"{name} must be an integer ≥ 1, got {value!r}")
    each = len(codes) // batch
    if each < 2:
        raise ValueError(
            f"a text of {len(codes)} tokens is too short for {batch} streams: give a smaller batch"
        )
    streams = codes[: each * batch].reshape(batch, each).long()
    for start in range(0, each - 1, length):
        end = min(start + length, each - 1)
        yield Segment(streams[:, start:end], streams[:, start + 1 : end + 1])
