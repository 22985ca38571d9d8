"""Where a matrix has entries, found from products with it alone, and how few products tell them all."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ..compiled.numba_code import Array
from ..compiled.numba_rows import jit_step

Product = Callable[[np.ndarray], np.ndarray]
"""From one vector, `(n,)`, to the products of every matrix of a batch with it, `(batch, n)`."""

# Buckets of each round of the search. Two columns less than 7 · 11 · 17 = 1309 apart share a bucket in two
# of the first three rounds at most, and so on.
_BUCKETS = (7, 11, 17, 29, 47, 79, 131, 211, 353)
# Up to so many unknowns a search that costs as much is given up for products with all unit vectors.
_ALL_COLUMNS = 4096
_MOST_PRODUCTS = 2048
# Rounding errors of a product in units of eps times the largest entry of a row; beyond a tenth of that
# entry, sums tell nothing.
_NOISE_UNITS, _MOST_NOISE = 1024.0, 0.1
# How often, at most, two entries may pass for one in between.
_SURE = 1e-6


@dataclass(frozen=True)
class SparsePattern:
    """Places of entries, and the colour of each column: columns of one colour share no row.

    Attributes:
        n: Rows and columns.
        rows, columns: The places, sorted by row; int64, `(entries,)`.
        colours: Of each column, `(n,)`.

    Source: Curtis, Powell & Reid 1974; Coleman & Moré 1983 (as a colouring of the columns).

    Examples:
        >>> places = np.array([0, 0, 1, 2]), np.array([0, 2, 1, 2])
        >>> SparsePattern.of(3, *places).colours.tolist()  # Columns 0 and 2 meet in row 0.
        [0, 0, 1]
    """

    n: int
    rows: np.ndarray
    columns: np.ndarray
    colours: np.ndarray

    @staticmethod
    def of(n: int, rows: np.ndarray, columns: np.ndarray) -> SparsePattern:
        """The pattern of these places, which may be given more than once."""
        by_row = sparse.csr_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(n, n))
        by_row.sum_duplicates()
        by_column = by_row.tocsc()
        # Full columns first: they have the fewest colours to choose from.
        order = np.argsort(-np.diff(by_column.indptr), kind="stable")
        colours = np.full(n, -1, dtype=np.int64)
        _colour(
            by_row.indptr.astype(np.int64),
            by_row.indices.astype(np.int64),
            by_column.indptr.astype(np.int64),
            by_column.indices.astype(np.int64),
            order,
            np.full(n + 1, -1, dtype=np.int64),
            colours,
        )
        places = by_row.tocoo()
        return SparsePattern(n, places.row.astype(np.int64), places.col.astype(np.int64), colours)

    @property
    def products(self) -> int:
        """Products that tell all entries: the number of colours."""
        return int(self.colours.max(initial=-1)) + 1

    def entries(self, product: Product, dtype: np.dtype) -> np.ndarray:
        """The entries of matrices that have no others, `(batch, entries)`; one product for each colour."""
        colours = self.colours[self.columns]
        sums = [product((self.colours == c).astype(dtype)) for c in range(self.products)]
        found: np.ndarray = np.stack(sums, axis=2)[:, self.rows, colours]
        return found

    def matrix(self, entries: np.ndarray) -> sparse.csc_array:
        """One matrix from its entries, `(entries,)`."""
        places = (self.rows, self.columns)
        return sparse.csr_array((entries, places), shape=(self.n, self.n)).tocsc()

    def explains(
        self, entries: np.ndarray, probe: np.ndarray, value: np.ndarray, noise: float
    ) -> bool:
        """Whether matrices of these entries have the product `value`, `(batch, n)`, with `probe`."""
        batch, n = value.shape
        terms = entries * probe[self.columns]
        rows = (np.arange(batch)[:, None] * n + self.rows).reshape(-1)
        sums = np.bincount(rows, terms.reshape(-1), batch * n).reshape(batch, n)
        sizes = np.bincount(rows, np.abs(terms).reshape(-1), batch * n).reshape(batch, n)
        small = np.abs(value - sums) <= noise * (sizes + np.abs(value))
        return noise <= _MOST_NOISE and bool(small.all())


@jit_step
def _colour(
    row_starts: Array, row_columns: Array, column_starts: Array, column_rows: Array, order: Array,
    seen: Array, colours: Array,
) -> None:  # fmt: skip
    """Give each column in turn the first colour that no column has which shares a row with it."""
    for column in order:
        for k in range(column_starts[column], column_starts[column + 1]):
            row = column_rows[k]
            for other in range(row_starts[row], row_starts[row + 1]):
                colour = colours[row_columns[other]]
                if colour >= 0:
                    seen[colour] = column
        colour = 0
        while seen[colour] == column:
            colour += 1
        colours[column] = colour


def noise_level(eps: float) -> float:
    """What sums of entries may be off by, relative to the largest of them, where products have `eps`."""
    return _NOISE_UNITS * eps


def probe_vector(n: int, dtype: np.dtype) -> np.ndarray:
    """A vector of random signs and sizes, the same each time, whose products hide no entry by chance."""
    generator = np.random.default_rng(n)
    sizes = generator.uniform(0.5, 1.5, n) * generator.choice((-1.0, 1.0), n)
    return sizes.astype(dtype)


def find_pattern(product: Product, n: int, dtype: np.dtype, noise: float) -> SparsePattern | None:
    """The places where any matrix of a batch has an entry, from products with it alone.

    Columns are put into buckets, column `j` into bucket `j mod m`, and two products for each bucket give
    for each row the sums of its entries there, plain and times their numbers. Where a bucket holds one
    entry of a row, the ratio of the sums names its column; in single precision, which has few digits for
    numbers, a third product with random weights has to agree. What is found is subtracted, and the next
    round has other buckets, until the product with a random vector is explained. That takes five to ten
    products for each entry of a row, however large `n` is.

    Args:
        product: Gives the products of all matrices with a vector.
        n: Rows and columns.
        dtype: That of the products.
        noise: Their `noise_level`; from a tenth on, as in half precision, unit vectors have to do.

    Returns:
        The pattern, without entries below a thousand roundings of the largest of their row; `None` where
        products are not finite, or where it would take more than 2048 of them and `n > 4096`.

    Source: Goodrich & Mitzenmacher 2011 (peeling tables of sums), with buckets by remainders.

    Examples:
        >>> matrix = np.diag(np.arange(1.0, 201.0)) + np.eye(200, k=50)
        >>> used = []
        >>> pattern = find_pattern(
        ...     lambda v: used.append(v) or (matrix @ v)[None], 200, np.dtype("d"), noise_level(2**-52)
        ... )
        >>> len(pattern.rows), pattern.products, len(used) < 60
        (350, 2, True)
    """
    weights = [np.ones(n, dtype=dtype), ((np.arange(n) + 1) / n).astype(dtype)]
    if noise * n > _SURE:
        weights.append(np.random.default_rng(n + 1).uniform(0.5, 1.5, n).astype(dtype))
    probe = probe_vector(n, dtype)
    left = product(probe)
    search = _Search(n, left, weights, noise)
    used, limit = 1, n if n <= _ALL_COLUMNS else _MOST_PRODUCTS
    for buckets in _BUCKETS:
        used += len(weights) * buckets
        if used > limit or noise > _MOST_NOISE:
            break
        sums = np.empty((len(weights), *left.shape, buckets), dtype=dtype)
        for bucket, (index, weight) in itertools.product(range(buckets), enumerate(weights)):
            inside = np.arange(n) % buckets == bucket
            sums[index, :, :, bucket] = product(inside * weight)
        if not np.isfinite(sums).all():
            return None
        search.peel(sums)
        if search.explains(probe, left):
            return SparsePattern.of(n, *search.places())
    if n > _ALL_COLUMNS:
        return None
    columns = np.stack([product(unit) for unit in np.eye(n, dtype=dtype)], axis=2)
    if not np.isfinite(columns).all():
        return None
    return SparsePattern.of(n, *np.nonzero((columns != 0).any(axis=0)))


class _Search:
    """Entries found so far, of all matrices one below the other: `batch · n` rows, `n` columns."""

    def __init__(self, n: int, first: np.ndarray, weights: list[np.ndarray], noise: float) -> None:
        self._n, self._weights, self._level = n, weights, noise
        self._size = np.abs(first).reshape(-1)
        self._found = sparse.csr_array((first.size, n), dtype=first.dtype)

    @property
    def _noise(self) -> np.ndarray:
        """What sums of each row may be off by, from rounding."""
        noise: np.ndarray = self._level * self._size
        return noise

    def peel(self, sums: np.ndarray) -> None:
        """Find what is alone in its bucket: `sums` with each weight, `(weights, batch, n, buckets)`."""
        n, buckets = self._n, sums.shape[3]
        flat = sums.reshape(len(self._weights), -1, buckets)
        self._size = np.maximum(self._size, np.abs(flat[0]).max(axis=1))
        bucket_of = np.arange(n) % buckets
        for each, weight in zip(flat, self._weights, strict=True):
            spread = sparse.csr_array((weight, (np.arange(n), bucket_of)), shape=(n, buckets))
            each -= (self._found @ spread).toarray()
        row, bucket = np.nonzero(np.abs(flat[0]) > self._noise[:, None])
        entry, numbered = flat[0, row, bucket], flat[1, row, bucket]
        nearest = np.rint((numbered / entry * n - 1 - bucket) / buckets)
        # What is out of bounds agrees with no column.
        column = (bucket + buckets * nearest.clip(0, n)).astype(np.int64)
        alone = column < n
        column = column.clip(0, n - 1)
        for each, weight in zip(flat[1:], self._weights[1:], strict=True):
            alone &= np.abs(each[row, bucket] - entry * weight[column]) <= self._noise[row]
        found = (entry[alone], (row[alone], column[alone]))
        self._found = self._found + sparse.csr_array(found, self._found.shape)

    def explains(self, probe: np.ndarray, value: np.ndarray) -> bool:
        """Whether nothing is left of the product `value` with `probe`."""
        left = value.reshape(-1) - self._found @ probe
        return bool((np.abs(left) <= self._noise).all())

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of what was found in any matrix, what later rounds have cancelled left out."""
        found = self._found.tocoo()
        real = np.abs(found.data) > self._noise[found.row]
        return found.row[real] % self._n, found.col[real].astype(np.int64)
