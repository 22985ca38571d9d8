"""A mode of PyTorch in which every torch function gets other tensors in place of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only


class ExchangeMode(TorchFunctionMode):
    """Mode in which every torch function gets `exchanged(tensor)` in place of each tensor."""

    @abstractmethod
    def exchanged(self, tensor: Tensor) -> Tensor:
        """The tensor to take the place of `tensor`; it may be `tensor` itself."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        args, kwargs = tree_map_only(Tensor, self.exchanged, (args, kwargs or {}))
        return func(*args, **kwargs)
