"""The documentation as a site: every page has its place, and nothing is fetched from a network."""

from __future__ import annotations

import html
import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

DOCS = Path(__file__).parent.parent / "docs"
SITE = yaml.safe_load((DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8"))
TABS = ["Start", "How to", "Gallery", "Mathematics", "Reference", "Results"]
MIGRATIONS = sorted((DOCS / "migrate").glob("*.md"))


def pages(entry: Any) -> Iterator[str]:
    """Pages of a part of the navigation."""
    if isinstance(entry, str):
        yield entry
        return
    for part in entry.values() if isinstance(entry, dict) else entry:
        yield from pages(part)


def test_tabs_are_the_sections_and_every_page_is_in_one() -> None:
    assert [title for section in SITE["nav"] for title in section] == TABS
    listed = list(pages(SITE["nav"]))
    found = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert set(listed) == found
    assert len(listed) == len(set(listed))


def test_the_site_fetches_nothing() -> None:
    assert SITE["theme"]["font"] is False
    assert SITE["plugins"][:2] == ["search", "offline"]
    polyfills = SITE["extra"]["polyfills"]
    assert all((DOCS / "theme" / path).is_file() for path in polyfills)
    for key in ("extra_css", "extra_javascript"):
        assert not [path for path in SITE.get(key, []) if "://" in path]
        assert all((DOCS / path).is_file() for path in SITE.get(key, []))
    source = (DOCS / "theme" / "partials" / "source.html").read_text(encoding="utf-8")
    # The theme's script asks the host of the repository for numbers where it finds this.
    assert "data-md-component" not in source


@pytest.mark.parametrize("page", MIGRATIONS, ids=lambda page: page.stem)
def test_a_page_on_another_library_has_the_task_in_both_and_names_side_by_side(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    labels = re.findall(r"^```(\w+)$", text, re.MULTILINE)
    assert labels[0] == "text"
    assert "python" in labels
    names = re.findall(r"^\| (?:JAXopt|SciPy|Optimistix|TorchDEQ) \| here \|$", text, re.MULTILINE)
    assert len(names) == 1


def test_terms_of_the_glossary_are_in_order() -> None:
    terms = re.findall(
        r"^\| ([a-z][^|]*) \|", (DOCS / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert terms[0] == "term"
    assert terms[1:] == sorted(terms[1:], key=str.lower)


@pytest.fixture
def typeset(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """The function of docs/formulas.py that makes MathML of LaTeX."""
    pytest.importorskip("latex2mathml")
    monkeypatch.syspath_prepend(str(DOCS))
    function: Callable[[str, str], str] = importlib.import_module("formulas").typeset
    return function


def test_every_formula_can_be_typeset(typeset: Callable[[str, str], str]) -> None:
    for page in DOCS.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^```math\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
        for formula in [*blocks, *re.findall(r"\$([^$]+)\$", prose)]:
            assert typeset(formula, "inline").startswith("<math")


def test_the_font_of_formulas_is_there_with_its_license_and_has_the_characters(
    typeset: Callable[[str, str], str],
) -> None:
    subset = pytest.importorskip("fontTools.ttLib")
    pytest.importorskip("brotli")
    font = subset.TTFont(DOCS / "formulas.woff2")
    assert "MATH" in font
    assert "SIL OPEN FONT LICENSE" in (DOCS / "formulas-font.txt").read_text(encoding="utf-8")
    known = font.getBestCmap()
    for page in DOCS.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        for formula in re.findall(r"^```math\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            shown = html.unescape(re.sub(r"<[^>]+>", "", typeset(formula, "block")))
            assert not [sign for sign in shown if ord(sign) not in known and not sign.isspace()]


def test_a_command_that_is_not_known_is_an_error_and_not_printed(
    typeset: Callable[[str, str], str],
) -> None:
    with pytest.raises(ValueError, match=r"not typeset: \\frobnicate"):
        typeset(r"x + \frobnicate", "inline")
