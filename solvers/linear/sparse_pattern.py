"""Where a matrix has entries, found from products with it alone, and how few products tell them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from .colouring import first_fit

Product = Callable[[np.ndarray], np.ndarray]
"""From one vector, `(n,)`, to the products of every matrix of a batch with it, `(batch, n)`."""

# Numbers of buckets, each for one round: two columns share a bucket of every round only if the product of its
# primes divides their distance.
_PRIMES = [p for p in range(7, 1024) if all(p % d for d in range(2, p))]
# Up to so many unknowns, and numbers in all matrices, a search that costs as much is given up for products
# with all unit vectors.
_ALL_COLUMNS, _ALL_ENTRIES = 4096, 2**24
_MOST_PRODUCTS = 1024
# Rounding errors of a product in units of eps times the largest entry of a row; beyond a tenth of that
# entry, sums tell nothing.
_NOISE_UNITS, _MOST_NOISE = 1024.0, 0.1
# How often, at most, two entries may pass for one in between.
_SURE = 1e-6
_FULL = 0.95


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
        [1, 0, 0]
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
        first_fit(
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
        return bool(small.all())


def noise_level(eps: float) -> float:
    """What sums of entries may be off by, relative to the largest of them, where products have `eps`."""
    return _NOISE_UNITS * eps


def tells_apart(noise: float) -> bool:
    """Whether sums tell an entry from rounding, at this `noise_level`."""
    return noise <= _MOST_NOISE


def probe_vector(n: int, dtype: np.dtype) -> np.ndarray:
    """A vector of random signs and sizes, the same each time, whose products hide no entry by chance."""
    generator = np.random.default_rng(n)
    sizes = generator.uniform(0.5, 1.5, n) * generator.choice((-1.0, 1.0), n)
    return sizes.astype(dtype)


def find_pattern(product: Product, n: int, dtype: np.dtype, noise: float) -> SparsePattern | None:
    """The places where any matrix of a batch has an entry, from products with it alone.

    Columns are put into buckets, column `j` into bucket `j mod m`, and two products for each bucket give
    for each row the sums of its entries there, plain and weighted, with weights of the columns in random
    order. Where a bucket holds one entry of a row, the ratio of the sums names its column; in single
    precision, which has few digits for that, a third product with other weights has to agree. What is
    found is subtracted, and the next round has other buckets, until the product with a random vector is
    explained. That takes five to ten products for each entry of a row, however large `n` is.

    Args:
        product: Gives the products of all matrices with a vector.
        n: Rows and columns.
        dtype: That of the products.
        noise: Their `noise_level`; from a tenth on, as in half precision, unit vectors have to do.

    Returns:
        The pattern, without entries below a thousand roundings of the largest of their row; `None` where
        products are not finite, or where it would take more than 1024 of them and there is no room for full
        matrices: `n > 4096`, or more than 2²⁴ numbers.

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
    probe = probe_vector(n, dtype)
    left = product(probe)
    search = _Search(n, left, noise)
    sums_of_each = 2 if noise * n <= _SURE else 3
    all_columns = n <= _ALL_COLUMNS and left.size * n <= _ALL_ENTRIES
    rest, primes = (n if all_columns else _MOST_PRODUCTS), iter(_PRIMES)
    expected = 0.0
    # A round of as many buckets as there are entries finds a third of them.
    while tells_apart(noise) and 3 * sums_of_each * expected <= rest:
        buckets = next(prime for prime in primes if prime >= expected)
        rest -= sums_of_each * buckets
        if rest < 0:
            break
        this = _Round.of(n, buckets, sums_of_each, dtype)
        sums = this.sums(product)
        if not np.isfinite(sums).all():
            return None
        expected = search.peel(this, sums)
        if search.explains(probe, left):
            return SparsePattern.of(n, *search.places())
    if not all_columns:
        return None
    columns = np.stack([product(unit) for unit in np.eye(n, dtype=dtype)], axis=2)
    if not np.isfinite(columns).all():
        return None
    return SparsePattern.of(n, *np.nonzero((columns != 0).any(axis=0)))


@dataclass(frozen=True)
class _Round:
    """Buckets of columns, and what the columns weigh in each of the sums.

    Attributes:
        buckets: How many; column `j` is in bucket `j mod buckets`.
        order: Of the columns of a bucket by their second weight.
        weights: `(sums, n)`; the first are one.
    """

    buckets: int
    order: np.ndarray
    weights: np.ndarray

    @staticmethod
    def of(n: int, buckets: int, sums: int, dtype: np.dtype) -> _Round:
        """A round with so many sums for each bucket."""
        generator = np.random.default_rng((n, buckets))
        order = generator.permutation(-(-n // buckets))
        weights = np.ones((sums, n))
        # From 1/2 to 3/2, neighbours well apart, but not evenly: means of two are weights of none.
        rank = np.empty(len(order))
        rank[order] = np.arange(len(order)) + generator.uniform(0.25, 0.75, len(order))
        weights[1] = 0.5 + rank[np.arange(n) // buckets] / len(order)
        weights[2:] = generator.uniform(0.5, 1.5, weights[2:].shape)
        return _Round(buckets, order, weights.astype(dtype))

    @property
    def members(self) -> np.ndarray:
        """The bucket of each column, `(n,)`."""
        found: np.ndarray = np.arange(self.weights.shape[1]) % self.buckets
        return found

    def sums(self, product: Product) -> np.ndarray:
        """All sums, `(sums, batch, n, buckets)`."""
        members, weights = self.members, self.weights
        return np.stack(
            [
                np.stack([product((members == b) * weight) for b in range(self.buckets)], axis=2)
                for weight in weights
            ]
        )

    def columns(self, ratio: np.ndarray, bucket: np.ndarray) -> np.ndarray:
        """Columns of these buckets whose second weights are nearest to `ratio`; `n` or more for none."""
        size = len(self.order)
        nearest = np.floor((ratio - 0.5) * size)
        inside = (nearest >= 0) & (nearest < size)
        place = self.order[np.where(inside, nearest, 0).astype(np.int64)]
        found: np.ndarray = np.where(inside, place * self.buckets + bucket, self.weights.shape[1])
        return found


class _Search:
    """Entries found so far, of all matrices one below the other: `batch · n` rows, `n` columns."""

    def __init__(self, n: int, first: np.ndarray, noise: float) -> None:
        self._n, self._level = n, noise
        self._size = np.abs(first).reshape(-1)
        self._found = sparse.csr_array((first.size, n), dtype=first.dtype)

    @property
    def _noise(self) -> np.ndarray:
        """What sums of each row may be off by, from rounding."""
        noise: np.ndarray = self._level * self._size
        return noise

    def peel(self, this: _Round, sums: np.ndarray) -> float:
        """Find what is alone in its bucket in the sums of a round.

        Returns:
            How many entries are still to be found in a row where any are, as far as can be told.
        """
        n, buckets = self._n, this.buckets
        flat = sums.reshape(len(this.weights), -1, buckets)
        self._size = np.maximum(self._size, np.abs(flat[0]).max(axis=1))
        for each, weight in zip(flat, this.weights, strict=True):
            spread = sparse.csr_array((weight, (np.arange(n), this.members)), shape=(n, buckets))
            each -= (self._found @ spread).toarray()
        row, bucket = np.nonzero(np.abs(flat[0]) > self._noise[:, None])
        entry = flat[0, row, bucket]
        column = this.columns(flat[1, row, bucket] / entry, bucket)
        alone = column < n
        column = np.where(alone, column, 0)
        for each, weight in zip(flat[1:], this.weights[1:], strict=True):
            alone &= np.abs(each[row, bucket] - entry * weight[column]) <= self._noise[row]
        found = (entry[alone], (row[alone], column[alone]))
        self._found = self._found + sparse.csr_array(found, self._found.shape)
        filled = np.bincount(row, minlength=len(flat[0]))
        left = filled - np.bincount(row[alone], minlength=len(filled))
        some = left > 0
        # So many entries at random fill such a share of the buckets (if all, no fewer than these).
        share = (filled[some] / buckets).clip(max=_FULL)
        entries = -buckets * np.log1p(-share) - (filled - left)[some]
        return float(entries.mean()) if some.any() else 0.0

    def explains(self, probe: np.ndarray, value: np.ndarray) -> bool:
        """Whether nothing is left of the product `value` with `probe`."""
        left = value.reshape(-1) - self._found @ probe
        return bool((np.abs(left) <= self._noise).all())

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of what was found in any matrix, what later rounds have cancelled left out."""
        found = self._found.tocoo()
        real = np.abs(found.data) > self._noise[found.row]
        return found.row[real] % self._n, found.col[real].astype(np.int64)
