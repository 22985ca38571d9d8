"""Rows that hold what tables refuse."""

from __future__ import annotations

import enum
import fractions
import json
import random
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from implicitly.studies import Row, Store
from implicitly.studies.row import row_columns

from .campaign import Trial, fault

KNOWN: dict[str, Any] = {
    "study": "s", "problem": "boggs", "problem_options": "{}", "dimension": 2, "systems": 1,
    "form": "root", "tags": (), "solver": "N", "solver_family": "native", "gradient": None,
    "adjoint_solver": None, "tolerance": 1e-8, "seed": 0, "dtype": "float64", "device": "cpu",
    "versions": "{}", "outcome": "solved",
}  # fmt: skip


class Colour(enum.Enum):
    """An enumeration, as some libraries report a status."""

    RED = 1


class Refuses:
    """An object without any text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class OwnText(str):
    """A text whose methods fail."""

    def encode(self, *arguments: Any, **options: Any) -> bytes:
        raise RuntimeError("no bytes")

    __str__ = __len__ = encode  # type: ignore[assignment]


VALUES: dict[str, Any] = {
    "a lone surrogate": "no file d\udce9j\udce0",
    "many lone surrogates": "\ud800" * 5000,
    "a zero character": "a\0b",
    "a long text": "x" * 3_000_000,
    "a text whose methods fail": OwnText("own"),
    "bytes": b"\xff\x00",
    "an integer of 71 bits": 2**70,
    "a negative integer of 71 bits": -(2**70),
    "an integer of 20,000 bits": 10**6000,
    "an unsigned integer of 64 bits": np.uint64(2**63 + 5),
    "a NumPy integer": np.int32(7),
    "a NumPy float": np.float32(0.5),
    "a NumPy text": np.str_("text"),
    "a NumPy truth value": np.bool_(True),
    "a NumPy array": np.arange(3),
    "a NumPy array of objects": np.array([None, "a"], dtype=object),
    "a tensor of one integer": torch.tensor(3),
    "a tensor of one float": torch.tensor(0.5, requires_grad=True),
    "a tensor of several": torch.arange(3.0),
    "a tensor without storage": torch.empty(3, device="meta"),
    "a complex number": 1j,
    "a complex tensor": torch.tensor(1j),
    "a fraction": fractions.Fraction(1, 3),
    "a truth value": True,
    "infinity": float("inf"),
    "not a number": float("nan"),
    "a number as text": "3",
    "an enumeration": Colour.RED,
    "an object": object(),
    "an object without text": Refuses(),
    "a class": Row,
    "a dictionary": {"a": 1},
    "a tuple with a large integer": (1, 2**80),
    "a tuple with a text": (1.0, "\udce9"),
    "a nested list": [[1.0]],
    "nothing": None,
}


@fault()
def values_that_tables_refuse(folder: Path, draw: random.Random) -> Iterator[Trial]:
    store = Store(folder / "store")
    kept: list[str] = []
    # Those that a method gives; the study itself gives the identity and the times.
    given = (column for column in row_columns().values() if column.nullable or column.several)
    names = [column.name for column in given if column.name not in KNOWN]
    for number, (name, (said, value)) in enumerate(
        (name, item) for name in names for item in VALUES.items()
    ):
        key = f"k{number}"
        trial = f"{said} as {name}"
        try:
            store.append(Row(**{**KNOWN, "key": key, name: value}))
            kept.append(key)
            yield trial, ""
        except Exception as error:  # Of any kind: the study would have ended.
            yield trial, f"{type(error).__name__}: {error}"
        if draw.random() < 0.01:
            store.compact()
    store.compact()
    frame = Store(folder / "store").rows()
    lost = set(kept) - set(frame["key"])
    yield "all are read", f"{len(lost)} rows are lost" if lost else ""
    longest = int(frame["exception"].dropna().str.len().max())
    yield "texts have a limit", "" if longest <= 2000 else f"a text of {longest} characters"


@fault()
def columns_that_must_be_known(folder: Path, draw: random.Random) -> Iterator[Trial]:
    """A row without its identity is refused in words, and leaves the store as it was."""
    store = Store(folder / "store")
    for name in (*KNOWN, "started", "ended"):
        for said, value in VALUES.items():
            if name in ("tags", "outcome", "gradient", "adjoint_solver"):
                continue
            trial = f"{said} as {name}"
            try:
                store.append(Row(**{**KNOWN, "key": "k", name: value}))
                yield trial, ""
            except ValueError as error:
                yield trial, "" if name in str(error) else f"the error is {error}"
    store.compact()
    yield "the store is read", "" if len(store.rows()) == 1 else "rows are missing"


@fault()
def poisoned_rows_of_earlier_versions(folder: Path, draw: random.Random) -> Iterator[Trial]:
    """Lines with a right checksum that hold what a table refuses are set aside, and the others stay."""
    poisons: list[dict[str, Any]] = [
        {"status": 3}, {"exception": "\udce9"}, {"evaluations": 2**70}, {"steps": "many"},
        {"residual": "a"}, {"history_evaluations": [2**70]}, {"history_residual": 3.0},
        {"tags": None}, {"key": None}, {"outcome": "won"}, {"strange": 1}, {"seconds": {"a": 1}},
        {"residual": [1.0]}, {"evaluations": 1.5}, {"evaluations": True},
    ]  # fmt: skip
    for number, poison in enumerate(poisons):
        store = Store(folder / f"store{number}")
        rows = [Row(**KNOWN, key=f"k{place}") for place in range(4)]
        store.extend(rows)
        line = json.dumps({**rows[0].as_dict(), "key": "poison", **poison}).encode()
        journal = store.path / "journal.log"
        lines = journal.read_bytes().splitlines(keepends=True)
        lines.insert(draw.randrange(5), b"%08x %s\n" % (zlib.crc32(line), line))
        journal.write_bytes(b"".join(lines))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            before = set(store.rows()["key"])
        said = store.repair()
        store.compact()
        after = set(store.rows()["key"])
        right = before == after == {f"k{place}" for place in range(4)} and len(said) == 1
        yield str(poison), "" if right else f"rows {sorted(after)}, said {said}"
