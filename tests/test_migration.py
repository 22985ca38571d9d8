"""Other libraries' halves of the pages on moving from them: they run, and find what the halves here find.

A library that is not installed leaves its test out; `pip install -e '.[peers]'` installs all.
"""

import re
from pathlib import Path

import pytest
import torch

PAGES = Path(__file__).parent.parent / "docs" / "migrate"


def halves(page):
    """Code of the other library, and of this package up to the first output."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    theirs = re.findall(r"^```text\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ours = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [code for code in theirs if "import" in code], ours


def run(code, **names):
    exec(compile(code, "page", "exec"), names)
    return names


def test_scipy():
    (theirs,), (ours, *_) = halves("scipy")
    here = run(ours)
    assert here["z"].detach().numpy() == pytest.approx(run(theirs)["z"], rel=1e-8)


def test_torchdeq():
    pytest.importorskip("torchdeq")
    (theirs,), (ours, *_) = halves("torchdeq")
    here = run(ours)
    W = here["W"].detach().clone().requires_grad_()
    there = run(theirs, W=W, x=here["x"])
    torch.testing.assert_close(there["z"], here["z"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(W.grad, here["W"].grad, rtol=1e-3, atol=1e-4)
    assert there["worst"] < 1e-3


@pytest.fixture
def jax_in_float64():
    jax = pytest.importorskip("jax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield jax
    jax.config.update("jax_enable_x64", before)


def test_jaxopt(jax_in_float64):
    pytest.importorskip("jaxopt")
    (theirs, custom), (ours, *_) = halves("jaxopt")
    here = run(ours)
    jnp = jax_in_float64.numpy
    W = jnp.asarray(here["W"].numpy())
    total = 0
    for x, z in zip(here["x"], here["value"](here["W"]), strict=True):
        there = run(theirs, W=W, x=jnp.asarray(x.numpy()))
        assert there["z"].tolist() == pytest.approx(z.tolist(), abs=1e-7)
        total = total + there["gradient"]
    assert total.ravel().tolist() == pytest.approx(here["gradient"].flatten().tolist(), abs=1e-4)
    solve = run(custom, F=lambda z, a: z**2 - a, my_solver=lambda init, a: jnp.sqrt(a))["solve"]
    slope = jax_in_float64.grad(lambda a: solve(None, a))(2.0)
    assert float(slope) == pytest.approx(0.353553, abs=1e-6)


def test_optimistix(jax_in_float64):
    pytest.importorskip("optimistix")
    (theirs,), (ours, *_) = halves("optimistix")
    here = run(ours)
    for a, z in zip(here["a"].tolist(), here["solution"].value.tolist(), strict=True):
        assert float(run(theirs, a=a)["z"]) == pytest.approx(z, rel=1e-8)
