"""Writes docs/results/boundary.md: the matrix of situations in which a solve may be called.

Run from the root: python docs/results/boundary.py (some minutes). The cells are in tests/boundary.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))
PAGE = ROOT / "docs/results/boundary.md"

HEAD = """# Modes and transforms of PyTorch

After this page you know in which surroundings a solve may be called, and where you get an error in place of
a value.

Each cell compares values and gradients with the same map iterated sixty times under PyTorch alone, to 1e-7
(second derivatives 1e-6, autocast 5 %). *right*: they agree. A name: an error that this package raises, which
says what to do. There are no other cells. *module* is `ImplicitLayer(module)`, *function* the same of a
function that closes over parameters. `python docs/results/boundary.py` writes this page; a mode is one entry
of `MODES` in `tests/boundary.py`.

"""
TAIL = """
The errors: nothing traces a solve (`linearize`). `torch.func` does not reach sparse tensors, buffers that
change, and random numbers of which `vmap` was not told what to do with them. A compiled module changes its
own batch statistics, not those of a call.
"""


def main() -> int:
    """Write the page, and return the number of faults."""
    from boundary import RAW, WRONG, table

    text, found = table(progress=lambda line: print(line, flush=True))
    PAGE.write_text(HEAD + text + "\n" + TAIL, encoding="utf-8")
    faults = [cell for cell, (verdict, _) in found.items() if verdict in (WRONG, RAW)]
    print(f"{len(found)} cells, {len(faults)} faults")
    return len(faults)


if __name__ == "__main__":
    sys.exit(main() > 0)
