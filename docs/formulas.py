"""Typesets the formulas of the documentation as MathML, which browsers draw by themselves.

Formulas are LaTeX as GitHub reads it: between dollar signs in a line, and in blocks labelled `math`.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from latex2mathml.converter import convert

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

# A formula in a line, as pymdownx.arithmatex marks it.
FORMULA = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
# Only their names tell a left delimiter from a right one.
LEFT = re.compile(r"\\(lVert|lvert|langle|lbrace)(?![a-zA-Z])")
RIGHT = re.compile(r"\\(rVert|rvert|rangle|rbrace)(?![a-zA-Z])")
# Bars and angles have the height of a line, whatever is between them.
STRETCHED = re.compile(r'stretchy="true"(?= fence="true" form="\w+">&#x0(?:2016|007C|27E8|27E9);)')


def typeset(latex: str, display: str) -> str:
    """MathML of one formula, `inline` or as a `block`.

    Raises:
        ValueError: It has a command that the converter does not know and would print as it is.
    """
    paired = RIGHT.sub(r"\\right\\\1", LEFT.sub(r"\\left\\\1", latex))
    mathml = STRETCHED.sub('stretchy="false"', convert(paired, display=display))
    mathml = mathml.replace("<mover>", '<mover accent="true">')
    unknown = re.search(r"\\([a-zA-Z]+|.)", mathml)
    if unknown:
        raise ValueError(f"not typeset: {unknown.group()} in the formula {latex!r}")
    return mathml


def fence(latex: str, *rest: object, **more: object) -> str:
    """A block labelled `math`; one that is wider than the page scrolls."""
    return f'<div class="formula">{typeset(latex, "block")}</div>'


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Say how blocks labelled `math` are made."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {})
    fences["custom_fences"] = [{"name": "math", "class": "formula", "format": fence}]
    return config


def on_page_content(content: str, **rest: object) -> str:
    """Typeset the formulas within lines."""
    return FORMULA.sub(lambda found: typeset(html.unescape(found[1]), "inline"), content)
