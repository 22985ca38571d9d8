"""Which classical problems are solved from their standard start, and from ten and a hundred times it.

From the rows of the study `starts`; cells that the store does not have yet are run. Prints the table of the
page beside it.

Run with `python docs/results/starts.py [STORE]`; the store is `build/studies` unless given.
"""

from __future__ import annotations

import json
import sys

from implicitly import studies

STUDY, SCALES = "starts", (1, 10, 100)


def main() -> None:
    """Run what is missing, and print the table."""
    store = studies.Store(sys.argv[1] if len(sys.argv) > 1 else "build/studies")
    studies.run(STUDY, store, jobs=2)
    rows = store.rows(STUDY)
    rows["scale"] = [json.loads(text).get("start_scale", 1) for text in rows.problem_options]
    rows["work"] = rows[["evaluations", "jvps", "vjps"]].fillna(0).sum(axis=1)
    print("| solver | 1 × | 10 × | 100 × | of 69 | false successes | work where solved, 1 × |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for solver, cells in rows.groupby("solver", sort=False):
        hits = cells[cells.outcome == "solved"]
        solved = [int((hits.scale == scale).sum()) for scale in SCALES]
        false = int((cells.outcome == "false success").sum())
        work = int(hits.work[hits.scale == 1].sum())
        print(f"| `{solver}` | {' | '.join(map(str, [*solved, sum(solved), false, work]))} |")


if __name__ == "__main__":
    main()
