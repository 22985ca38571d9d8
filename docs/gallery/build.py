"""Runs the scripts of the gallery that have changed, for their figures, output, notebooks and pages.

Run from the root: python docs/gallery/build.py [JOBS]. For each script it writes NAME.png, NAME.txt,
NAME.ipynb and NAME.md under build/gallery, and skips those whose script is as it was; without
build/gallery all run again.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from tempfile import TemporaryFile

from notebook import notebook
from scripts import BUILD, FOLDER, STYLE, Script, scripts

PAGE = """# {title}

{text}

[![{title}]({name}.png)]({name}.png)

In {seconds:.0f} s on one core it prints:

```text
{printed}
```

[Notebook]({name}.ipynb){{ download="{name}.ipynb" }}, with the same code as
`examples/gallery/{name}.py`:

```python
{code}
```
"""


def key(script: Script) -> str:
    """A hash of the script, of the style of figures and of the form of pages."""
    content = (FOLDER / f"{script.name}.py").read_bytes() + STYLE.read_bytes() + PAGE.encode()
    return hashlib.sha256(content).hexdigest()


def is_built(script: Script) -> bool:
    """The last run was of this very script."""
    note = BUILD / f"{script.name}.key"
    return note.exists() and note.read_text(encoding="ascii") == key(script)


def run(script: Script) -> tuple[str, float]:
    """Run it in its own process: what it prints, and the seconds of processor time that it took.

    Raises:
        RuntimeError: It fails; with what it wrote to standard error.
    """
    surroundings = os.environ | {
        "MPLBACKEND": "Agg",
        "MATPLOTLIBRC": str(STYLE),
        "OMP_NUM_THREADS": "1",
        "PYTHONIOENCODING": "utf-8",
    }
    command = [sys.executable, str(FOLDER / f"{script.name}.py")]
    with TemporaryFile() as output, TemporaryFile() as errors:
        process = subprocess.Popen(
            command, cwd=BUILD, env=surroundings, stdout=output, stderr=errors
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode != 0:
            said = errors.read().decode("utf-8")
            raise RuntimeError(f"examples/gallery/{script.name}.py failed:\n{said}")
        return output.read().decode("utf-8"), used.ru_utime + used.ru_stime


def build(script: Script) -> str:
    """Write the four files of one script, and its key last; a line on it."""
    printed, seconds = run(script)
    figure = (BUILD / f"{script.name}.png").read_bytes()
    page = PAGE.format(
        title=script.title,
        text=script.text,
        name=script.name,
        seconds=seconds,
        printed=printed.rstrip(),
        code=script.code.rstrip(),
    )
    for ending, content in (
        ("txt", printed),
        ("ipynb", notebook(script, printed, figure)),
        ("md", page),
        ("key", key(script)),
    ):
        (BUILD / f"{script.name}.{ending}").write_text(content, encoding="utf-8")
    return f"{script.name}: {seconds:.0f} s"


def main(jobs: int) -> None:
    """Build all that are not built yet, some at a time."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(jobs) as pool:
        for line in pool.map(build, [script for script in scripts() if not is_built(script)]):
            print(line)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
