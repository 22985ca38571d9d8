"""Writes the lists of solvers in README.md and docs/reference/solvers.md from the classes themselves.

Run from the root: python docs/tables.py; with --check it writes nothing and exits with 1 where they differ.
"""

from __future__ import annotations

import sys
from pathlib import Path

import implicitly
from implicitly import Globalisation, Solver, solvers

ROOT = Path(__file__).parent.parent
FAMILIES = {
    "fixed_point": "Fixed-point iterations",
    "quasi_newton": "Quasi-Newton methods",
    "newton": "Newton's method and its relatives",
    "least_squares": "Least squares",
    "minimisation": "Minimisation",
    "bounded": "Equations with bounds",
    "scalar": "Scalar equations",
    "composed": "Solvers made of solvers",
    "causal": "Recurrences and causal equations",
    "linear": "Linear equations",
    "compiled": "Compiled code",
    "adapters": "Other libraries",
}
FINDS = {"least_squares": "least squares", "minimisation": "minima, least squares"}
FINDS_ALONE = {"PrefixAnderson": "fixed points"}
BEGIN, END = "<!-- solvers: written by docs/tables.py -->", "<!-- end of solvers -->"
INTERFACE = ROOT / "docs/reference/interface.txt"


def family_of(kind: type) -> str:
    """The folder that a class is in."""
    return kind.__module__.split(".")[2]


def by_family() -> dict[str, list[type]]:
    """The public classes of each family: solvers first, then what they take."""
    found: dict[str, list[type]] = {family: [] for family in FAMILIES}
    for name in solvers.__all__:
        kind = getattr(solvers, name)
        if isinstance(kind, type) and family_of(kind) in found:
            found[family_of(kind)].append(kind)
    for kinds in found.values():
        kinds.sort(key=lambda kind: (not issubclass(kind, Solver), kind.__name__))
    return found


def table() -> str:
    """A row for each solver that is recommended for something."""
    rows = ["| solver | finds | needs | for |", "|---|---|---|---|"]
    for kinds in by_family().values():
        for kind in kinds:
            if issubclass(kind, Solver) and kind.suits:
                equations = "linear equations" if kind.linear_only else "fixed points, roots"
                finds = FINDS_ALONE.get(kind.__name__, FINDS.get(family_of(kind), equations))
                rows.append(f"| `{kind.__name__}` | {finds} | {kind.needs} | {kind.suits} |")
    return "\n".join(rows)


def reference() -> str:
    """The page of the reference, a section for each family."""
    parts = ["# Solvers\n\n<!-- written by docs/tables.py -->"]
    for family, kinds in by_family().items():
        parts.append(f"## {FAMILIES[family]}")
        for kind in kinds:
            home = "implicitly" if kind.__name__ in implicitly.__all__ else kind.__module__
            entry = f"::: {home}.{kind.__name__}"
            if kind is Globalisation:
                entry += "\n    options:\n      members: [begin, advance]"
            parts.append(entry)
    return "\n\n".join(parts) + "\n\n" + INTERFACE.read_text(encoding="utf-8")


def main(check: bool) -> int:
    """Write both files, or only tell whether they are up to date."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    wanted = {
        readme: f"{before}{BEGIN}\n{table()}\n{END}{after}",
        ROOT / "docs/reference/solvers.md": reference(),
    }
    old = [path for path, content in wanted.items() if path.read_text(encoding="utf-8") != content]
    for path in old:
        print(
            f"{path.relative_to(ROOT)} {'is not up to date: python docs/tables.py' if check else 'written'}"
        )
        if not check:
            path.write_text(wanted[path], encoding="utf-8")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
