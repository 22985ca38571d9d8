"""Number of parameters of a model."""

from __future__ import annotations

from typing import NamedTuple

from .sequence_model import SequenceModel


class ParameterCount(NamedTuple):
    """Numbers of parameters.

    Attributes:
        total: All parameters.
        model: Parameters outside of the vocabulary's tables, projections and biases.
    """

    total: int
    model: int


def count_parameters(model: SequenceModel) -> ParameterCount:
    """Count the parameters of a model, each once; a model on the meta device allocates no memory.

    Examples:
        >>> import torch
        >>> from implicitly.models import TrellisNet
        >>> from implicitly.models.configurations import TRELLISNET_PTB
        >>> with torch.device("meta"):
        ...     count = count_parameters(TrellisNet(TRELLISNET_PTB))
        >>> round(count.total / 1e6, 1), round(count.model / 1e6, 1)
        (24.2, 20.2)
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    vocabulary = sum(parameter.numel() for parameter in model.vocabulary.parameters())
    return ParameterCount(total, total - vocabulary)
