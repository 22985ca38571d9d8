"""The scripts of the gallery, taken apart: the source of each page and notebook.

A script is `examples/gallery/NAME.py`. The first line of its docstring is the title, the rest the text;
`main` prints numbers and returns a figure, and the last lines save it.
"""

from __future__ import annotations

import ast
import itertools
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "examples" / "gallery"
BUILD = ROOT / "build" / "gallery"
STYLE = ROOT / "docs" / "figures" / "implicitly.mplstyle"


@dataclass(frozen=True)
class Script:
    """A script of the gallery.

    Attributes:
        name: Of the file, without its ending.
        title: The first line of the docstring, without its full stop.
        text: The docstring below it, in Markdown.
        code: The source behind the docstring.
    """

    name: str
    title: str
    text: str
    code: str

    @property
    def blocks(self) -> list[str]:
        """The code in parts: the imports and constants, each function and class, the last lines."""
        lines = self.code.splitlines(keepends=True)
        tree = ast.parse(self.code)
        whole = [
            statement
            for statement in tree.body
            if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.If))
        ]
        starts = [
            min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))]) - 1
            for node in whole
        ]
        cuts = [0, *starts, len(lines)]
        parts = ("".join(lines[a:b]).strip("\n") for a, b in itertools.pairwise(cuts))
        return [part for part in parts if part]

    @property
    def length(self) -> int:
        """Lines of code that compute: none that are blank, comment, docstring, import or in `draw`."""
        left_out: set[int] = set()
        tree = ast.parse(self.code)
        for node in ast.walk(tree):
            left = isinstance(node, (ast.Import, ast.ImportFrom))
            if left or (isinstance(node, ast.FunctionDef) and node.name == "draw"):
                left_out.update(range(node.lineno, (node.end_lineno or 0) + 1))
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
                left_out.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
        return sum(
            number not in left_out and bool(line.strip()) and not line.lstrip().startswith("#")
            for number, line in enumerate(self.code.splitlines(), 1)
        )


def read(path: Path) -> Script:
    """The script in a file.

    Raises:
        ValueError: It has no docstring of a title and a text.
    """
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    docstring = ast.get_docstring(tree) or ""
    title, _, text = docstring.partition("\n\n")
    if not text or "\n" in title:
        raise ValueError(f"the docstring of {path} must be a title, an empty line and a text")
    behind = source.splitlines(keepends=True)[tree.body[0].end_lineno :]
    return Script(path.stem, title.rstrip("."), text, "".join(behind).strip("\n") + "\n")


def scripts() -> list[Script]:
    """All of them, by title."""
    return sorted((read(path) for path in FOLDER.glob("*.py")), key=lambda script: script.title)
