"""Stores with strange things in the place of their files and folders, and with damaged plans."""

from __future__ import annotations

import json
import os
import random
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from implicitly.studies import Plan, Store, StoreError, resume, status

from .campaign import Trial, fault
from .stores import row, wrong_rows


def _folder(place: Path) -> None:
    place.mkdir()
    (place / "inside").write_text("")


def _link_to_file(place: Path) -> None:
    other = place.parent.parent / f"{place.name}.other"
    other.write_text("other")
    place.symlink_to(other)


THINGS: dict[str, Callable[[Path], None]] = {
    "a folder": _folder,
    "a link to nothing": lambda place: place.symlink_to("nowhere"),
    "a link to itself": lambda place: place.symlink_to(place.name),
    "a link to a file": _link_to_file,
    "a pipe": lambda place: os.mkfifo(place),
}
PLACES = (
    "store.json", "journal.log", "lock", "plans", "plans/s.json", "rows-000001.parquet", "claims",
    "damaged",
)  # fmt: skip


def _used(place: Path) -> None:
    """Every operation of a store."""
    store = Store(place)
    store.append(row(1))
    store.write_plan(Plan("s", ("k0", "k1"), "text"))
    store.rows("s")
    status(store)
    with store.claims() as claims:
        claims.take(["k1"])
    store.repair()
    store.compact()


@fault()
def strange_things_in_a_files_place(folder: Path, draw: random.Random) -> Iterator[Trial]:
    number = 0
    for name in PLACES:
        for said, make in THINGS.items():
            number += 1
            store = Store(folder / f"{number}" / "store")
            store.append(row(0))
            store.compact()
            store.append(row(2))
            store.write_plan(Plan("s", ("k0",), "text"))
            place = store.path / name
            kept = folder / f"{number}" / "kept"
            if place.exists():
                place.rename(kept)
            if name == "rows-000001.parquet":
                place = store.path / "rows-000007.parquet"
                kept.rename(store.path / name)
            make(place)
            yield f"{said} as {name}", _said_in_words(store.path)
            _remove(place)
            if kept.exists():
                kept.rename(place)
            lost = wrong_rows(Store(store.path), {"k0", "k2"})
            yield f"after {said} as {name}", lost


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        for inside in place.iterdir():
            inside.unlink()
        place.rmdir()
    else:
        place.unlink(missing_ok=True)


def _said_in_words(place: Path) -> str:
    """Empty if using a store works or is refused in words; a pipe must not block it."""
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(10)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _used(place)
        return ""
    except StoreError:
        return ""
    except Exception as error:  # Of any kind.
        return f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)


def _too_long(*arguments: Any) -> None:
    raise TimeoutError("it blocks")


@fault()
def places_that_are_no_folder(folder: Path, draw: random.Random) -> Iterator[Trial]:
    for said, make in THINGS.items():
        if said == "a folder":
            continue
        place = folder / said.replace(" ", "-") / "store"
        place.parent.mkdir()
        make(place)
        yield f"{said} as the store", _said_in_words(place)
        yield f"{said} above the store", _said_in_words(place / "store")


@fault()
def damaged_plans_and_markers(folder: Path, draw: random.Random) -> Iterator[Trial]:
    contents = ["", "{", "[]", "null", "3", "[" * 10_000, '{"keys": 3}', '{"format": null}', "\0",
                json.dumps({"study": "s", "keys": [3], "configuration": "a"}),
                json.dumps({"study": "s", "keys": [], "configuration": "a", "environment": [1]}),
                json.dumps({"study": "s", "keys": [], "configuration": 3})]  # fmt: skip
    for number, content in enumerate(contents):
        for name in ("store.json", "plans/s.json"):
            store = Store(folder / f"{number}-{name.replace('/', '-')}")
            store.write_plan(Plan("s", ("k0",), "text"))
            store.append(row(0))
            (store.path / name).write_text(content)
            said = ""
            for call in (
                lambda s=store: Store(s.path).rows("s"),
                lambda s=store: resume("s", s.path),
            ):
                try:
                    call()
                except StoreError:
                    pass
                except Exception as error:
                    said = f"{type(error).__name__}: {error}"
            yield f"{content[:20]!r} as {name}", said
