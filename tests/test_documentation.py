"""Every Python block of the documentation runs, and prints what the page says it prints.

The blocks of a page run in order, in one namespace. A block labelled `text` which follows a Python
block directly is what that block prints, up to white space and numbers that the page replaces by `...`.
"""

import contextlib
import doctest
import io
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n*```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
LOOSELY = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    line: int
    code: str
    output: str | None


def blocks(page):
    text = page.read_text(encoding="utf-8")
    return [
        Block(text[: match.start(1)].count("\n"), match[1], match[2])
        for match in BLOCK.finditer(text)
    ]


def name(page):
    return str(page.relative_to(ROOT))


@pytest.mark.usefixtures("shared_processes")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name)
def test_the_blocks_of_a_page_run_and_print_what_it_says(page):
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    try:
        run(page)
    finally:
        torch.set_default_dtype(before)


def run(page):
    namespace = {"__name__": "__main__"}
    for block in blocks(page):
        # The line numbers of a traceback are those of the page.
        code = compile("\n" * block.line + block.code, str(page), "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        if block.output is not None:
            found = printed.getvalue()
            assert doctest.OutputChecker().check_output(block.output, found, LOOSELY), (
                f"{name(page)}, block at line {block.line + 1} printed\n{found}\n"
                f"and not\n{block.output}"
            )


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_links_of_a_page_lead_somewhere(page):
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


FIRST = [ROOT / "README.md", ROOT / "docs" / "index.md"]
NUMBER = re.compile(r"\d[\d.e/+-]*\d|\d")


@pytest.mark.parametrize("page", FIRST, ids=name)
def test_numbers_of_the_first_screen_are_those_of_the_results_behind_them(page):
    text = page.read_text(encoding="utf-8").split("<!-- claims")[1].split("<!-- end of claims")[0]
    claims = re.split(r"^\* ", text, flags=re.MULTILINE)[1:]
    assert len(claims) == 3
    for claim in claims:
        (result,) = LINK.findall(claim)
        measured = set(NUMBER.findall((page.parent / result).read_text(encoding="utf-8")))
        assert set(NUMBER.findall(LINK.sub("", claim))) <= measured
