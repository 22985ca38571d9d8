"""Sparsity patterns found from products alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...options.libraries import needs
from .sparse_pattern import Product, SparsePattern, probe_vector, tells_apart

with needs("scipy", "a sparse Jacobian"):
    from scipy import sparse

# Numbers of buckets, one for each round: two columns share a bucket in every round only if the product of the
# rounds' primes divides their distance.
_PRIMES = [p for p in range(7, 1024) if all(p % d for d in range(2, p))]
# Up to so many unknowns, and numbers in all matrices, products with all unit vectors replace a search that
# would cost as much.
_ALL_COLUMNS, _ALL_ENTRIES = 4096, 2**24
# Above these limits a search fails if it needs more products than this.
_MOST_PRODUCTS = 1024
# Accepted probability that two entries are mistaken for one.
_SURE = 1e-6
# The share of filled buckets is clipped to this, so that the estimated number of entries is finite.
_FULL = 0.95


def find_pattern(
    product: Product, n: int, dtype: np.dtype, noise: float, transposed: Product | None = None
) -> SparsePattern | None:
    """The places where any matrix of a batch has an entry, from products with it alone.

    Columns are put into buckets, column `j` into bucket `j mod m`, and two products for each bucket give
    for each row the sums of its entries there, plain and weighted, with weights of the columns in random
    order. Where a bucket holds one entry of a row, the ratio of the sums identifies its column; in single
    precision, which has few digits for that, a third product with other weights has to agree. The entries
    found are subtracted, and the next round has other buckets, until they explain the product with a
    random vector. That takes five to ten products for each entry of a row, however large `n` is. A few rows
    that are fuller than the others come from products of unit vectors with the transpose, one for each.

    Args:
        product: Gives the products of all matrices with a vector.
        n: Number of rows and of columns.
        dtype: The dtype of the products.
        noise: Their `noise_level`; from a tenth on, as in half precision, unit vectors are used.
        transposed: Gives the products of all transposes with a vector; `None` where there are none.

    Returns:
        The pattern, without entries below a thousand roundings of the largest of their row. `None` where
        products are not finite, or where the search takes more than 1024 of them and full matrices are
        too large: `n > 4096`, or more than 2²⁴ numbers.

    Source: Goodrich & Mitzenmacher 2011 (peeling tables of sums), with buckets by remainders.

    Examples:
        >>> from implicitly.solvers.linear.sparse_pattern import noise_level
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
        missing = search.peel(this, sums)
        if transposed is not None:
            full = _fuller(missing, sums_of_each)
            rest -= len(full)
            search.take(full, [transposed(_unit(n, row, dtype)) for row in full])
            missing[full] = 0.0
        if search.explains(probe, left):
            return SparsePattern.of(n, *search.places(), transposed=transposed is not None)
        expected = float(missing[missing > 0].mean()) if missing.any() else 0.0
    if not all_columns:
        return None
    columns = np.stack([product(unit) for unit in np.eye(n, dtype=dtype)], axis=2)
    if not np.isfinite(columns).all():
        return None
    places = np.nonzero((columns != 0).any(axis=0))
    return SparsePattern.of(n, *places, transposed=transposed is not None)


def _unit(n: int, row: int, dtype: np.dtype) -> np.ndarray:
    unit = np.zeros(n, dtype=dtype)
    unit[row] = 1.0
    return unit


def _fuller(missing: np.ndarray, sums: int) -> np.ndarray:
    """The rows that are better found by themselves than in a next round, by their missing entries.

    A round has a bucket for each entry that a row is missing, and `sums` products for each of them.
    """
    order = np.argsort(-missing, kind="stable")
    products = np.arange(len(missing) + 1) + sums * np.append(missing[order], 0)
    return order[: int(products.argmin())]


@dataclass(frozen=True)
class _Round:
    """Buckets of columns, and the weights of the columns in each of the sums.

    Attributes:
        buckets: Number of buckets; column `j` is in bucket `j mod buckets`.
        order: Order of the columns of a bucket by their second weight.
        weights: Weights in each sum, `(sums, n)`; the first are one.
    """

    buckets: int
    order: np.ndarray
    weights: np.ndarray

    @staticmethod
    def of(n: int, buckets: int, sums: int, dtype: np.dtype) -> _Round:
        """A round of `buckets` buckets with `sums` sums for each."""
        generator = np.random.default_rng((n, buckets))
        order = generator.permutation(-(-n // buckets))
        weights = np.ones((sums, n))
        # Weights from 1/2 to 3/2, well apart but uneven, so that the mean of two is the weight of no column.
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
        """The columns of these buckets with the second weight nearest to `ratio`; `n` or more for none."""
        size = len(self.order)
        nearest = np.floor((ratio - 0.5) * size)
        inside = (nearest >= 0) & (nearest < size)
        place = self.order[np.where(inside, nearest, 0).astype(np.int64)]
        found: np.ndarray = np.where(inside, place * self.buckets + bucket, self.weights.shape[1])
        return found


class _Search:
    """Entries found so far, in all matrices stacked: `batch · n` rows, `n` columns."""

    def __init__(self, n: int, first: np.ndarray, noise: float) -> None:
        self._n, self._level = n, noise
        self._size = np.abs(first).reshape(-1)
        self._found = sparse.csr_array((first.size, n), dtype=first.dtype)
        self._taken = np.zeros(first.size, dtype=bool)

    @property
    def _noise(self) -> np.ndarray:
        """Rounding errors of the sums of each row."""
        noise: np.ndarray = self._level * self._size
        return noise

    def peel(self, this: _Round, sums: np.ndarray) -> np.ndarray:
        """Find the entries that are alone in their buckets, from the sums of a round.

        Returns:
            An estimate of the entries still to be found in each row, the most of any matrix, `(n,)`.
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
        # Entries in random buckets: the share of filled ones gives their number (all filled: a lower bound).
        share = (filled / buckets).clip(max=_FULL)
        entries = np.where(left > 0, -buckets * np.log1p(-share) - (filled - left), 0.0)
        most: np.ndarray = entries.reshape(-1, n).max(axis=0)
        return most

    def take(self, rows: np.ndarray, lines: list[np.ndarray]) -> None:
        """Put whole rows, `(batch, n)` each, in the place of what was found of them."""
        for row, line in zip(rows, lines, strict=True):
            size = np.abs(line)
            kept = np.where(size > self._level * size.max(axis=1, keepdims=True), line, 0.0)
            places = np.arange(row, self._found.shape[0], self._n)
            change = sparse.coo_array(kept - self._found[places].toarray())
            self._found = self._found + sparse.csr_array(
                (change.data, (places[change.row], change.col)), self._found.shape
            )
            self._size[places], self._taken[places] = size.sum(axis=1), True

    def explains(self, probe: np.ndarray, value: np.ndarray) -> bool:
        """True where the entries found explain the product `value` with `probe`."""
        left = value.reshape(-1) - self._found @ probe
        return bool((np.abs(left) <= self._noise).all())

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the entries found in any matrix, without those that later rounds cancelled."""
        found = self._found.tocoo()
        real = np.abs(found.data) > np.where(self._taken, 0.0, self._noise)[found.row]
        return found.row[real] % self._n, found.col[real].astype(np.int64)
