"""A study on the workers of a Dask cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from implicitly import studies

pytest.importorskip("distributed")

# The workers import the main module anew, which a test module must not be.
SCRIPT = """
import sys
from dask.distributed import Client, LocalCluster
from implicitly import studies

if __name__ == "__main__":
    configuration = studies.StudyConfiguration(
        name="far", problems=["boggs", "wood"], solvers=["newton", "broyden", "scipy:hybr"]
    )
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with Client(cluster):
            studies.run(configuration, sys.argv[1], jobs=2, backend="dask")
    near = studies.Store(sys.argv[2])
    studies.run(configuration, near)
    columns = ["key", "outcome", "evaluations", "jvps", "residual"]
    far = studies.Store(sys.argv[1]).rows("far", columns)
    assert len(far) == 6
    assert far.equals(near.rows("far", columns))
"""


def test_a_cluster_inside_this_process_gives_the_same_rows(tmp_path: Path) -> None:
    from dask.distributed import Client, LocalCluster

    configuration = studies.StudyConfiguration(
        name="far", problems=("boggs",), solvers=("newton", "broyden")
    )
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster, Client(cluster):  # fmt: skip
        studies.run(configuration, tmp_path / "far", jobs=2, backend="dask")
    studies.run(configuration, tmp_path / "near")
    columns = ["key", "outcome", "evaluations", "jvps", "residual"]
    far, near = (studies.Store(tmp_path / where).rows("far", columns) for where in ("far", "near"))
    assert len(far) == 2
    assert far.equals(near)


@pytest.mark.long
def test_a_cluster_of_two_workers_gives_the_same_rows(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, script, tmp_path / "far", tmp_path / "near"],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
