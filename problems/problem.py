"""Test problem: an equation with its standard start, known solutions and source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..options.options import Options, is_integer, is_positive
from ..solvers.interface.problem import Form

Device = torch.device | str | None
_LARGEST_SEARCHED = 10_000


@dataclass(frozen=True)
class Root:
    """One solution of a problem.

    Attributes:
        value: The solution, `(n,)`, or one per system, `(*batch_shape, n)`: the exact one, rounded.
        singular: True if the Jacobian of the residual is singular there.

    Examples:
        >>> from implicitly import problems
        >>> [(root.value.tolist(), root.singular) for root in problems.get("scalar-double").roots()]
        [([0.0], False), ([5.0], True)]
    """

    value: Tensor
    singular: bool = False

    @staticmethod
    def of(values: Iterable[float], singular: bool = False) -> Root:
        """A root from its entries."""
        return Root(torch.tensor(tuple(values), dtype=torch.float64), singular)


@dataclass(frozen=True)
class TestProblem(Options, ABC):
    """An equation with a standard start and known solutions; its options are its parameters.

    A problem defines `function`, `first` and, for known solutions, `known`. All tensors have the
    unknowns along their last axis; leading axes index independent systems of the same equation.

    Attributes:
        start_scale: Factor on the standard start; 10 and 100 are usual for distant starts (Moré, Garbow &
            Hillstrom 1981).

    Class attributes:
        name: Name in the registry.
        tags: Groups of the problem.
        source: Author, year and number or equation.
        form: `"root"`, `F(z) = 0`, or `"fixed_point"`, `z = f(z)`.
        standard_size: The number of unknowns of the literature.
        sizes: Allowed numbers of unknowns, in words.
        remark: A remark on its solutions.
        argument: The parameter that `args` gives as a tensor, or `None`.

    Examples:
        >>> import torch
        >>> from implicitly.problems import Root, TestProblem
        >>> class Circle(TestProblem):
        ...     name, standard_size, sizes = "circle", 2, "2"
        ...     source = "two circles around the ends of an interval"
        ...     def function(self, z):
        ...         x, y = z.unbind(-1)
        ...         return torch.stack((x**2 + y**2 - 1, (x - 1) ** 2 + y**2 - 1), dim=-1)
        ...     def first(self, n):
        ...         return [1.0, 1.0]
        ...     def known(self, n):
        ...         return [Root.of((0.5, 0.75**0.5)), Root.of((0.5, -(0.75**0.5)))]
        >>> Circle().residual(Circle().start()).tolist()
        [1.0, 0.0]
    """

    __test__: ClassVar[bool] = False  # pytest must not collect this class.

    name: ClassVar[str]
    source: ClassVar[str]
    standard_size: ClassVar[int]
    sizes: ClassVar[str]
    tags: ClassVar[tuple[str, ...]] = ()
    form: ClassVar[Form] = "root"
    remark: ClassVar[str] = ""
    argument: ClassVar[str | None] = None

    start_scale: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        if not is_positive(self.start_scale):
            raise ValueError(f"start_scale must be a number > 0, got {self.start_scale!r}")

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the start, for independent systems that are solved together."""
        return ()

    @abstractmethod
    def function(self, z: Tensor, *args: Any, **options: Any) -> Tensor:
        """`F(z)` of a root, `f(z)` of a fixed point, `(..., n)`, in the dtype and on the device of `z`."""

    @abstractmethod
    def first(self, n: int) -> Iterable[float] | Tensor:
        """The standard start with `n` unknowns, in float64."""

    def known(self, n: int) -> Iterable[Root]:
        """Every known solution with `n` unknowns, in float64."""
        return ()

    def allows(self, n: int) -> bool:
        """True if the problem exists with `n` unknowns, `n ≥ 1`."""
        return n == self.standard_size

    def args(
        self, n: int | None = None, dtype: torch.dtype = torch.float64, device: Device = None
    ) -> tuple[Tensor, ...]:
        """The parameters as tensors, for `function(z, *args)`; `function(z)` uses its own."""
        self.size(n)
        if self.argument is None:
            return ()
        return (torch.tensor(getattr(self, self.argument), dtype=dtype, device=device),)

    def preconditioner(
        self, n: int | None = None, dtype: torch.dtype = torch.float64, device: Device = None
    ) -> Callable[[Tensor], Tensor] | None:
        """An approximate inverse of `∂r/∂z` on flat `(batch, n)` tensors, for `GMRES`.

        `r` is the solvers' residual, `−F(z)` or `f(z) − z`. It is `None` if it is unknown or unnecessary.
        """
        self.size(n)
        return None

    def residual(self, z: Tensor, *args: Tensor) -> Tensor:
        """`F(z)` of a root, `f(z) − z` of a fixed point."""
        value = self.function(z, *args)
        return value - z if self.form == "fixed_point" else value

    def start(
        self, n: int | None = None, dtype: torch.dtype = torch.float64, device: Device = None
    ) -> Tensor:
        """The standard start times `start_scale`, `(*batch_shape, n)`; `n=None` for the standard size.

        Raises:
            ValueError: The problem does not exist with `n` unknowns.
        """
        first = self.first(self.size(n))
        if not isinstance(first, Tensor):
            first = torch.tensor(tuple(first), dtype=torch.float64)
        return (self.start_scale * first).to(dtype=dtype, device=device)

    def roots(
        self, n: int | None = None, dtype: torch.dtype = torch.float64, device: Device = None
    ) -> tuple[Root, ...]:
        """Every known solution, `(*batch_shape, n)` each; `remark` mentions others.

        Raises:
            ValueError: The problem does not exist with `n` unknowns.
        """
        return tuple(
            Root(root.value.to(dtype=dtype, device=device), root.singular)
            for root in self.known(self.size(n))
        )

    def size(self, n: int | None = None) -> int:
        """The number of unknowns: `n` after a check, or the standard size.

        Raises:
            ValueError: The problem does not exist with `n` unknowns.
        """
        if n is None:
            return self.standard_size
        if not is_integer(n, 1):
            raise ValueError(f"n must be an integer ≥ 1 or None, got {n!r}")
        if self.allows(n):
            return n
        raise ValueError(
            f"{self.name} allows n = {self.sizes}, got {n}; nearest: {self._nearest(n)}"
        )

    def _nearest(self, n: int) -> int:
        for distance in range(1, _LARGEST_SEARCHED):
            for near in (n - distance, n + distance):
                if near > 0 and self.allows(near):
                    return near
        return self.standard_size


def indices(z: Tensor) -> Tensor:
    """`1, …, n` for the last axis of `z`, in its dtype and on its device."""
    return torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)
