"""Configurations of small runs, and how they are run."""

import pytest

pytest.importorskip("lightning")

from implicitly.models.training import train
from implicitly.models.training.configuration import from_text

EQUILIBRIUM = """
    name: equilibrium
    stopping: {rtol: 1e-3, max_steps: 12}
    gradient: {name: exact, stopping: {rtol: 1e-3, max_steps: 12}}
    on_failure: accept
"""
TEXT = f"""
title: text
model:
  name: transformer
  width: 16
  heads: 2
  memory: 8
  dropout: 0.1
  depth: {EQUILIBRIUM}
data: {{name: standard-library, characters: 20000}}
batch: 4
length: 8
steps: 12
validate: 6
checkpoint: 4
log: 1
"""
COPY = f"""
title: copy
model:
  name: transformer
  width: 16
  heads: 2
  depth: {EQUILIBRIUM}
data: {{name: copy-memory-task, delay: 5, training: 64, test: 8}}
batch: 4
steps: 12
validate: 6
checkpoint: 4
log: 1
"""


def make(text=TEXT, *changes):
    return from_text(text, changes=changes)


def run(folder, text=TEXT, *changes, **options):
    return train(make(text, *changes), folder, accelerator="cpu", **options)
