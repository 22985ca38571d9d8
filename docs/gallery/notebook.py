"""A notebook from a script of the gallery: its text, its code in cells, and what a run has given."""

from __future__ import annotations

import base64
import json
from typing import Any

from scripts import Script


def notebook(script: Script, printed: str, figure: bytes) -> str:
    """A notebook of nbformat 4, as text.

    Args:
        script: Its docstring becomes the first cell, each of its blocks one of code.
        printed: Standard output of a run, kept below the last cell.
        figure: The figure of that run, a PNG.
    """
    blocks = script.blocks
    cells = [_cell("markdown", 0, f"# {script.title}\n\n{script.text}")]
    for place, block in enumerate(blocks, 1):
        code = {"execution_count": None, "outputs": []}
        cells.append(_cell("code", place, block) | code)
    image = base64.b64encode(figure).decode("ascii")
    cells[-1]["outputs"] = [
        {"output_type": "stream", "name": "stdout", "text": printed.splitlines(keepends=True)},
        {"output_type": "display_data", "data": {"image/png": image}, "metadata": {}},
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(whole, ensure_ascii=False, indent=1) + "\n"


def _cell(kind: str, place: int, source: str) -> dict[str, Any]:
    lines = source.splitlines(keepends=True)
    return {"cell_type": kind, "id": f"cell-{place}", "metadata": {}, "source": lines}
