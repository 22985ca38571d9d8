"""Segments of a long text, which is cut into parallel streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from ...options.options import check_integer


class Segment(NamedTuple):
    """Tokens and the tokens after each of them, `(batch, time)`."""

    tokens: Tensor
    targets: Tensor


class Segments:
    """A text cut into `batch` parallel streams, and these into segments of `length`.

    The segments of a stream are consecutive, so that memory can pass from one to the next. The remainder of
    the text is left out, so that streams have equal lengths; the last segment may be shorter.

    Args:
        codes: The text, one-dimensional.
        batch: Number of streams.
        length: Tokens of a segment.

    Raises:
        ValueError: A size is not an integer ≥ 1, or the text is too short for the streams.

    Examples:
        >>> import torch
        >>> cut = Segments(torch.arange(9), batch=2, length=2)
        >>> len(cut), [s.tokens.tolist() for s in cut]
        (2, [[[0, 1], [4, 5]], [[2], [6]]])
    """

    def __init__(self, codes: Tensor, batch: int, length: int) -> None:
        for name, value in (("batch", batch), ("length", length)):
            check_integer(name, value, 1)
        each = len(codes) // batch
        if each < 2:
            raise ValueError(
                f"a text of {len(codes)} tokens is too short for {batch} streams: give a smaller batch"
            )
        self._streams = codes[: each * batch].reshape(batch, each)
        self._length, self._end = length, each - 1

    def __len__(self) -> int:
        return -(-self._end // self._length)

    def __getitem__(self, index: int) -> Segment:
        if not 0 <= index < len(self):
            raise IndexError(f"index must be from 0 to {len(self) - 1}, got {index}")
        start = index * self._length
        end = min(start + self._length, self._end)
        return Segment(
            self._streams[:, start:end].long(), self._streams[:, start + 1 : end + 1].long()
        )

    def __iter__(self) -> Iterator[Segment]:
        return (self[index] for index in range(len(self)))
