"""Check that docstrings and comments name their subject.

No sentence may begin with *What, Who, Where, Those* or *Whether* standing for a noun ("What a solver
returns is judged again"). Run from the root: python .ci/words.py [FILE ...]. Prints each place, and exits
with 1 if there is one.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

PACKAGES = (
    "options",
    "solvers",
    "implicit",
    "problems",
    "verification",
    "studies",
    "models",
    "cli",
)
FORBIDDEN = re.compile(r"(?:^|(?<=[.:;!?] ))(What|Who|Those|Whether|Where)\b[^.?!]*")
# "Where `z` is small the step is cut" puts a condition first, which is good English.
VERBS = "is|are|was|were|has|have|does|do|can|may|must|it|that|a|an|the|no|all|each|every|there|so"
CONDITION = re.compile(rf"^Where\b.*?(,| ({VERBS})\b)")
NOUN_CLAUSE = re.compile(
    r"^Where (to|they|each|a system|the solver|it) (start|starts|stand|stands|begin|begins|lies|lie|is|was)\b"
)


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers and texts of docstrings and comments; examples are left out.

    Comments on consecutive lines of their own are one text; a comment behind code is another.
    """
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            value = getattr(statement, "value", None)
            text = getattr(value, "value", None)
            if isinstance(statement, ast.Expr) and isinstance(text, str):
                yield statement.lineno, text.split("Examples:")[0]
    block: list[str] = []
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line, text = token.start[0], token.string.lstrip("# ")
        if not token.line.lstrip().startswith("#"):
            yield line, text
            continue
        if block and line != last + 1:
            yield last - len(block) + 1, " ".join(block)
            block = []
        block.append(text)
        last = line
    if block:
        yield last - len(block) + 1, " ".join(block)


def faults(text: str) -> Iterator[str]:
    """The sentences of a text that begin with a forbidden word."""
    for paragraph in re.split(r"\n\s*\n|\n\s*[\w*`]+: |\n\s*\* ", text):
        for match in FORBIDDEN.finditer(" ".join(paragraph.split())):
            sentence = match.group(0)
            if (
                match.group(1) == "Where"
                and CONDITION.match(sentence)
                and not NOUN_CLAUSE.match(sentence)
            ):
                continue
            yield sentence


def main(arguments: list[str]) -> int:
    """Print every fault; 1 if there is one."""
    paths = [Path(name) for name in arguments]
    if not paths:
        paths = [p for package in PACKAGES for p in sorted(Path(package).rglob("*.py"))]
        paths += [Path("__init__.py"), Path("__main__.py")]
    found = [
        (path, line, sentence)
        for path in paths
        for line, text in texts(path)
        for sentence in faults(text)
    ]
    for path, line, sentence in found:
        print(f"{path}:{line}: {sentence[:90]}")
    print(f"{len(found)} sentences begin with a word that stands for a noun")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
