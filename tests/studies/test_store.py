"""The store: rows survive, damage is named, versions and names are checked."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from implicitly.studies import COLUMNS, OUTCOMES, Plan, Row, Store, StoreError, StoreWarning
from implicitly.studies.row import schema
from implicitly.studies.store import journal as journal_module
from implicitly.studies.store import store as store_module

ROW = Row(
    key="k0", study="first", problem="boggs", problem_options="{}", dimension=2, systems=1,
    form="root", tags=("classical",), solver="Newton()", solver_family="native", gradient=None,
    adjoint_solver=None, tolerance=1e-8, seed=0, dtype="float64", device="cpu", versions="{}",
    outcome="solved", residual=float("inf"), evaluations=7, history_evaluations=(1, 3),
    history_residual=(2.0, 1e-9), started="2026-01-01T00:00:00.000+00:00",
)  # fmt: skip


def rows(count: int) -> list[Row]:
    return [
        replace(ROW, key=f"k{i}", outcome=OUTCOMES[i % len(OUTCOMES)], seed=i) for i in range(count)
    ]


def keys_of(store: Store) -> list[str]:
    return store.rows()["key"].tolist()


def test_what_is_appended_is_read_by_another_store_before_and_after_compaction(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path / "s")
    for row in rows(5):
        store.append(row)
    for _ in range(2):
        frame = Store(tmp_path / "s").rows()
        assert list(frame.columns) == list(COLUMNS)
        assert [Row.of(_plain(record)) for record in frame.to_dict("records")] == rows(5)
        assert Store(tmp_path / "s").keys() == {f"k{i}" for i in range(5)}
        store.compact()
    assert (tmp_path / "s" / "journal.log").read_bytes() == b""
    assert len(list((tmp_path / "s").glob("rows-*.parquet"))) == 1


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """A record of a frame in the types of a row: arrays as lists, NaN of a missing number as `None`."""
    plain = {}
    for name, value in record.items():
        if hasattr(value, "tolist"):
            value = value.tolist()
        if isinstance(value, float) and value != value:
            value = None
        plain[name] = int(value) if name == "evaluations" else value
    return plain


def test_a_row_read_twice_counts_once_and_the_first_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(ROW)
    journal = (tmp_path / "journal.log").read_bytes()
    store.compact()
    # As if the process had been killed between the new file and the shortened journal.
    (tmp_path / "journal.log").write_bytes(journal)
    store.append(replace(ROW, outcome="crashed"))
    assert store.rows()["outcome"].tolist() == ["solved"]


def test_studies_share_rows_and_each_has_its_own_in_the_order_of_its_plan(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.extend(rows(4))
    store.write_plan(Plan("second", ("k3", "k1", "k9"), "text"))
    frame = store.rows("second")
    assert frame["key"].tolist() == ["k3", "k1"]
    assert set(frame["study"]) == {"second"}
    assert store.outcomes("second") == {"k3": OUTCOMES[3], "k1": OUTCOMES[1]}
    assert store.studies() == ["second"]
    assert store.plan("second").configuration == "text"


def test_a_study_that_is_not_there_and_a_name_for_no_file_are_errors(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_plan(Plan("known", (), ""))
    with pytest.raises(StoreError, match="no study 'unknown'; it has: known"):
        store.rows("unknown")
    for name in ("", "a/b", "..", ".hidden"):
        with pytest.raises(StoreError, match="fit for a file"):
            store.plan(name)


def test_half_a_line_at_the_end_is_cut_off_with_a_word(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.extend(rows(2))
    journal = tmp_path / "journal.log"
    journal.write_bytes(journal.read_bytes()[:-20])
    assert keys_of(store) == ["k0"]
    with pytest.warns(StoreWarning, match="was not finished"):
        store.append(replace(ROW, key="k7"))
    assert keys_of(store) == ["k0", "k7"]


def test_a_damaged_line_is_left_out_with_a_word_and_repair_moves_it_aside(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.extend(rows(3))
    journal = tmp_path / "journal.log"
    journal.write_bytes(journal.read_bytes().replace(b'"seed":1', b'"seed":2'))
    with pytest.warns(StoreWarning, match="1 damaged lines"):
        assert keys_of(store) == ["k0", "k2"]
    (said,) = store.repair()
    assert "1 damaged lines" in said
    assert keys_of(store) == ["k0", "k2"]
    assert len(list((tmp_path / "damaged").iterdir())) == 1
    assert store.repair() == []


def test_a_damaged_file_is_an_error_that_names_the_way_out_and_repair_moves_it_aside(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    store.extend(rows(3))
    store.compact()
    store.append(replace(ROW, key="later"))
    (file,) = tmp_path.glob("rows-*.parquet")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(StoreError, match="resuming a study moves it aside"):
        store.keys()
    (said,) = store.repair()
    assert file.name in said
    assert keys_of(store) == ["later"]


def test_a_store_of_another_version_is_refused_and_a_folder_of_other_files_too(
    tmp_path: Path,
) -> None:
    Store(tmp_path / "s")
    marker = tmp_path / "s" / "store.json"
    marker.write_text(json.dumps({"format": 99}))
    with pytest.raises(StoreError, match="has format 99, and this version of implicitly reads"):
        Store(tmp_path / "s")
    marker.write_text("{")
    with pytest.raises(StoreError, match="is no store"):
        Store(tmp_path / "s")
    with pytest.raises(StoreError, match="holds other files"):
        Store(tmp_path)
    with pytest.raises(StoreError, match="run a study first"):
        Store(tmp_path / "none", create=False)


def test_a_full_disk_is_an_error_that_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.append(ROW)
    right = os.write

    def half(descriptor: int, content: memoryview) -> int:
        if len(content) > 10:
            return right(descriptor, content[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        # The last ten bytes never find room.
        patched.setattr(journal_module, "_line", lambda row: b"0123456789abcdef")
        with pytest.raises(StoreError, match="no space is left"):
            store.append(replace(ROW, key="k1"))
    assert keys_of(store) == ["k0"]
    store.append(replace(ROW, key="k1"))
    assert keys_of(store) == ["k0", "k1"]


def test_small_files_are_merged(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for row in rows(store_module._SMALL_FILES + 2):
        store.append(row)
        store.compact()
    assert len(list(tmp_path.glob("rows-*.parquet"))) < store_module._SMALL_FILES
    assert sorted(keys_of(store)) == sorted(row.key for row in rows(store_module._SMALL_FILES + 2))


def test_rows_of_processes_that_write_at_once_are_all_there(tmp_path: Path) -> None:
    Store(tmp_path)
    program = """
import sys
from dataclasses import replace
from implicitly.studies import Store
sys.path.insert(0, sys.argv[3])
from test_store import ROW
store = Store(sys.argv[1])
for i in range(50):
    store.append(replace(ROW, key=f"{sys.argv[2]}-{i}"))
    if i == 25:
        store.compact()
"""
    here = str(Path(__file__).parent)
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name, here])
        for name in ("a", "b")
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    expected = sorted(f"{name}-{i}" for name in ("a", "b") for i in range(50))
    assert sorted(keys_of(Store(tmp_path))) == expected


def test_every_column_has_a_type_and_only_what_may_be_unknown_may_be_null() -> None:
    columns = schema()
    assert columns.names == list(COLUMNS)
    assert not columns.field("outcome").nullable
    assert columns.field("seconds").nullable
    with pytest.raises(ValueError, match="outcome must be one of"):
        replace(ROW, outcome="won")
