"""Adds the gallery to the documentation: pages, figures and notebooks that build.py has made."""

from __future__ import annotations

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
from build import is_built
from scripts import BUILD, scripts

GRID = "<!-- grid -->"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages into the navigation, behind the index."""
    pages = [f"gallery/{script.name}.md" for script in scripts()]
    for entry in config.nav or []:
        if isinstance(entry, dict) and "Gallery" in entry:
            entry["Gallery"] = [entry["Gallery"][0], *pages]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what has been built, and the index with its grid.

    Raises:
        RuntimeError: A script has changed since it was run.
    """
    stale = [script.name for script in scripts() if not is_built(script)]
    if stale:
        raise RuntimeError(f"not built: {', '.join(stale)}; run python docs/gallery/build.py first")
    for script in scripts():
        for ending in ("md", "png", "ipynb"):
            name = f"{script.name}.{ending}"
            files.append(File.generated(config, f"gallery/{name}", abs_src_path=str(BUILD / name)))
    return files


def on_page_markdown(markdown: str, page: object, **rest: object) -> str:
    """Fill the grid of the index."""
    if GRID not in markdown:
        return markdown
    cards = [
        f"-   [![{s.title}]({s.name}.png)]({s.name}.md)\n\n    [{s.title}]({s.name}.md)"
        for s in scripts()
    ]
    grid = '<div class="grid cards" markdown>\n\n' + "\n\n".join(cards) + "\n\n</div>"
    return markdown.replace(GRID, grid)
