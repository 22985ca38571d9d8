"""Sparsity patterns, and colourings of their columns and rows by which few products give all entries.

Columns that share no row get one colour: the product `A v` with the sum of their unit vectors has all their
entries. A row with many entries would give each of its columns a colour of its own. Where a few rows are
much fuller than the others, as a constraint on a mean is, products `Aᵀ u` give their entries, and columns are
coloured by the other rows alone. A column with many entries costs one colour.

Source: Curtis, Powell & Reid 1974; Coleman & Moré 1983 (colouring of columns); Coleman & Verma 1998, section
2 (rows and columns in groups, by which products with `A` and with `Aᵀ` determine each entry directly).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...options.libraries import needs
from .colouring import first_fit

with needs("scipy", "a sparse Jacobian"):
    from scipy import sparse

Product = Callable[[np.ndarray], np.ndarray]
"""From one vector, `(n,)`, to the products of every matrix of a batch with it, `(batch, n)`."""

# Rounding error of a sum of entries, in units of eps times the largest entry of the row. From this fraction
# of that entry on, sums cannot identify entries.
_NOISE_UNITS, _MOST_NOISE = 1024.0, 0.1
# Rows are taken out of the colouring of columns if that leaves at most this part of the products.
_PART_LEFT = 0.5


@dataclass(frozen=True)
class SparsePattern:
    """Places of entries, and colours: columns of one colour share no row, rows of one colour no column.

    Attributes:
        n: Number of rows and of columns.
        rows, columns: The places, sorted by row; int64, `(entries,)`.
        colours: The colour of each column, `(n,)`, by the rows without a colour.
        row_colours: The colour of each row, `(n,)`; −1 for a row whose entries the columns' colours give.
        full_rows: The few rows that are much fuller than the others, boolean, `(n,)`.

    Examples:
        >>> places = np.array([0, 0, 1, 2]), np.array([0, 2, 1, 2])
        >>> SparsePattern.of(3, *places).colours.tolist()  # Columns 0 and 2 meet in row 0.
        [1, 0, 0]
        >>> last = np.full(9, 8)
        >>> arrow = np.append(np.arange(9), last), np.append(np.arange(9), np.arange(9))
        >>> pattern = SparsePattern.of(9, *arrow, transposed=True)
        >>> pattern.products, pattern.row_colours.tolist()  # A diagonal and a full row.
        (2, [-1, -1, -1, -1, -1, -1, -1, -1, 0])
    """

    n: int
    rows: np.ndarray
    columns: np.ndarray
    colours: np.ndarray
    row_colours: np.ndarray
    full_rows: np.ndarray

    @staticmethod
    def of(
        n: int, rows: np.ndarray, columns: np.ndarray, *, transposed: bool = False
    ) -> SparsePattern:
        """The pattern of these places; repeated places count once.

        Args:
            n: Number of rows and of columns.
            rows: The rows of the places.
            columns: Their columns.
            transposed: There are products with the transpose, so that rows may have colours.
        """
        matrix = sparse.csr_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(n, n))
        matrix.sum_duplicates()
        places = matrix.tocoo()
        full = _full_rows(np.diff(matrix.indptr))
        row_colours = np.full(n, -1, dtype=np.int64)
        if transposed and full.any():
            row_colours[full] = _colours(matrix[full].T.tocsr())
            rest = ~full[places.row]
            matrix = sparse.csr_array(
                (places.data[rest], (places.row[rest], places.col[rest])), shape=(n, n)
            )
        return SparsePattern(
            n,
            places.row.astype(np.int64),
            places.col.astype(np.int64),
            _colours(matrix),
            row_colours,
            full,
        )

    @cached_property
    def transposed(self) -> SparsePattern:
        """The pattern of the transposes."""
        return SparsePattern.of(self.n, self.columns, self.rows, transposed=True)

    @property
    def two_sided(self) -> bool:
        """True if products with the transpose are needed."""
        return bool((self.row_colours >= 0).any())

    @property
    def products(self) -> int:
        """Number of products that give all entries: the number of colours."""
        return len(self.directions) + len(self.transposed_directions)

    @cached_property
    def directions(self) -> list[np.ndarray]:
        """Boolean vectors for products with the matrix, one for each colour of columns."""
        return [self.colours == c for c in range(int(self.colours.max(initial=-1)) + 1)]

    @cached_property
    def transposed_directions(self) -> list[np.ndarray]:
        """Boolean vectors for products with the transpose, one for each colour of rows."""
        return [self.row_colours == c for c in range(int(self.row_colours.max(initial=-1)) + 1)]

    @cached_property
    def sources(self) -> tuple[np.ndarray, np.ndarray]:
        """For each entry its place in a product, and the number of that product, in order of directions."""
        colour = self.row_colours[self.rows]
        by_row, before = colour >= 0, len(self.directions)
        place = np.where(by_row, self.columns, self.rows)
        return place, np.where(by_row, before + colour, self.colours[self.columns])

    def entries(
        self, product: Product, dtype: np.dtype, transposed: Product | None = None
    ) -> np.ndarray:
        """The entries of matrices with this pattern, `(batch, entries)`; one product for each colour."""
        sums = [product(direction.astype(dtype)) for direction in self.directions]
        if transposed is not None:
            sums += [
                transposed(direction.astype(dtype)) for direction in self.transposed_directions
            ]
        place, number = self.sources
        found: np.ndarray = np.stack(sums, axis=2)[:, place, number]
        return found

    @cached_property
    def _by_column(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The order of the entries by columns, their rows, and where each column begins."""
        order = np.lexsort((self.rows, self.columns))
        begins = np.searchsorted(self.columns[order], np.arange(self.n + 1))
        return order, self.rows[order].astype(np.int32), begins.astype(np.int32)

    def matrix(self, entries: np.ndarray) -> sparse.csc_array:
        """One matrix from its entries, `(entries,)`."""
        order, rows, begins = self._by_column
        return sparse.csc_array((entries[order], rows, begins), shape=(self.n, self.n))

    def explains(
        self, entries: np.ndarray, probe: np.ndarray, value: np.ndarray, noise: float
    ) -> bool:
        """True where matrices of these entries have the product `value`, `(batch, n)`, with `probe`."""
        batch, n = value.shape
        terms = entries * probe[self.columns]
        rows = (np.arange(batch)[:, None] * n + self.rows).reshape(-1)
        sums = np.bincount(rows, terms.reshape(-1), batch * n).reshape(batch, n)
        sizes = np.bincount(rows, np.abs(terms).reshape(-1), batch * n).reshape(batch, n)
        small = np.abs(value - sums) <= noise * (sizes + np.abs(value))
        return bool(small.all())


def noise_level(eps: float) -> float:
    """Rounding error of sums of entries, relative to the largest of them, for products of precision `eps`."""
    return _NOISE_UNITS * eps


def tells_apart(noise: float) -> bool:
    """True where sums distinguish an entry from rounding, at this `noise_level`."""
    return noise <= _MOST_NOISE


def probe_vector(n: int, dtype: np.dtype) -> np.ndarray:
    """A vector of random signs and sizes, the same each time: entries do not cancel in its products."""
    generator = np.random.default_rng(n)
    sizes = generator.uniform(0.5, 1.5, n) * generator.choice((-1.0, 1.0), n)
    return sizes.astype(dtype)


def _full_rows(counts: np.ndarray) -> np.ndarray:
    """The rows, by their numbers of entries, that take fewer products by themselves; boolean.

    Colours of columns are at least as many as the fullest row has entries, and a row by itself takes one.
    """
    order = np.argsort(-counts, kind="stable")
    products = np.arange(len(counts) + 1) + np.append(counts[order], 0)
    taken = int(products.argmin())
    full = np.zeros(len(counts), dtype=bool)
    if products[taken] <= _PART_LEFT * products[0]:
        full[order[:taken]] = True
    return full


def _colours(matrix: sparse.csr_array) -> np.ndarray:
    """A colour for each column; columns that share a row have different ones."""
    n, by_column = matrix.shape[1], matrix.tocsc()
    # Full columns first: they have the fewest colours to choose from.
    order = np.argsort(-np.diff(by_column.indptr), kind="stable")
    colours = np.full(n, -1, dtype=np.int64)
    first_fit(
        matrix.indptr.astype(np.int64),
        matrix.indices.astype(np.int64),
        by_column.indptr.astype(np.int64),
        by_column.indices.astype(np.int64),
        order,
        np.full(n + 1, -1, dtype=np.int64),
        colours,
    )
    return colours
