"""The matrix of modes, calls and kinds of equations: every cell is right or a clear error."""

from pathlib import Path

import boundary
import pytest

PAGE = Path(__file__).parents[2] / "docs/results/boundary.md"
# A few cells of each mode by default, on the kinds that fail in most ways.
SLOW = ("hessian", "compile around", "compile inside", "DDP", "nested", "vjp of vjp")
FEW = [(mode, "module", kind) for mode in boundary.MODES for kind in ("real", "random")]
FEW += [(mode, "root", "complex") for mode in boundary.MODES]
ALL = [(mode, call) for mode in boundary.MODES for call in boundary.CALLS]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(("mode", "call", "kind"), [c for c in FEW if c[0] not in SLOW])
def test_a_cell_is_right_or_a_clear_error(mode, call, kind):
    verdict, text = boundary.cell(mode, call, kind)
    assert verdict in (boundary.RIGHT, boundary.ERROR), text


@pytest.mark.long
@pytest.mark.parametrize(("mode", "call"), ALL)
def test_every_cell_is_right_or_a_clear_error(mode, call):
    for kind in boundary.KINDS:
        verdict, text = boundary.cell(mode, call, kind)
        assert verdict in (boundary.RIGHT, boundary.ERROR), (kind, text)


def test_the_page_has_a_row_for_every_mode_and_call_and_no_fault():
    text = PAGE.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [tuple(row.split(" | ")[:2]) for row in rows[1:]] == [(f"| {m}", c) for m, c in ALL]
    assert boundary.WRONG not in text
    assert boundary.RAW not in text
