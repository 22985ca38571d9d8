"""Card of a model: configuration, data, measured loss, and how to load it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from ..code import source_of
from .checkpoints import Restored
from .configuration import as_text
from .evaluating import Evaluation

_TEXT = """---
library_name: implicitly
---

# {title}

{description}

A `{model}` of {parameters:,} parameters, trained for {steps} steps. {symbols}

## Measured

{measured}

## Load

```bash
{generate}implicitly evaluate FOLDER{code}
```

```python
from implicitly.models.training import from_pretrained

model = from_pretrained("FOLDER").model()
```
{needs}
## Configuration

```yaml
{configuration}```
"""


def card(restored: Restored, measured: Mapping[str, Evaluation]) -> str:
    """The text of a card, in Markdown.

    Args:
        restored: The model.
        measured: Evaluations, by the part of the data.
    """
    text, symbols = as_text(restored.configuration), restored.symbols
    named = type(restored.configuration.model).__name__.removesuffix("Options")
    chosen = (restored.configuration.model, restored.configuration.data)
    sources = sorted({source for one in chosen if (source := source_of(type(one)))})
    code = "".join(f" --code {shlex.quote(source)}" for source in sources)
    return _TEXT.format(
        title=restored.configuration.title,
        description=restored.configuration.description.strip() or "A sequence model.",
        model=named,
        parameters=sum(weight.numel() for weight in restored.weights.values()),
        steps=restored.step,
        symbols=(
            f"Its vocabulary: {len(symbols)} symbols, by {symbols.level}."
            if symbols
            else f"Its vocabulary: {restored.vocabulary} tokens, without symbols."
        ),
        measured=_table(measured),
        generate=f'implicitly generate FOLDER --prompt "…"{code}\n' if symbols else "",
        code=code,
        needs="".join(
            f"\nImport `{source}` first: its model or data is of it.\n" for source in sources
        ),
        configuration=text,
    )


def _table(measured: Mapping[str, Evaluation]) -> str:
    if not measured:
        return "Nothing was measured when the model was written."
    rows = [
        "| part | loss (nats) | perplexity | tokens | evaluations | residual | unsolved |",
        "|---|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {part} | {found.loss:.4f} | {found.perplexity:.4g} | {found.tokens} | {found.evaluations:.1f} | "
        f"{found.residual:.1e} | {found.unsolved:.1%} |"
        for part, found in measured.items()
    ]
    return "\n".join(rows)
