"""Card of a model: configuration, data, measured loss, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping

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
    own = next(
        (line for line in text.splitlines() if line.startswith("  name: ") and ":" in line[8:]), ""
    )
    source = own[8:].strip("'\" ").rpartition(":")[0]
    code = f" --code {source}" if source else ""
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
        needs=f"\nImport `{source}` first, which registers the model.\n" if source else "",
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
