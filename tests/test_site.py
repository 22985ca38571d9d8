"""The documentation as a site: every page has its place, and nothing is fetched from a network."""

from __future__ import annotations

import re
from collections.abc import Iterator
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
    assert "search" in SITE["plugins"]
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
