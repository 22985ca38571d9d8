"""Claims of runs: nothing is taken twice, and a run that ends, dies or stops gives back what it held."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faults.machine import forked
from faults.rows import KNOWN
from implicitly.studies import Plan, Row, Store
from implicitly.studies.store import claims as claims_module
from implicitly.studies.work import Work


def test_a_cell_is_claimed_by_one_run_and_free_once_it_ends(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.claims() as mine:
        assert mine.take(["a", "b"]) == ({"a", "b"}, True)
        with store.claims() as others:
            assert others.take(["b", "c"]) == ({"c"}, False)
            assert mine.take(["a", "c"]) == ({"a"}, False)
        # The other run may have left rows between the two looks.
        assert mine.take(["c"]) == ({"c"}, False)
        assert mine.take(["d"]) == ({"d"}, True)
    assert list((tmp_path / "claims").glob("*.claims")) == []


def test_a_run_that_came_and_went_unseen_is_noticed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.claims() as mine:
        assert mine.take(["a"]) == ({"a"}, True)
        with store.claims() as others:
            others.take(["b"])
        assert mine.take(["b"]) == ({"b"}, False)


def claim_and_wait(place: Path, ready: int) -> None:
    store = Store(place)
    with store.claims() as claims:
        claims.take(["a"])
        os.write(ready, b"r")
        signal.pause()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_run_that_shows_no_sign_of_life_loses_its_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = Store(tmp_path)
    seen, ready = os.pipe()
    process = forked(lambda: claim_and_wait(tmp_path, ready))
    assert os.read(seen, 1) == b"r"
    with store.claims() as mine:
        assert mine.take(["a"])[0] == set()
        os.kill(process, number)
        if number == signal.SIGKILL:
            os.waitpid(process, 0)
        else:
            assert mine.take(["a"])[0] == set()
            monkeypatch.setattr(claims_module, "PATIENCE", -1.0)
        assert mine.take(["a"]) == ({"a"}, False)
    if number == signal.SIGSTOP:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def test_a_run_that_lives_keeps_its_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "BEAT", 0.02)
    monkeypatch.setattr(claims_module, "PATIENCE", 0.5)
    store = Store(tmp_path)
    with store.claims() as others, store.claims() as mine:
        others.take(["a"])
        for _ in range(8):
            time.sleep(0.1)
            assert mine.take(["a"])[0] == set()


def test_a_run_that_was_taken_for_dead_claims_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.claims() as mine:
        mine.take(["a"])
        (file,) = (tmp_path / "claims").glob("*.claims")
        file.unlink()
        with store.claims() as others:
            assert others.take(["a"])[0] == {"a"}
            assert mine.take(["a", "b"])[0] == {"b"}
            assert others.take(["b"])[0] == set()


def test_rows_that_a_run_left_before_it_ended_are_not_run_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keys = [f"k{number}" for number in range(12)]
    store.write_plan(Plan("s", tuple(keys), "text"))
    planned: Any = {key: (SimpleNamespace(group=key), {"key": key}) for key in keys}
    with store.claims() as mine:
        with store.claims() as others:
            work = Work(store, "s", mine, planned)
            others.take(keys)
            ended = keys[2:9]
            store.extend([Row(**{**KNOWN, "key": key}) for key in ended])
        # The first looks, at a few cells each, see that another run was there; the later ones do not.
        given = [identity["key"] for unit in work.units(timing=False) for _, identity in unit]
    assert given == [key for key in keys if key not in ended]
    assert set(work.outcomes) == set(ended)
